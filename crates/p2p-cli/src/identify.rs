use p2p::{Host, identify::PeerInfo};
use serde_json::{Value, json};

use crate::{
    args::PeerArgs,
    failure::{Failure, within},
    output::{Output, printable},
    peer,
    stop::Stop,
};

pub(crate) async fn run(args: &PeerArgs, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let host = peer::dialer(args.timeout, None).await?;
    let result = tokio::select! {
        biased;
        code = stop.requested() => Ok(code),
        result = identify(&host, args, out) => result.map(|()| 0),
    };
    host.close().await;
    result
}

async fn identify(host: &Host, args: &PeerArgs, out: &Output) -> Result<(), Failure> {
    let peer = host.connect(&args.addr).await.map_err(Failure::from)?.peer();
    let answer = async { host.identify(&args.addr).await.map_err(Failure::from) };
    let info = within(args.timeout, "identify", answer).await?;
    let observed = info.observed_addr.as_ref().map(ToString::to_string);
    let mut text = format!(
        "peer      {peer}\nagent     {}\nfamily    {}\nsees you  {}",
        printable(&info.agent),
        printable(&info.protocol_version),
        observed.as_deref().unwrap_or("(not said)"),
    );
    for addr in &info.listen_addrs {
        text += &format!("\nlistens   {addr}");
    }
    for protocol in &info.protocols {
        text += &format!("\nprotocol  {}", printable(protocol.as_str()));
    }
    let mut fields = vec![("peer", json!(peer.to_string()))];
    fields.extend(fields_of(&info));
    out.event("identified", &fields, text);
    Ok(())
}

/// What a peer said of itself, as an event's fields.
pub(crate) fn fields_of(info: &PeerInfo) -> [(&'static str, Value); 5] {
    let addrs: Vec<String> = info.listen_addrs.iter().map(ToString::to_string).collect();
    let protocols: Vec<&str> = info.protocols.iter().map(|name| name.as_str()).collect();
    [
        ("agent", json!(info.agent)),
        ("protocol_version", json!(info.protocol_version)),
        ("protocols", json!(protocols)),
        ("listen_addrs", json!(addrs)),
        ("observed_addr", json!(info.observed_addr.as_ref().map(ToString::to_string))),
    ]
}
