//! Leaves out of a report what tells where somebody is or who.

use p2p::{
    AddrExt, Multiaddr, PeerId,
    core::{Reach, multiaddr::Protocol},
};

/// Knows what is to be left out, and by what it is replaced.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    known: Vec<(String, String)>,
    peers: usize,
}

impl Redactor {
    /// Leaves out whatever this address tells.
    pub(crate) fn learn(&mut self, addr: &Multiaddr) {
        for part in addr {
            let alone = Multiaddr::empty().with(part.clone());
            if alone.reach() == Reach::Loopback {
                continue;
            }
            if let Protocol::Ip4(ip) = part {
                self.replace(ip.to_string(), format!("<{} ip4>", kind(&alone)));
            } else if let Protocol::Ip6(ip) = part {
                self.replace(ip.to_string(), format!("<{} ip6>", kind(&alone)));
            } else if let Protocol::Dns(name)
            | Protocol::Dns4(name)
            | Protocol::Dns6(name)
            | Protocol::Dnsaddr(name) = part
            {
                self.replace(name.to_string(), "<name>".into());
            } else if let Protocol::P2p(_) = part
                && let Ok((_, Some(peer))) = alone.split_peer()
            {
                self.learn_peer(&peer);
            }
        }
    }

    pub(crate) fn learn_peer(&mut self, peer: &PeerId) {
        let text = peer.to_string();
        if self.known.iter().all(|(known, _)| *known != text) {
            self.peers = self.peers.saturating_add(1);
            self.replace(text, format!("<peer {}>", self.peers));
        }
    }

    /// The longest comes first: one may be a part of another.
    fn replace(&mut self, text: String, by: String) {
        if text.is_empty() || self.known.iter().any(|(known, _)| *known == text) {
            return;
        }
        let at = self.known.partition_point(|(known, _)| known.len() >= text.len());
        self.known.insert(at, (text, by));
    }

    pub(crate) fn redact(&self, text: &str) -> String {
        let replace = |text: String, (known, by): &(String, String)| text.replace(known, by);
        self.known.iter().fold(text.to_owned(), replace)
    }
}

fn kind(addr: &Multiaddr) -> &'static str {
    let reach = addr.reach();
    if reach == Reach::Public {
        "public"
    } else if reach == Reach::Private {
        "private"
    } else if reach == Reach::LinkLocal {
        "link-local"
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";

    #[test]
    fn what_is_known_is_left_out_wherever_it_stands() {
        let mut redactor = Redactor::default();
        for addr in [
            format!("/ip4/10.0.0.1/tcp/1/p2p/{PEER}"),
            "/ip4/10.0.0.12/tcp/1".into(),
            "/ip4/8.8.8.8/tcp/1".into(),
            "/ip6/fe80::1/tcp/1".into(),
            "/dns/node.example/tcp/4001".into(),
            "/ip4/127.0.0.1/tcp/1".into(),
        ] {
            redactor.learn(&addr.parse().expect("an address"));
        }
        let text = format!(
            "10.0.0.12:5 10.0.0.1 8.8.8.8 [fe80::1]:2 node.example/p2p/{PEER} 127.0.0.1 tcp"
        );
        assert_eq!(
            redactor.redact(&text),
            "<private ip4>:5 <private ip4> <public ip4> [<link-local ip6>]:2 <name>/p2p/<peer 1> \
             127.0.0.1 tcp"
        );
    }
}
