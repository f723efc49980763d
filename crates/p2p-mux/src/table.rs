//! Tables of what a state machine does, which are committed: `tests/tables`. With
//! `P2P_WRITE_TABLES=1` the tests write them anew; the difference is then to be read and judged.

/// Fails at the first line in which the table is not the committed one of that name.
pub(crate) fn assert_committed(name: &str, table: &str) {
    let path = format!("{}/tests/tables/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("P2P_WRITE_TABLES").is_some() {
        std::fs::write(&path, table).expect("the table can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (now, committed)) in table.lines().zip(committed.lines()).enumerate() {
        assert_eq!(now, committed, "line {} of {path}", line + 1);
    }
    assert_eq!(table.len(), committed.len(), "the table has more lines, or fewer");
}
