//! A transport of one's own, over Unix domain sockets, and the suite that checks it.
//!
//! ```text
//! cargo run -p p2p-testkit --example unix_transport
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use p2p_core::{
    DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Pipe, Transport, TransportError,
    multiaddr::Protocol,
};
use p2p_testkit::conformance;
use tokio::net::{UnixListener, UnixStream};

/// Sockets in the file system, at addresses such as `/unix/tmp%2Fsocket`.
struct Unix;

struct Bound {
    addr: Multiaddr,
    path: String,
    listener: UnixListener,
}

fn path(addr: &Multiaddr) -> Result<String, TransportError> {
    match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Unix(path)] => Ok(format!("/{path}")),
        _ => Err(TransportError::Unsupported { addr: addr.clone() }),
    }
}

fn link(stream: UnixStream) -> Link {
    let (read, write) = stream.into_split();
    Link::Pipe(Pipe::new(read, write))
}

#[async_trait]
impl Transport for Unix {
    fn supports(&self, addr: &Multiaddr) -> bool {
        path(addr).is_ok()
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let addr = target.addr;
        let connected = UnixStream::connect(path(&addr)?).await;
        connected.map(link).map_err(|e| TransportError::Dial { addr, source: e.into() })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let path = path(&addr)?;
        match UnixListener::bind(&path) {
            Ok(listener) => Ok(Box::new(Bound { addr, path, listener })),
            Err(error) => Err(TransportError::Listen { addr, source: error.into() }),
        }
    }
}

#[async_trait]
impl Listener for Bound {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.addr.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let addr = self.addr.clone();
        Ok(match self.listener.accept().await {
            // The other end has no name.
            Ok((stream, _)) => {
                ListenEvent::Incoming(Incoming::new(addr.clone(), addr, async { Ok(link(stream)) }))
            }
            Err(error) => {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                ListenEvent::Failed(TransportError::Accept { addr, source: error.into() })
            }
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Nothing else removes the file.
        drop(std::fs::remove_file(&self.path));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    check().await?;
    eprintln!("the transport keeps its contract");
    Ok(())
}

async fn check() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("socket").to_string_lossy().into_owned();
    let socket = Protocol::Unix(socket.trim_start_matches('/').to_owned().into());
    let foreign = "/ip4/127.0.0.1/tcp/1".parse()?;
    Ok(conformance::transport(Arc::new(Unix), Multiaddr::empty().with(socket), foreign).await?)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_transport_of_ones_own_keeps_the_contract() {
        super::check().await.expect("no violation");
    }
}
