//! A node whose figures Prometheus can read.
//!
//! ```text
//! cargo run -p p2p-examples --bin metrics   prints its address, and where the figures are
//! ```
//!
//! `docs/metrics.md` explains them, and `docs/grafana-dashboard.json` shows them.
#![expect(clippy::print_stdout, reason = "a program")]

use std::{error::Error, io, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use p2p::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream},
    time::timeout,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let recorder = PrometheusBuilder::new().install_recorder()?; // before the host
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
    host.handle("/echo/1.0.0", |stream: Stream| async move {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.shutdown().await
    })?;
    let web = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", host.addrs().join("\n"));
    println!("http://{}/metrics", web.local_addr()?);
    loop {
        let (visitor, _) = web.accept().await?;
        tokio::spawn(timeout(Duration::from_secs(5), answer(visitor, recorder.render())));
    }
}

/// Answers any request with the figures. A program that has a web server uses that.
async fn answer(mut visitor: TcpStream, figures: String) -> io::Result<()> {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") && asked.len() < 8192 {
        asked.push(visitor.read_u8().await?);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
        figures.len()
    );
    visitor.write_all(head.as_bytes()).await?;
    visitor.write_all(figures.as_bytes()).await?;
    visitor.shutdown().await
}
