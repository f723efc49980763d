//! Identify, `/ipfs/id/1.0.0`: what peers say of themselves, both ways, on every connection
//! (specs, identify/README.md).

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::{Buf, Bytes};
use p2p_core::{
    AddrExt, ConnectionError, Multiaddr, PeerId, PeerRecord, PeerRecordError, ProtocolId,
    PublicKey, RecordSeq, Stream, addrs_for, decode_multiaddr, multiaddr::Protocol, varint,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use crate::{
    Cause, Event, HandleError, OpenError, Stage,
    connection::{Conn, within},
    dispatch::Limits,
    host::Inner,
    ledger::Max,
    metrics,
    open::open_counted,
    proto,
};

/// The protocol's name.
pub const PROTOCOL: ProtocolId = ProtocolId::from_static("/ipfs/id/1.0.0");

/// The protocol family that this host says it belongs to, as js-libp2p and py-libp2p do
/// (IDENT-16).
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";
/// How long the exchange may take, either way, with the opening of its stream.
pub(crate) const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// The largest message that is sent, in bytes: rust-libp2p reads no more (IDENT-08).
const SENT_LEN_MAX: usize = 4096;
/// The largest message that is read, in bytes, and how many make up one answer (IDENT-09).
const MESSAGE_LEN_MAX: usize = 8192;
const MESSAGES_MAX: usize = 10;
/// Entries of either list that are looked at. An entry of no length has two bytes on the wire, and
/// a dozen times as many in memory.
const ENTRIES_MAX: usize = 4096;
/// What is kept of one peer (IDENT-13).
const ADDRS_MAX: usize = 64;
pub(crate) const PROTOCOLS_MAX: usize = 1024;
/// Identify streams of one peer that are answered at a time (CONN-46).
const STREAMS_OF_PEER_MAX: usize = 16;

/// What a peer has said of itself. The public key is proven, and that the addresses of a signed
/// record are its own words; the rest is a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The peer's public key; it belongs to the peer id that the secure channel has verified.
    pub public_key: PublicKey,
    /// The addresses it says it can be reached at, without `/p2p`; at most 64.
    pub listen_addrs: Vec<Multiaddr>,
    /// The number of the record, signed by the peer, that the addresses come from; `None` when
    /// there was no valid one.
    pub record_seq: Option<u64>,
    /// That record in its envelope, as it came: others can verify it; at most 8 KiB.
    pub record: Option<Bytes>,
    /// The protocols it serves; at most 1024.
    pub protocols: Vec<ProtocolId>,
    /// This side's address, as the peer sees it.
    pub observed_addr: Option<Multiaddr>,
    /// The protocol family it belongs to, such as `ipfs/0.1.0`.
    pub protocol_version: String,
    /// The software it runs.
    pub agent: String,
}

/// How far the host is with learning who a peer is.
#[derive(Clone, Debug)]
pub(crate) enum Identification {
    Pending,
    Known(Arc<PeerInfo>),
    Failed(Arc<OpenError>),
    /// The connection has ended before.
    Lost(ConnectionError),
}

impl Identification {
    /// Ends one that is pending because the connection has ended.
    pub(crate) fn fail(&mut self, cause: &ConnectionError) -> bool {
        let pending = matches!(self, Self::Pending);
        if pending {
            *self = Self::Lost(cause.clone());
        }
        pending
    }
}

/// Serves the protocol.
pub(crate) fn register(host: &Arc<Inner>) -> Result<(), HandleError> {
    let limits = Limits {
        streams_of_peer_max: Some(Max::fixed(STREAMS_OF_PEER_MAX)),
        keeps_alive: false,
        ..Limits::default()
    };
    let host_ref: Weak<Inner> = Arc::downgrade(host);
    host.protocols.handle_within(PROTOCOL, limits, move |stream| {
        let host = host_ref.upgrade();
        async move {
            match host {
                Some(host) => {
                    within(EXCHANGE_MAX, answer(&host, stream)).await?.map_err(Cause::from)
                }
                None => Ok(()),
            }
        }
    })
}

async fn answer(host: &Inner, mut stream: Stream) -> std::io::Result<()> {
    write_own(host, &mut stream).await
}

/// Writes what this host says of itself, and the end (IDENT-11).
pub(crate) async fn write_own(host: &Inner, stream: &mut Stream) -> std::io::Result<()> {
    let message = own_message(host, stream.connection().remote());
    stream.write_all(&message.encode_length_delimited_to_vec()).await?;
    stream.shutdown().await
}

/// What this host says to a peer at `remote`. Addresses are left out where there are too many
/// for one message.
fn own_message(host: &Inner, remote: &Multiaddr) -> proto::Identify {
    let mut message = proto::Identify {
        public_key: Some(host.identity.public().to_protobuf()),
        listen_addrs: Vec::new(),
        protocols: host.protocols.names().iter().map(ToString::to_string).collect(),
        observed_addr: Some(remote.to_vec()),
        protocol_version: Some(PROTOCOL_VERSION.into()),
        agent_version: Some(host.config.agent.clone()),
        signed_peer_record: None,
    };
    while message.encoded_len() > SENT_LEN_MAX && message.protocols.pop().is_some() {}
    let mut told = Vec::new();
    for addr in addrs_for(remote, &host.told_addrs()) {
        message.listen_addrs.push(addr.to_vec());
        if message.encoded_len() > SENT_LEN_MAX {
            message.listen_addrs.pop();
        } else {
            told.push(addr);
        }
    }
    if !told.is_empty() {
        match host.own_record.signed(host, told) {
            Ok(record) => message.signed_peer_record = Some(record),
            Err(error) => tracing::debug!(%error, "the addresses are told without a signature"),
        }
    }
    // A reader of the first message alone does without the record (IDENT-10).
    if message.encoded_len() > SENT_LEN_MAX {
        message.signed_peer_record = None;
    }
    message
}

/// The host's signed record of itself. It is signed again when the addresses to tell are not
/// those of the last time, so that the same addresses have the same number.
#[derive(Debug, Default)]
pub(crate) struct OwnRecord(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    seq: RecordSeq,
    addrs: Vec<Multiaddr>,
    encoded: Vec<u8>,
}

impl OwnRecord {
    fn signed(&self, host: &Inner, addrs: Vec<Multiaddr>) -> Result<Vec<u8>, PeerRecordError> {
        let last = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = {
            let mut last = last();
            if last.addrs == addrs {
                return Ok(last.encoded.clone());
            }
            last.seq.advance(host.world.date())
        };
        let record = PeerRecord::new(host.own, seq, addrs.iter().cloned());
        let encoded = record.seal(&host.identity)?.as_bytes().to_vec();
        let mut last = last();
        (last.addrs, last.encoded) = (addrs, encoded.clone());
        Ok(encoded)
    }
}

/// The task that asks a new connection's peer who it is.
pub(crate) async fn ask(host: Arc<Inner>, conn: Arc<Conn>) {
    let result = request(&host, &conn).await;
    metrics::identified(result.as_ref().map(drop));
    let state = match result {
        Ok(info) => Identification::Known(Arc::new(info)),
        Err(error) => {
            tracing::debug!(%error, "identify");
            Identification::Failed(Arc::new(error))
        }
    };
    let known = state.clone();
    let in_time = conn.identification.change(|old| {
        let pending = matches!(old, Identification::Pending);
        if pending {
            *old = state;
        }
        pending
    });
    // Nobody is told of a peer after its connection's end.
    if let Identification::Known(info) = known
        && in_time
    {
        host.learned(&conn, info);
    }
}

impl Inner {
    /// Passes on what a connection's peer has said.
    pub(crate) fn learned(&self, conn: &Conn, info: Arc<PeerInfo>) {
        if let Some(seen) = &info.observed_addr {
            self.observe(conn, seen);
        }
        self.peerstore.identified(conn.peer(), conn.info().remote(), &info);
        self.emit(Event::Identified { peer: conn.peer(), info });
    }
}

/// Asks a peer who it is. Opening and answer have [`EXCHANGE_MAX`] together.
async fn request(host: &Inner, conn: &Arc<Conn>) -> Result<PeerInfo, OpenError> {
    let by = Instant::now() + EXCHANGE_MAX;
    let mut stream = open_counted(host, conn, &PROTOCOL, false, EXCHANGE_MAX).await?;
    let failed = |cause| OpenError::Stream {
        peer: conn.peer(),
        protocol: PROTOCOL,
        stage: Stage::Protocol,
        cause,
    };
    let exchange = async {
        stream.shutdown().await?;
        read_all(&mut stream).await
    };
    let bytes = timeout_at(by, exchange)
        .await
        .map_err(|_| failed(Cause::TimedOut(EXCHANGE_MAX)))?
        .map_err(|error| failed(Cause::Io(error.into())))?;
    let invalid = |text: String| {
        failed(Cause::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, text).into()))
    };
    decode(bytes, conn.info().public_key()).map_err(invalid)
}

/// Reads the messages to the end of the stream; what goes beyond the limits is left unread.
pub(crate) async fn read_all(stream: &mut Stream) -> std::io::Result<Bytes> {
    let limit = MESSAGES_MAX * (MESSAGE_LEN_MAX + varint::LEN_MAX);
    let mut bytes = Vec::new();
    stream.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

/// Decodes the answer of the peer that has proven to have `public_key`.
pub(crate) fn decode(answer: Bytes, public_key: &PublicKey) -> Result<PeerInfo, String> {
    understand(&merge(answer)?, public_key)
}

/// Merges the messages of an answer: the last scalar wins, lists are joined (IDENT-09).
fn merge(mut bytes: Bytes) -> Result<proto::Identify, String> {
    let mut merged = proto::Identify::default();
    for _ in 0..MESSAGES_MAX {
        if bytes.is_empty() {
            break;
        }
        let (len, used) = varint::decode(&bytes)
            .map_err(|error| error.to_string())?
            .ok_or("the answer ends inside a length prefix")?;
        bytes.advance(used);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MESSAGE_LEN_MAX {
            return Err(format!("a message of {len} bytes is longer than {MESSAGE_LEN_MAX}"));
        }
        if len > bytes.len() {
            return Err(format!("a message of {len} bytes ends after {}", bytes.len()));
        }
        merged.merge(bytes.split_to(len)).map_err(|error| error.to_string())?;
        merged.protocols.truncate(ENTRIES_MAX);
        merged.listen_addrs.truncate(ENTRIES_MAX);
    }
    Ok(merged)
}

fn understand(message: &proto::Identify, public_key: &PublicKey) -> Result<PeerInfo, String> {
    if message.public_key.is_none() {
        return Err("the answer has no public key".into());
    }
    let mut info = PeerInfo::silent(public_key.clone());
    Said::read(message, public_key)?.merge_into(&mut info);
    Ok(info)
}

impl PeerInfo {
    /// What is known of a peer that has proven its key, and said nothing.
    pub(crate) fn silent(public_key: PublicKey) -> Self {
        Self {
            public_key,
            listen_addrs: Vec::new(),
            record_seq: None,
            record: None,
            protocols: Vec::new(),
            observed_addr: None,
            protocol_version: String::new(),
            agent: String::new(),
        }
    }
}

/// What a peer has said of itself at one time. What it has left out is unchanged (IPUSH-02).
#[derive(Clone, Debug)]
pub(crate) struct Said {
    addrs: Option<Vec<Multiaddr>>,
    /// The record that they come from, after its number.
    record: Option<(u64, Bytes)>,
    protocols: Option<Vec<ProtocolId>>,
    pub(crate) observed_addr: Option<Multiaddr>,
    protocol_version: Option<String>,
    agent: Option<String>,
}

impl Said {
    /// Decodes a push of the peer that has proven to have `public_key`.
    pub(crate) fn decode(push: Bytes, public_key: &PublicKey) -> Result<Self, String> {
        Self::read(&merge(push)?, public_key)
    }

    fn read(message: &proto::Identify, public_key: &PublicKey) -> Result<Self, String> {
        if let Some(claimed) = &message.public_key {
            let claimed = PublicKey::from_protobuf(claimed).map_err(|error| error.to_string())?;
            if claimed != *public_key {
                let (claimed, actual) = (claimed.peer_id(), public_key.peer_id());
                return Err(format!("the answer is of {claimed}, the connection is to {actual}"));
            }
        }
        let addr = |bytes: &Vec<u8>| decode_multiaddr(bytes).ok();
        let useful = |addr: &Multiaddr| {
            addr.iter().last().is_some_and(|last| !matches!(last, Protocol::P2p(_)))
        };
        let bare = |addr: Multiaddr| addr.split_peer().ok().map(|(addr, _)| addr).filter(useful);
        let (addrs, record) = match signed_record(message, &public_key.peer_id()) {
            Some((record, bytes)) => (Some(record.addrs().to_vec()), Some((record.seq(), bytes))),
            None if message.listen_addrs.is_empty() => (None, None),
            // What does not parse is left out one by one (IDENT-06).
            None => {
                let claimed = message.listen_addrs.iter().filter_map(addr).filter_map(bare);
                (Some(claimed.take(ADDRS_MAX).collect()), None)
            }
        };
        let valid = message.protocols.iter().filter_map(|name| ProtocolId::new(name).ok());
        let protocols = valid.take(PROTOCOLS_MAX).collect();
        Ok(Self {
            addrs,
            record,
            protocols: (!message.protocols.is_empty()).then_some(protocols),
            observed_addr: message.observed_addr.as_ref().and_then(addr).and_then(bare),
            protocol_version: message.protocol_version.clone(),
            agent: message.agent_version.clone(),
        })
    }

    /// Brings what is known up to date. Addresses of a record that is older than the known one
    /// are refused (ENV-06).
    pub(crate) fn merge_into(self, info: &mut PeerInfo) {
        if let Some(addrs) = self.addrs {
            let (seq, record) = self.record.unzip();
            if seq.is_none_or(|seq| info.record_seq.is_none_or(|known| known <= seq)) {
                (info.listen_addrs, info.record_seq, info.record) = (addrs, seq, record);
            }
        }
        info.protocols = self.protocols.unwrap_or(std::mem::take(&mut info.protocols));
        info.observed_addr = self.observed_addr.or(info.observed_addr.take());
        if let Some(version) = self.protocol_version {
            info.protocol_version = version;
        }
        if let Some(agent) = self.agent {
            info.agent = agent;
        }
    }

    /// The same without what holds for the one connection that it came by.
    pub(crate) fn of_any_connection(self) -> Self {
        Self { observed_addr: None, ..self }
    }
}

impl Identification {
    /// Brings what is known of the peer that has `public_key` up to date.
    pub(crate) fn update(&mut self, said: Said, public_key: &PublicKey) -> Arc<PeerInfo> {
        let mut info = match self {
            Self::Known(info) => PeerInfo::clone(info),
            Self::Pending | Self::Failed(_) | Self::Lost(_) => PeerInfo::silent(public_key.clone()),
        };
        said.merge_into(&mut info);
        let info = Arc::new(info);
        *self = Self::Known(Arc::clone(&info));
        info
    }
}

/// The peer's signed record of itself; one that is not valid counts for nothing (IDENT-12).
fn signed_record(message: &proto::Identify, peer: &PeerId) -> Option<(PeerRecord, Bytes)> {
    let bytes = message.signed_peer_record.as_deref()?;
    match PeerRecord::open(bytes) {
        Ok(record) if record.peer() == peer => Some((record, Bytes::copy_from_slice(bytes))),
        Ok(record) => {
            tracing::debug!(%peer, of = %record.peer(), "a peer record of another peer");
            None
        }
        Err(error) => {
            tracing::debug!(%peer, %error, "a peer record that is not valid");
            None
        }
    }
}

/// Waits for what a connection's peer says of itself.
pub(crate) async fn wait(conn: &Conn) -> Result<Arc<PeerInfo>, OpenError> {
    wait_until(conn, |_| true).await
}

/// Waits until what a connection's peer says of itself satisfies `enough`, or does not come.
pub(crate) async fn wait_until(
    conn: &Conn,
    enough: impl Fn(&PeerInfo) -> bool,
) -> Result<Arc<PeerInfo>, OpenError> {
    let done = |state: &Identification| match state {
        Identification::Pending => false,
        Identification::Known(info) => enough(info),
        Identification::Failed(_) | Identification::Lost(_) => true,
    };
    let known = tokio::select! {
        biased;
        known = conn.identification.wait(|state| done(state).then(|| state.clone())) => Some(known),
        () = conn.ended.cancelled() => None,
    };
    let lost = |cause: ConnectionError| OpenError::Stream {
        peer: conn.peer(),
        protocol: PROTOCOL,
        stage: Stage::Protocol,
        cause: cause.into(),
    };
    match known {
        Some(Identification::Known(info)) => Ok(info),
        Some(Identification::Failed(error)) => Err(OpenError::clone(&error)),
        Some(Identification::Lost(cause)) => Err(lost(cause)),
        Some(Identification::Pending) | None => Err(lost(ConnectionError::Dropped)),
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.into())
    }
}

#[cfg(test)]
mod tests {
    use p2p_core::Keypair;

    use super::*;

    /// Ten messages of entries without length were 2.6 MiB for a moment.
    #[test]
    fn an_answer_of_empty_entries_was_made_thirty_times_as_large() {
        for entry in [[2 << 3 | 2, 0], [3 << 3 | 2, 0]] {
            let part = entry.repeat(MESSAGE_LEN_MAX / 2);
            let mut answer = bytes::BytesMut::new();
            for _ in 0..MESSAGES_MAX {
                varint::encode(u64::try_from(part.len()).unwrap(), &mut answer);
                answer.extend_from_slice(&part);
            }
            let merged = merge(answer.freeze()).unwrap();
            let lists = (merged.listen_addrs, merged.protocols);
            assert_eq!(lists.0.len() + lists.1.len(), ENTRIES_MAX);
            assert!(lists.0.capacity() + lists.1.capacity() <= 2 * ENTRIES_MAX);
        }
    }

    /// They came out as empty, and as ending in `/p2p`.
    #[test]
    fn ident_06_addresses_that_are_nothing_but_peer_ids_are_left_out() {
        let key = Keypair::from_ed25519_seed(&[7; 32]).public();
        let whole: Multiaddr = "/ip4/1.2.3.4/tcp/1".parse().unwrap();
        let id = format!("/p2p/{}", key.peer_id());
        let named = [id.clone(), format!("{id}{id}"), format!("{whole}{id}{id}")];
        let named = named.map(|text| text.parse::<Multiaddr>().unwrap());
        let message = proto::Identify {
            public_key: Some(key.to_protobuf()),
            listen_addrs: named.iter().chain([&whole]).map(Multiaddr::to_vec).collect(),
            observed_addr: Some(named[0].to_vec()),
            ..proto::Identify::default()
        };
        let info = understand(&message, &key).unwrap();
        assert_eq!(info.listen_addrs, [whole]);
        assert_eq!(info.observed_addr, None);
    }
}
