//! What the commands that dial a peer have in common.

use std::{sync::Arc, time::Duration};

use p2p::{ConnectionInfo, Host, Multiaddr, ProtocolId};
use serde_json::{Value, json};

use crate::failure::Failure;

/// What peers see of this program.
pub(crate) const AGENT: &str = concat!("p2p-cli/", env!("CARGO_PKG_VERSION"));

/// How long the host waits for streams at its end; the commands have ended theirs.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(1);

/// How much longer the whole dial may take than its one address, so that the error is the
/// address's, which names the stage.
const DIAL_SLACK: Duration = Duration::from_secs(2);

/// A host that only dials, and waits for at most `limit` at each step.
pub(crate) async fn dialer(limit: Duration) -> Result<Host, Failure> {
    let builder = p2p::builder()
        .agent(AGENT)
        .address_timeout(limit)
        .dial_timeout(limit + DIAL_SLACK)
        .open_timeout(limit)
        .drain_timeout(DRAIN_MAX);
    Ok(builder.spawn().await?)
}

/// Connects, and says so.
pub(crate) async fn connect(
    host: &Host,
    addr: &Multiaddr,
    out: &crate::output::Output,
) -> Result<Arc<ConnectionInfo>, Failure> {
    let info = host.connect(addr).await.map_err(Failure::from)?;
    let (fields, text) = describe(&info);
    out.event("connected", &fields, format_args!("connected to {text}"));
    Ok(info)
}

/// A connection as an event's fields, and as text.
pub(crate) fn describe(info: &ConnectionInfo) -> ([(&'static str, Value); 4], String) {
    let (security, muxer) = (name(info.security()), name(info.muxer()));
    let text = format!("{} at {} ({security}, {muxer})", info.peer(), info.remote());
    let fields = [
        ("peer", json!(info.peer().to_string())),
        ("remote", json!(info.remote().to_string())),
        ("security", json!(security)),
        ("muxer", json!(muxer)),
    ];
    (fields, text)
}

/// The name of an upgrade; a link that is born multiplexed has none.
pub(crate) fn name(protocol: Option<&ProtocolId>) -> &str {
    protocol.map_or("built in", ProtocolId::as_str)
}
