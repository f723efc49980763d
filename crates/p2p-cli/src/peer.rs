//! What the commands that dial a peer have in common.

use std::{path::Path, sync::Arc, time::Duration};

use p2p::{Builder, ConnectionInfo, Host, Multiaddr, ProtocolId};
use serde_json::{Value, json};

use crate::{failure::Failure, output::Output};

/// What peers see of this program.
pub(crate) const AGENT: &str = concat!("p2p-cli/", env!("CARGO_PKG_VERSION"));

/// How long the host waits for streams at its end; the commands have ended theirs.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(1);

/// How much longer the whole dial may take than its one address, so that the error is the
/// address's, which names the stage.
const DIAL_SLACK: Duration = Duration::from_secs(2);

/// A host that only dials, and waits for at most `limit` at each step.
pub(crate) async fn dialer(limit: Duration, key: Option<&Path>) -> Result<Host, Failure> {
    let builder =
        builder(key)?.address_timeout(limit).dial_timeout(limit + DIAL_SLACK).open_timeout(limit);
    Ok(builder.spawn().await?)
}

/// A host that is yet to listen.
pub(crate) async fn listener(key: Option<&Path>) -> Result<Host, Failure> {
    Ok(builder(key)?.spawn().await?)
}

fn builder(key: Option<&Path>) -> Result<Builder, Failure> {
    let builder = p2p::builder().agent(AGENT).drain_timeout(DRAIN_MAX);
    Ok(match key {
        Some(key) => builder.identity(crate::key::load(key)?),
        None => builder,
    })
}

/// Listens on all of `addrs`, and says where the host is reached: by `command` and the address.
pub(crate) async fn listen(
    host: &Host,
    addrs: &[Multiaddr],
    command: &str,
    out: &Output,
) -> Result<(), Failure> {
    for addr in addrs {
        host.listen(addr.to_string()).await?;
    }
    for addr in host.addrs() {
        let text = format_args!("listening: {command} {addr}");
        out.event("listening", &[("addr", json!(addr))], text);
    }
    Ok(())
}

/// Connects, and says so.
pub(crate) async fn connect(
    host: &Host,
    addr: &Multiaddr,
    out: &Output,
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
