//! `docs/conformance.md` against the tests that there are: the last column of its tables is made
//! from their names, so it can neither go stale nor name a test that is gone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Prefixes of the catalogue's points.
const PREFIXES: [&str; 16] = [
    "var", "key", "pid", "env", "ma", "dns", "mss", "noise", "yamux", "mplex", "conn", "ident",
    "ipush", "ping", "perf", "fetch",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The sources of ours below `folder`, in order.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// The names of the functions of `text` that are marked as tests and not ignored.
fn tests_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        // A test that is not run shows nothing. None of ours is marked so.
        } else if line.starts_with("#[ignore") {
            marked = false;
        } else if let Some(rest) =
            line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "))
            && std::mem::take(&mut marked)
        {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap();
            names.push(rest[..end].to_owned());
        }
    }
    names
}

/// The points that a test's name stands for: `key_05_06_vectors` is KEY-05 and KEY-06.
fn points_of(name: &str) -> Vec<String> {
    let mut points = Vec::new();
    let mut prefix = None;
    for word in name.split('_') {
        let number = word.len() == 2 && word.bytes().all(|b| b.is_ascii_digit());
        match &prefix {
            Some(prefix) if number => points.push(format!("{prefix}-{word}")),
            _ => prefix = PREFIXES.contains(&word).then(|| word.to_uppercase()),
        }
    }
    points
}

/// All tests, each after the crate it is in.
fn tests() -> BTreeSet<(String, String)> {
    let mut files = Vec::new();
    for folder in ["crates", "interop"] {
        sources(&root().join(folder), &mut files);
    }
    let mut tests = BTreeSet::new();
    for file in files {
        let inside = file.strip_prefix(root()).unwrap();
        let mut parts = inside.iter().map(|part| part.to_str().unwrap());
        let krate = parts.find(|part| *part != "crates").unwrap();
        for name in tests_in(&fs::read_to_string(&file).unwrap()) {
            tests.insert((krate.to_owned(), name));
        }
    }
    tests
}

/// Tests by point, each with the crate it is in.
fn shown() -> BTreeMap<String, BTreeSet<String>> {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (krate, name) in tests() {
        for point in points_of(&name) {
            shown.entry(point).or_default().insert(format!("{krate}: `{name}`"));
        }
    }
    shown
}

/// The tests that a text names: a crate, a colon, and the name between backticks.
fn named(text: &str) -> Vec<(String, String)> {
    let parts: Vec<&str> = text.split('`').collect();
    let mut named = Vec::new();
    for pair in parts.windows(2).step_by(2) {
        let [before, name] = pair else { continue };
        let other = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        let krate = before.strip_suffix(": ").and_then(|before| before.rsplit(other).next());
        if let Some(krate) = krate.filter(|krate| krate.starts_with("p2p")) {
            named.push((krate.to_owned(), (*name).to_owned()));
        }
    }
    named
}

#[test]
fn every_test_that_promises_and_advisories_name_exists() {
    let tests = tests();
    for (page, least) in [("PROMISES.md", 60), ("docs/advisories.md", 60)] {
        let named = named(&fs::read_to_string(root().join(page)).unwrap());
        let gone: Vec<_> = named.iter().filter(|test| !tests.contains(test)).collect();
        assert!(gone.is_empty(), "{page} names tests that there are not: {gone:?}");
        assert!(named.len() >= least, "{page} names {} tests", named.len());
    }
}

#[test]
fn tests_that_a_page_names_are_read_out_of_it() {
    let text = "a `word`, p2p-mux: `one`, `two`; p2p: `three`<br>p2p-host: `four`\n- p2p: `five`";
    let names: Vec<String> = named(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["one", "three", "four", "five"]);
}

/// A version as numbers.
fn version(text: &str) -> Vec<u64> {
    text.split('.').map_while(|part| part.parse().ok()).collect()
}

#[test]
fn rustsec_2025_0009_rustsec_2026_0118_dependencies_with_known_holes_are_not_used() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    // The first good version; none where there is no fix.
    let holes = [
        ("ring", Some("0.17.12")),
        ("hickory-proto", Some("0.26.1")),
        ("hickory-resolver", Some("0.26.1")),
        ("ed25519-dalek", Some("2.0.0")),
        ("multihash", Some("0.11.3")),
        ("prost", Some("0.6.1")),
        ("snow", Some("0.9.5")),
        ("yamux", Some("0.13.10")),
        ("quinn-proto", Some("0.11.15")),
        ("rsa", None),
    ];
    let lines: Vec<&str> = lock.lines().collect();
    let mut seen = 0;
    for pair in lines.windows(2) {
        let [name, found] = pair else { continue };
        let Some(name) = name.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"'))
        else {
            continue;
        };
        let found = found.trim_start_matches("version = \"").trim_end_matches('"');
        if let Some((_, good)) = holes.iter().find(|(hole, _)| *hole == name) {
            let good = good.unwrap_or_else(|| panic!("{name} {found} is used"));
            assert!(version(found) >= version(good), "{name} {found} is used");
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} of them are found in Cargo.lock");
}

/// A row of a table: point, level, what it asks, and what shows it.
fn row(line: &str) -> Option<[&str; 4]> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let (prefix, number) = cells.first()?.trim().split_once('-')?;
    if !PREFIXES.contains(&prefix.to_lowercase().as_str()) || number.len() != 2 {
        return None;
    }
    let [point, level, asks, by] = cells.as_slice() else { panic!("not four cells: {line}") };
    Some([point.trim(), level.trim(), asks.trim(), by.trim()])
}

/// A point that no test shows says why in italics; `UPDATE_CONFORMANCE=1` rewrites the rest.
#[test]
fn every_point_names_the_tests_that_show_it() {
    let kept = root().join("docs/conformance.md");
    let text = fs::read_to_string(&kept).unwrap();
    let shown = shown();
    let mut listed = BTreeSet::new();
    let mut made = String::new();
    let mut bare = Vec::new();
    for line in text.lines() {
        let Some([point, level, asks, by]) = row(line) else {
            made.push_str(line);
            made.push('\n');
            continue;
        };
        assert!(listed.insert(point.to_owned()), "{point} is listed twice");
        let by = match shown.get(point) {
            Some(tests) => tests.iter().cloned().collect::<Vec<_>>().join("<br>"),
            None if by.starts_with('*') => by.to_owned(),
            None => {
                bare.push(point.to_owned());
                String::new()
            }
        };
        made.push_str(&format!("| {point} | {level} | {asks} | {by} |\n"));
    }
    let unknown: Vec<_> = shown.keys().filter(|point| !listed.contains(*point)).collect();
    assert!(unknown.is_empty(), "tests name points that the page does not list: {unknown:?}");
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        fs::write(&kept, &made).unwrap();
    }
    assert!(bare.is_empty(), "points with neither a test nor a reason in italics: {bare:?}");
    assert!(
        fs::read_to_string(&kept).unwrap() == made,
        "docs/conformance.md differs from the tests: run this one with UPDATE_CONFORMANCE=1"
    );
    assert!(listed.len() > 300, "the page lists {} points", listed.len());
}

#[test]
fn names_of_tests_are_read_as_points() {
    assert_eq!(points_of("key_05_06_specification_vectors"), ["KEY-05", "KEY-06"]);
    assert_eq!(points_of("mss_07_t02_3_no_byte"), ["MSS-07"]);
    assert_eq!(points_of("a_dial_of_noise_10_wrong_peer"), ["NOISE-10"]);
    assert_eq!(points_of("noise_and_more"), Vec::<String>::new());
    // A text to be read, with a test in it that would not be run.
    let text = "#[test]\nfn ping_01_a() {}\nfn ping_02_helper() {}\n#[tokio::test(x)]\n\
                async fn ping_03_b() {}\n#[test]\n#[ignore]\nfn ping_04_c() {}\n";
    assert_eq!(tests_in(text), ["ping_01_a", "ping_03_b"]);
}
