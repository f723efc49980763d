//! A transport of one's own, over sockets in the file system, and two hosts that use it:
//! `cargo run -p p2p-examples --bin unix-transport`

use async_trait::async_trait;
use p2p::core::{multiaddr::Protocol, *};
use tokio::net::{UnixListener, UnixStream};

pub(crate) struct Unix;

struct Bound(Multiaddr, String, UnixListener);

fn path(addr: &Multiaddr) -> Result<String, TransportError> {
    let Some(Protocol::Unix(path)) = addr.iter().next() else {
        return Err(TransportError::Unsupported { addr: addr.clone() });
    };
    Ok(format!("/{path}"))
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
        connected.map(link).map_err(|error| TransportError::Dial { addr, source: error.into() })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let path = path(&addr)?;
        match UnixListener::bind(&path) {
            Ok(listener) => Ok(Box::new(Bound(addr, path, listener))),
            Err(error) => Err(TransportError::Listen { addr, source: error.into() }),
        }
    }
}

#[async_trait]
impl Listener for Bound {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.0.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let addr = self.0.clone();
        Ok(match self.2.accept().await {
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
        drop(std::fs::remove_file(&self.1)); // nothing else removes it
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = format!("/unix/tmp%2Fp2p-example-{}", std::process::id());
    let host = p2p::builder().transport(Unix).listen(addr).spawn().await?;
    let other = p2p::builder().transport(Unix).spawn().await?;
    eprintln!("{:?} over {}", other.ping(&host.addrs()[0]).await?, host.addrs()[0]);
    Ok(())
}
