use std::path::Path;

use tokio::io::AsyncRead;

use crate::failure::Failure;

/// A text of the repository's own.
const BUILT_IN: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../LICENSE-APACHE"));

/// What is sent, read as it goes.
pub(super) struct Content {
    pub(super) name: String,
    pub(super) read: Box<dyn AsyncRead + Unpin + Send>,
}

impl Content {
    /// Opens `file`, or the one that is built in.
    pub(super) async fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else {
            let name = "LICENSE-APACHE (built in)".into();
            return Ok(Self { name, read: Box::new(BUILT_IN) });
        };
        let name = file.display().to_string();
        let unreadable = |error: std::io::Error| {
            Failure::new(format!("cannot read {name}: {error}")).next(
                "give a file that exists and that you may read, or none for one that is built in",
            )
        };
        // Opening a named pipe would wait for its other end.
        let kind = tokio::fs::metadata(file).await.map_err(unreadable)?.file_type();
        if !kind.is_file() {
            let what = if kind.is_dir() { "a folder" } else { "not a regular file" };
            return Err(Failure::new(format!("cannot send {name}: it is {what}"))
                .next("give a file, or none for one that is built in"));
        }
        let read = tokio::fs::File::open(file).await.map_err(unreadable)?;
        Ok(Self { name, read: Box::new(read) })
    }
}
