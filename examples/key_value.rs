//! A small store of keys and values that others use over the network.
//!
//! ```text
//! cargo run -p p2p-examples --bin key-value                       listens, and prints its address
//! cargo run -p p2p-examples --bin key-value -- ADDR set KEY TEXT
//! cargo run -p p2p-examples --bin key-value -- ADDR get KEY
//! ```
#![expect(clippy::print_stdout, reason = "a program")]

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use p2p::request::{Request, RequestError, Responding, json};
use serde::{Deserialize, Serialize};

const PROTOCOL: &str = "/key-value/1.0.0";
/// A full store takes no new keys: what strangers can fill has a bound.
const KEYS_MAX: usize = 10_000;

#[derive(Serialize, Deserialize)]
enum Ask {
    Get(String),
    Set(String, String),
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => serve().await,
        [addr, "get", key] => ask(addr, Ask::Get((*key).into())).await,
        [addr, "set", key, text] => ask(addr, Ask::Set((*key).into(), (*text).into())).await,
        _ => Err("usage: key-value [ADDR get KEY | ADDR set KEY TEXT]".into()),
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
    let store = Arc::new(Mutex::new(BTreeMap::new()));
    let limits = Responding::default().request_max(4096);
    host.respond(PROTOCOL, limits, move |request: Request| {
        let store = Arc::clone(&store);
        async move {
            let ask = json::decode(&request.body)?;
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            json::encode(&answer(&mut store, ask)) as Result<_, RequestError>
        }
    })?;
    println!("{}", host.addrs().join("\n"));
    tokio::signal::ctrl_c().await?;
    host.close().await;
    Ok(())
}

fn answer(store: &mut BTreeMap<String, String>, ask: Ask) -> Option<String> {
    match ask {
        Ask::Get(key) => store.get(&key).cloned(),
        Ask::Set(key, _) if store.len() >= KEYS_MAX && !store.contains_key(&key) => None,
        Ask::Set(key, text) => {
            store.insert(key, text.clone());
            Some(text)
        }
    }
}

async fn ask(addr: &str, ask: Ask) -> Result<(), Box<dyn Error>> {
    let host = p2p::builder().spawn().await?;
    let answer = host.request(addr, PROTOCOL, json::encode(&ask)?).await?;
    let text: Option<String> = json::decode(&answer)?;
    println!("{}", text.ok_or("there is no such key, or no room for it")?);
    host.close().await;
    Ok(())
}
