use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// What the clones of a transport listen on.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<Vec<SocketAddr>>);

/// One address that is listened on, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Port {
    of: Weak<Ports>,
    bound: Option<SocketAddr>,
}

impl Ports {
    fn with<R>(&self, work: impl FnOnce(&mut Vec<SocketAddr>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(this: &Arc<Self>, bound: SocketAddr) -> Port {
        this.with(|list| list.push(bound));
        Port { of: Arc::downgrade(this), bound: Some(bound) }
    }

    /// The address to dial `remote` from: a wildcard leaves the rest of it to the system.
    pub(crate) fn to_dial(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let fits = |bound: &&SocketAddr| {
            let wildcard = bound.ip().is_unspecified();
            // A socket that connects to its own address is its own peer.
            **bound != remote
                && bound.is_ipv4() == remote.is_ipv4()
                && (wildcard || bound.ip().is_loopback() == remote.ip().is_loopback())
        };
        self.with(|list| {
            list.iter().filter(fits).min_by_key(|bound| bound.ip().is_unspecified()).copied()
        })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let (Some(ports), Some(bound)) = (self.of.upgrade(), self.bound) else { return };
        ports.with(|list| {
            if let Some(place) = list.iter().position(|other| *other == bound) {
                list.swap_remove(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conn_39_a_dial_goes_out_from_a_listener_that_it_can_go_out_from() {
        let ports = Arc::new(Ports::default());
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let from = |remote: &str| ports.to_dial(addr(remote)).map(|from| from.to_string());
        assert_eq!(from("192.0.2.1:1"), None);
        let loopback = Ports::add(&ports, addr("127.0.0.1:10"));
        assert_eq!(from("127.0.0.1:1").as_deref(), Some("127.0.0.1:10"));
        assert_eq!(from("127.0.0.1:10"), None, "itself");
        assert_eq!(from("192.0.2.1:1"), None, "loopback leads nowhere else");
        assert_eq!(from("[::1]:1"), None, "the other family");
        let wildcard = Ports::add(&ports, addr("0.0.0.0:20"));
        assert_eq!(from("127.0.0.1:1").as_deref(), Some("127.0.0.1:10"));
        assert_eq!(from("192.0.2.1:1").as_deref(), Some("0.0.0.0:20"));
        drop(loopback);
        assert_eq!(from("127.0.0.1:1").as_deref(), Some("0.0.0.0:20"));
        drop(wildcard);
        assert_eq!(from("127.0.0.1:1"), None);
    }
}
