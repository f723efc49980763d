use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use p2p::{Host, ProtocolId, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Barrier,
    task::JoinSet,
};

use crate::failure::Failure;

pub(super) const PROTOCOL: ProtocolId = ProtocolId::from_static("/echo/1.0.0");

/// Streams that are open at once.
pub(super) const STREAMS: usize = 64;

/// What is echoed on each stream, in bytes.
pub(super) const MESSAGE_LEN: usize = 4096;

/// The serving side, which counts the streams it serves.
#[derive(Debug, Default)]
pub(super) struct Echo {
    serving: AtomicUsize,
    at_once_max: AtomicUsize,
}

impl Echo {
    pub(super) async fn answer(&self, stream: Stream) -> io::Result<()> {
        let serving = self.serving.fetch_add(1, Ordering::Relaxed) + 1;
        self.at_once_max.fetch_max(serving, Ordering::Relaxed);
        let (mut write, mut read) = stream.into_halves();
        tokio::io::copy(&mut read, &mut write).await?;
        self.serving.fetch_sub(1, Ordering::Relaxed);
        write.shutdown().await
    }

    /// The most streams that were served at once.
    pub(super) fn at_once_max(&self) -> usize {
        self.at_once_max.load(Ordering::Relaxed)
    }
}

/// Has a message of its own echoed on each of [`STREAMS`] streams.
pub(super) async fn ask_on_all(host: &Host, addr: &str) -> Result<(), Failure> {
    let all_echoed = Arc::new(Barrier::new(STREAMS));
    let mut asking = JoinSet::new();
    for index in 0..STREAMS {
        let (host, addr, all_echoed) = (host.clone(), addr.to_owned(), Arc::clone(&all_echoed));
        asking.spawn(async move {
            let stream = host.open(&addr, PROTOCOL).await?;
            let right = ask(stream, index, &all_echoed)
                .await
                .map_err(|error| Failure::new(format!("echo stream {index} failed: {error}")))?;
            if right {
                Ok(())
            } else {
                Err(Failure::new(format!("echo stream {index} gave back other bytes")))
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.map_err(|error| Failure::new(format!("an echo task failed: {error}")))??;
    }
    Ok(())
}

/// True when what came back is what was sent. No stream ends before all have their echo, so that
/// all are open at once.
async fn ask(mut stream: Stream, index: usize, all_echoed: &Barrier) -> io::Result<bool> {
    let message: Vec<u8> = index.to_le_bytes().into_iter().cycle().take(MESSAGE_LEN).collect();
    stream.write_all(&message).await?;
    let mut echo = vec![0; MESSAGE_LEN];
    stream.read_exact(&mut echo).await?;
    all_echoed.wait().await;
    stream.shutdown().await?;
    let ended = stream.read(&mut [0]).await? == 0;
    Ok(ended && echo == message)
}
