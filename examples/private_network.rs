//! A network of its own: who does not have the key cannot connect.
//!
//! ```text
//! cargo run -p p2p-examples --bin private-network -- new KEYFILE        makes a key, as kubo's swarm.key
//! cargo run -p p2p-examples --bin private-network -- listen KEYFILE     prints its address
//! cargo run -p p2p-examples --bin private-network -- ping KEYFILE ADDR
//! ```
#![expect(clippy::print_stdout, reason = "a program")]

use std::{env, error::Error, fs, io::Write};

use p2p::pnet::PreSharedKey;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["new", file] => new(file),
        ["listen", file] => listen(load(file)?).await,
        ["ping", file, addr] => ping(load(file)?, addr).await,
        _ => Err("usage: private-network new KEYFILE | listen KEYFILE | ping KEYFILE ADDR".into()),
    }
}

fn new(file: &str) -> Result<(), Box<dyn Error>> {
    let key = PreSharedKey::generate()?;
    fs::File::create_new(file)?.write_all(key.to_key_file().as_bytes())?;
    println!("{}", key.fingerprint());
    Ok(())
}

fn load(file: &str) -> Result<PreSharedKey, Box<dyn Error>> {
    Ok(PreSharedKey::from_key_file(&fs::read(file)?)?)
}

async fn listen(key: PreSharedKey) -> Result<(), Box<dyn Error>> {
    let host = p2p::private_builder(key).listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
    println!("{}", host.addrs().join("\n"));
    tokio::signal::ctrl_c().await?;
    host.close().await;
    Ok(())
}

async fn ping(key: PreSharedKey, addr: &str) -> Result<(), Box<dyn Error>> {
    let host = p2p::private_builder(key).spawn().await?;
    let round_trip = host.ping(addr).await.map_err(|error| error.to_string())?;
    println!("{round_trip:?}");
    host.close().await;
    Ok(())
}
