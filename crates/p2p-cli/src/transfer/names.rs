//! From a path on the wire to one below the target folder, and never elsewhere.

use std::path::PathBuf;

/// The longest path on the wire, in bytes, and the most names in it.
pub(super) const PATH_LEN_MAX: usize = 4096;
pub(super) const DEPTH_MAX: usize = 64;

/// Makes a relative path of ordinary names of a path on the wire: names in UTF-8, with `/` between.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn local_path(path: &str) -> Result<PathBuf, String> {
    if path.len() > PATH_LEN_MAX {
        return Err(format!("it is longer than {PATH_LEN_MAX} bytes"));
    }
    let mut local = PathBuf::new();
    for (depth, name) in path.split('/').enumerate() {
        if depth >= DEPTH_MAX {
            return Err(format!("it is more than {DEPTH_MAX} folders deep"));
        }
        check_name(name, cfg!(windows))?;
        local.push(name);
    }
    Ok(local)
}

/// Refuses what is no ordinary name, or on Windows another thing than a file of that name.
fn check_name(name: &str, windows: bool) -> Result<(), String> {
    match name {
        "" => return Err("it has an empty name in it, or is not relative".into()),
        "." | ".." => return Err(format!("it has {name:?} in it")),
        _ => {}
    }
    if name.contains(['/', '\0']) {
        return Err("it has a character in it that no name can have".into());
    }
    if windows {
        return check_windows_name(name);
    }
    Ok(())
}

/// Names of devices are such with any extension too. A dot or space at the end is dropped by the
/// system, which would make two names one.
fn check_windows_name(name: &str) -> Result<(), String> {
    let refused = |c: char| c < ' ' || matches!(c, '<' | '>' | ':' | '"' | '\\' | '|' | '?' | '*');
    if name.contains(refused) || name.ends_with(['.', ' ']) {
        return Err(format!("{name:?} cannot be a name on Windows"));
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        let number = stem.strip_prefix(device).unwrap_or_default();
        matches!(
            number,
            "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"
        )
    };
    let devices = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    if devices.contains(&stem.as_str()) || numbered("COM") || numbered("LPT") {
        return Err(format!("{name:?} is a device on Windows"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::*;

    #[test]
    fn ordinary_paths_are_kept() {
        for path in ["a", "a/b c/ü", "...", "a..b", ".hidden", "-", "~"] {
            assert_eq!(local_path(path).expect(path), Path::new(path));
        }
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let deep = vec!["a"; DEPTH_MAX + 1].join("/");
        let long = "a".repeat(PATH_LEN_MAX + 1);
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a/..",
            ".",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            &deep,
            &long,
        ] {
            assert!(local_path(path).is_err(), "{path:?}");
        }
        assert!(local_path(&deep[2..]).is_ok());
    }

    /// Whatever is let through is made of ordinary names alone, by the system's own judgement.
    #[test]
    fn garbage_is_refused_or_below_the_folder() {
        let parts = ["..", ".", "", "/", "a", "\0", "\\", "C:", "é", " ", "nul"];
        let mut state = 1usize;
        for _ in 0..10_000 {
            let mut path = String::new();
            for _ in 0..5 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                path += parts[(state >> 33) % parts.len()];
                path += if state >> 60 > 7 { "/" } else { "" };
            }
            if let Ok(local) = local_path(&path) {
                assert!(local.components().all(|part| matches!(part, Component::Normal(_))));
                assert!(local.components().next().is_some());
            }
        }
    }

    #[test]
    fn names_that_windows_takes_for_something_else_are_refused_there() {
        for name in [
            "con",
            "NUL",
            "aux.txt",
            "Com1",
            "LPT9.tar.gz",
            "com¹",
            "conin$",
            "nul ",
            "a.",
            "a ",
            "a:b",
            "C:",
            r"a\b",
            "a*",
            "a?",
            "a\u{1}",
            "CON .txt",
        ] {
            assert!(check_name(name, true).is_err(), "{name}");
            assert!(check_name(name, false).is_ok(), "{name}");
        }
        for name in ["console", "com", "com10", "nul1", "a b", "lpt", ".a", "aux-"] {
            assert!(check_name(name, true).is_ok(), "{name}");
        }
    }
}
