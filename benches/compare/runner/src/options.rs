//! The command line of the runner.

use std::path::{Path, PathBuf};

use compare_peer::{Failure, Runtime};

const USAGE: &str = "\
compare [OPTION]...

  --quick             a tenth of the work, 2 rounds
  --rounds N          rounds of each scenario (5; those of memory and of the delayed link fewer)
  --only SCENARIO     that scenario alone; may be given several times
  --peers A,B         those contenders alone: p2p, p2p-rustcrypto, p2p-aws-lc-rs, p2p-openssl,
                      rust-libp2p, litep2p, sealed-ring, sealed-rustcrypto, sealed-aws-lc-rs,
                      sealed-openssl, tcp
  --rt multi|current  that runtime alone
  --conns N           connections of idle-conns (1000)
  --docs              write into docs/performance.md and docs/performance/
  --report            make the report anew from the figures that were written last
  --build-times       measure clean builds, and nothing else: takes minutes
  --no-build          take the peers as they are";

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub quick: bool,
    pub rounds: Option<usize>,
    pub only: Vec<String>,
    pub peers: Option<Vec<String>>,
    pub runtime: Option<Runtime>,
    pub conns: Option<usize>,
    pub docs: bool,
    pub report_only: bool,
    pub build_times: bool,
    pub no_build: bool,
    /// Programs that could not be built, and contenders that those which were built cannot be.
    pub missing: Vec<String>,
}

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--rounds" => options.rounds = Some(value()?.parse()?),
                "--only" => options.only.push(value()?),
                "--peers" => {
                    options.peers = Some(value()?.split(',').map(str::to_owned).collect());
                }
                "--rt" => options.runtime = Some(value()?.parse()?),
                "--conns" => options.conns = Some(value()?.parse()?),
                "--docs" => options.docs = true,
                "--report" => options.report_only = true,
                "--build-times" => options.build_times = true,
                "--no-build" => options.no_build = true,
                "--missing" => options.missing.push(value()?),
                _ => return Err(format!("{word}?\n{USAGE}").into()),
            }
        }
        Ok(options)
    }

    /// The command line that gives these options.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |word: &str, values: Vec<String>| {
            for value in values {
                words.extend([word.to_owned(), value]);
            }
        };
        add("--rounds", self.rounds.iter().map(ToString::to_string).collect());
        add("--only", self.only.clone());
        add("--peers", self.peers.iter().map(|peers| peers.join(",")).collect());
        add("--rt", self.runtime.iter().map(ToString::to_string).collect());
        add("--conns", self.conns.iter().map(ToString::to_string).collect());
        add("--missing", self.missing.clone());
        for (word, given) in
            [("--quick", self.quick), ("--docs", self.docs), ("--no-build", self.no_build)]
        {
            words.extend(given.then(|| word.to_owned()));
        }
        words
    }

    pub fn out_folder(&self) -> Result<PathBuf, Failure> {
        match self.docs {
            true => Ok(repository().join("docs/performance")),
            false => Ok(target_folder()?.join("compare-report")),
        }
    }
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

pub fn repository() -> PathBuf {
    workspace().ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

/// Where the programs are.
pub fn programs() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    Ok(own.parent().ok_or("no folder")?.to_owned())
}

pub fn target_folder() -> Result<PathBuf, Failure> {
    Ok(programs()?.parent().ok_or("no folder")?.to_owned())
}
