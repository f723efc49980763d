//! Offers one file, and fetches it.
//!
//! ```text
//! cargo run -p p2p-examples --bin file-transfer -- offer FILE      prints the address to fetch from
//! cargo run -p p2p-examples --bin file-transfer -- fetch ADDR NEW  writes the file NEW
//! ```
//!
//! The protocol: 8 bytes, the file's length as a big-endian number, and then the file. A transfer
//! that breaks off is an error, never a shorter file.
#![expect(clippy::print_stdout, reason = "a program")]

use std::{env, error::Error, path::PathBuf};

use p2p::Stream;
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncWriteExt, copy},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["offer", file] => offer(PathBuf::from(file)).await,
        ["fetch", addr, new] => fetch(addr, PathBuf::from(new)).await,
        _ => Err("usage: file-transfer offer FILE | fetch ADDR NEW".into()),
    }
}

async fn offer(path: PathBuf) -> Result<(), Box<dyn Error>> {
    fs::metadata(&path).await?;
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
    host.handle("/file/1.0.0", move |mut stream: Stream| {
        let path = path.clone();
        async move {
            let file = File::open(path).await?;
            let len = file.metadata().await?.len();
            stream.write_u64(len).await?;
            copy(&mut file.take(len), &mut stream).await?;
            stream.shutdown().await
        }
    })?;
    println!("{}", host.addrs().join("\n"));
    tokio::signal::ctrl_c().await?;
    host.close().await;
    Ok(())
}

async fn fetch(addr: &str, new: PathBuf) -> Result<(), Box<dyn Error>> {
    let host = p2p::builder().spawn().await?;
    let mut stream = host.open(addr, "/file/1.0.0").await?;
    let len = stream.read_u64().await?;
    let unfinished = new.with_extension("part");
    let mut file = File::create_new(&unfinished).await?;
    let got = copy(&mut stream.take(len), &mut file).await?;
    file.sync_all().await?;
    if got < len {
        return Err(format!("the file has {len} bytes, and only {got} came").into());
    }
    fs::rename(unfinished, new).await?;
    println!("{got} bytes");
    host.close().await;
    Ok(())
}
