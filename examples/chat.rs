//! Two terminals that talk to each other, a line at a time.
//!
//! ```text
//! cargo run -p p2p-examples --bin chat          listens, and prints its address
//! cargo run -p p2p-examples --bin chat -- ADDR  calls the other terminal
//! ```
//!
//! The end of the input (Ctrl-D) ends this side's half of the talk; both have to.
#![expect(clippy::print_stdout, reason = "a program")]

use std::{env, error::Error};

use p2p::Stream;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = p2p::builder().listen("/ip4/0.0.0.0/tcp/0").spawn().await?;
    let stream = match env::args().nth(1) {
        Some(addr) => host.open(&addr, "/chat/1.0.0").await?,
        None => {
            let mut calls = host.accept("/chat/1.0.0")?;
            println!("{}", host.addrs().join("\n"));
            calls.next().await.ok_or("the host was closed")?
        }
    };
    println!("talking to {}", stream.peer());
    talk(stream).await?;
    host.close().await;
    Ok(())
}

async fn talk(stream: Stream) -> Result<(), Box<dyn Error>> {
    let (mut send, receive) = stream.into_halves();
    let speak = async {
        let mut typed = BufReader::new(stdin()).lines();
        while let Some(line) = typed.next_line().await? {
            send.write_all(format!("{line}\n").as_bytes()).await?;
        }
        send.shutdown().await
    };
    let hear = async {
        let mut heard = BufReader::new(receive).lines();
        while let Some(line) = heard.next_line().await? {
            println!("> {line}");
        }
        Ok(())
    };
    tokio::try_join!(speak, hear)?;
    Ok(())
}
