//! Signed peer records, without a connection: each side reads what the other has signed.

use libp2p::core::{PeerRecord as TheirRecord, SignedEnvelope};
use p2p::{
    Keypair, Multiaddr,
    core::{Envelope, PeerRecord},
};

fn addrs() -> Vec<Multiaddr> {
    ["/ip4/192.0.2.1/tcp/4001", "/dns4/example.com/udp/4001/quic-v1"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

#[test]
fn env_07_theirs_are_read_in_both_forms() {
    let key = libp2p::identity::Keypair::generate_ed25519();
    let peer = key.public().to_peer_id().to_string();
    let theirs = addrs().iter().map(|addr| addr.to_string().parse().unwrap()).collect::<Vec<_>>();
    for record in [
        TheirRecord::new(&key, theirs.clone()).unwrap(),
        TheirRecord::new_interop(&key, theirs.clone()).unwrap(),
    ] {
        let read = PeerRecord::open(&record.to_signed_envelope().into_protobuf_encoding()).unwrap();
        assert_eq!(read.peer().to_string(), peer);
        assert_eq!((read.seq(), read.addrs()), (record.seq(), &addrs()[..]));
    }
}

#[test]
fn env_07_ours_are_read_in_both_forms() {
    let key = Keypair::generate().unwrap();
    let ours = PeerRecord::new(key.public().peer_id(), 7, addrs());
    let standard = ours.seal(&key).unwrap();
    let (domain, kind) = ("libp2p-routing-state", b"/libp2p/routing-state-record");
    let legacy = Envelope::seal(&key, domain, kind, standard.payload()).unwrap();
    let theirs =
        |envelope: &Envelope| SignedEnvelope::from_protobuf_encoding(envelope.as_bytes()).unwrap();
    for read in [
        TheirRecord::from_signed_envelope_interop(theirs(&standard)).unwrap(),
        TheirRecord::from_signed_envelope(theirs(&legacy)).unwrap(),
    ] {
        assert_eq!(read.peer_id().to_string(), ours.peer().to_string());
        let addrs: Vec<String> = read.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addrs, ours.addrs().iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read.seq(), 7);
    }
}
