//! Echoes what it is sent.
//!
//! ```text
//! cargo run -p p2p-examples --bin echo               listens, and prints its address
//! cargo run -p p2p-examples --bin echo -- ADDR TEXT  sends TEXT there, and prints what comes back
//! ```
#![expect(clippy::print_stdout, reason = "a program")]

use std::{env, error::Error};

use p2p::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [] => listen().await,
        [addr, text] => send(addr, text).await,
        _ => Err("usage: echo [ADDR TEXT]".into()),
    }
}

async fn listen() -> Result<(), Box<dyn Error>> {
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
    host.handle("/echo/1.0.0", |stream: Stream| async move {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.shutdown().await
    })?;
    println!("{}", host.addrs().join("\n"));
    tokio::signal::ctrl_c().await?;
    host.close().await;
    Ok(())
}

async fn send(addr: &str, text: &str) -> Result<(), Box<dyn Error>> {
    let host = p2p::builder().spawn().await?;
    let mut stream = host.open(addr, "/echo/1.0.0").await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    host.close().await;
    Ok(())
}
