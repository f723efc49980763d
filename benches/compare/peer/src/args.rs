//! The command line of a peer.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use crate::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    Multi,
    Current,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Self::Multi => "multi",
            Self::Current => "current",
        }
    }

    pub(crate) fn build(self, threads: Option<usize>) -> tokio::runtime::Runtime {
        let mut builder = match self {
            Self::Multi => tokio::runtime::Builder::new_multi_thread(),
            Self::Current => tokio::runtime::Builder::new_current_thread(),
        };
        if let Some(threads) = threads {
            builder.worker_threads(threads);
        }
        builder.enable_all().build().expect("a runtime")
    }
}

impl FromStr for Runtime {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text {
            "multi" => Ok(Self::Multi),
            "current" => Ok(Self::Current),
            _ => Err(format!("no runtime {text}").into()),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a peer is told to do.
#[derive(Clone, Debug)]
pub struct Args {
    pub server: bool,
    pub transport: String,
    pub listen: String,
    pub addr: String,
    pub scenario: String,
    pub server_pid: Option<u32>,
    pub runtime: Runtime,
    pub threads: Option<usize>,
    /// `KEY=VALUE`, of the implementation's own.
    pub tune: BTreeMap<String, String>,
    pub bytes: u64,
    pub streams: Option<usize>,
    pub warmup: u64,
    pub count: Option<usize>,
    pub concurrency: usize,
    pub conns: usize,
    pub settle: Duration,
    pub rtt: Duration,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            server: false,
            transport: "tcp".into(),
            listen: "/ip4/127.0.0.1/tcp/0".into(),
            addr: String::new(),
            scenario: String::new(),
            server_pid: None,
            runtime: Runtime::Multi,
            threads: None,
            tune: BTreeMap::new(),
            bytes: 1 << 30,
            streams: None,
            warmup: 64 << 20,
            count: None,
            concurrency: 1,
            conns: 1000,
            settle: Duration::from_millis(2000),
            rtt: Duration::from_millis(100),
        }
    }
}

impl Args {
    /// # Errors
    /// In words, when the command line is not one.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut args = Self::default();
        match words.next().as_deref() {
            Some("server") => args.server = true,
            Some("client") => {}
            other => return Err(format!("server or client, not {other:?}").into()),
        }
        while let Some(option) = words.next() {
            let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
            args.set(&option, &value).map_err(|error| format!("{option} {value}: {error}"))?;
        }
        if args.transport != "tcp" {
            return Err(format!("no transport {}", args.transport).into());
        }
        if !args.server && (args.addr.is_empty() || args.scenario.is_empty()) {
            return Err("a client needs --addr and --scenario".into());
        }
        Ok(args)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), Failure> {
        match option {
            "--transport" => self.transport = value.into(),
            "--listen" => self.listen = value.into(),
            "--addr" => self.addr = value.into(),
            "--scenario" => self.scenario = value.into(),
            "--server-pid" => self.server_pid = Some(value.parse()?),
            "--rt" => self.runtime = value.parse()?,
            "--threads" => self.threads = Some(value.parse()?),
            "--tune" => {
                let (key, value) = value.split_once('=').ok_or("KEY=VALUE")?;
                self.tune.insert(key.into(), value.into());
            }
            "--cipher" => drop(self.tune.insert("cipher".into(), value.into())),
            "--bytes" => self.bytes = size(value)?,
            "--streams" => self.streams = Some(value.parse()?),
            "--warmup" => self.warmup = size(value)?,
            "--count" => self.count = Some(value.parse()?),
            "--concurrency" => self.concurrency = value.parse()?,
            "--conns" => self.conns = value.parse()?,
            "--settle-ms" => self.settle = Duration::from_millis(value.parse()?),
            "--rtt-ms" => self.rtt = Duration::from_millis(value.parse()?),
            _ => return Err("no such option".into()),
        }
        Ok(())
    }

    /// What was tuned under `key`, or `default`.
    pub fn tuned<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.tune.get(key).map_or(default, String::as_str)
    }
}

/// Bytes, with the suffixes k, m and g.
///
/// # Errors
/// In words, when it is no such number.
pub fn size(text: &str) -> Result<u64, Failure> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse()?;
    number.checked_shl(shift).ok_or_else(|| "too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, bytes) in [("12", 12), ("3k", 3072), ("2m", 2 << 20), ("1G", 1 << 30)] {
            assert_eq!(size(text).unwrap(), bytes);
        }
        assert!(size("x").is_err());
    }

    #[test]
    fn a_client_needs_an_address_and_a_scenario() {
        let words = |text: &str| Args::parse(text.split(' ').map(str::to_owned));
        assert!(words("client --scenario rr").is_err());
        let args = words("client --addr /a --scenario rr --tune a=b --bytes 1m").unwrap();
        assert_eq!((args.tuned("a", ""), args.bytes), ("b", 1 << 20));
    }
}
