//! Local sockets by their name: `HOST:PORT` or `unix:/PATH`.

use std::{fmt, io, net::SocketAddr};

use p2p::Stream;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::{
    carry::{Broken, Carried, carry},
    failure::Failure,
};

/// The longest name of a socket, in bytes: a host name's 255, and what belongs to it.
pub(crate) const NAME_LEN_MAX: usize = 512;

/// The name of a socket, in the one form in which two of them are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    /// `HOST:PORT`
    Tcp(String),
    /// An absolute path.
    #[cfg(unix)]
    Unix(String),
}

impl Socket {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > NAME_LEN_MAX {
            return Err(format!("it is longer than {NAME_LEN_MAX} bytes"));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self::Tcp(addr.to_string()));
        }
        let form = "write it like 127.0.0.1:80, [::1]:80, localhost:80 or unix:/run/service.sock";
        let (host, port) = text.rsplit_once(':').ok_or(form)?;
        let port: u16 = port.parse().map_err(|_| form)?;
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(name) {
            return Err(form.into());
        }
        Ok(Self::Tcp(format!("{}:{port}", host.to_ascii_lowercase())))
    }
}

#[cfg(unix)]
fn unix(path: &str) -> Result<Socket, String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err("a Unix socket is given by an absolute path: unix:/run/service.sock".into());
    }
    Ok(Socket::Unix(path.into()))
}

#[cfg(not(unix))]
fn unix(_: &str) -> Result<Socket, String> {
    Err("there are no Unix sockets on this system".into())
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => f.write_str(addr),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// One local connection.
#[derive(Debug)]
pub(crate) enum Local {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Local {
    pub(crate) async fn connect(socket: &Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(addr) => Ok(Self::tcp(TcpStream::connect(addr).await?)),
            #[cfg(unix)]
            Socket::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    fn tcp(tcp: TcpStream) -> Self {
        // A small answer must not wait for the next; without it, it is only slower.
        drop(tcp.set_nodelay(true));
        Self::Tcp(tcp)
    }

    /// Carries a stream; where that breaks, the local connection is aborted too.
    pub(crate) async fn carry(self, stream: Stream) -> Result<Carried, Broken> {
        match self {
            Self::Tcp(mut tcp) => {
                let (read, write) = tcp.split();
                let carried = carry(stream, read, write).await;
                if carried.is_err() {
                    abort(tcp);
                }
                carried
            }
            #[cfg(unix)]
            Self::Unix(mut unix) => {
                let (read, write) = unix.split();
                carry(stream, read, write).await
            }
        }
    }

    /// Ends the connection as one that failed.
    pub(crate) fn abort(self) {
        match self {
            Self::Tcp(tcp) => abort(tcp),
            // The system knows no reset of these.
            #[cfg(unix)]
            Self::Unix(_) => {}
        }
    }
}

/// Cut data must not look whole: the end is a reset. Where the socket is gone already there is
/// nothing to tell.
fn abort(tcp: TcpStream) {
    drop(tcp.set_zero_linger());
}

/// A place where local connections are taken.
#[derive(Debug)]
pub(crate) enum LocalListener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, RemoveAtEnd),
}

/// A socket's file, which is of no use when its listener is gone.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct RemoveAtEnd(String);

#[cfg(unix)]
impl Drop for RemoveAtEnd {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        drop(std::fs::remove_file(&self.0));
    }
}

impl LocalListener {
    /// Binds, and gives the name that it is reached by.
    pub(crate) async fn bind(socket: &Socket) -> Result<(Self, Socket), Failure> {
        let not_bound = |error: io::Error| {
            let failure = Failure::new(format!("cannot take connections on {socket}: {error}"));
            let kind = error.kind();
            if kind == io::ErrorKind::AddrInUse && matches!(socket, Socket::Tcp(_)) {
                failure.next(
                    "end the program that has the port, or give another; port 0 takes one that is \
                     free",
                )
            } else if kind == io::ErrorKind::AddrInUse {
                failure.next("remove the file if no program uses it, or give another")
            } else if kind == io::ErrorKind::PermissionDenied {
                failure.next("choose a port from 1024 on, or a folder that you may write to")
            } else if kind == io::ErrorKind::AddrNotAvailable {
                failure.next("give an address that this machine has, such as 127.0.0.1")
            } else {
                failure
            }
        };
        match socket {
            Socket::Tcp(addr) => {
                let listener = TcpListener::bind(addr).await.map_err(not_bound)?;
                let bound = listener.local_addr().map_err(not_bound)?;
                Ok((Self::Tcp(listener), Socket::Tcp(bound.to_string())))
            }
            #[cfg(unix)]
            Socket::Unix(path) => {
                let listener = UnixListener::bind(path).map_err(not_bound)?;
                Ok((Self::Unix(listener, RemoveAtEnd(path.clone())), socket.clone()))
            }
        }
    }

    /// Waits for the next connection, and says whose it is. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(Local, String)> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, from) = listener.accept().await?;
                Ok((Local::tcp(tcp), from.to_string()))
            }
            #[cfg(unix)]
            Self::Unix(listener, RemoveAtEnd(path)) => {
                Ok((Local::Unix(listener.accept().await?.0), format!("unix:{path}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_one_name() {
        for (text, name) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
            ("LOCALHOST:080", "localhost:80"),
            ("db.internal:5432", "db.internal:5432"),
        ] {
            assert_eq!(Socket::parse(text).expect(text).to_string(), name);
        }
        let long = format!("{}:80", "a".repeat(NAME_LEN_MAX));
        for text in
            ["", "80", ":80", "a:", "a:65536", "a b:1", "::1:80", "a/b:1", "unix:run", &long]
        {
            assert!(Socket::parse(text).is_err(), "{text}");
        }
        #[cfg(unix)]
        assert_eq!(Socket::parse("unix:/a b").expect("a path").to_string(), "unix:/a b");
    }
}
