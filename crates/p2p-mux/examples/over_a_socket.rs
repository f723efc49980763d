//! Yamux over a Unix socket pair: `cargo run -p p2p-mux --example over_a_socket`.
#![expect(clippy::print_stdout, reason = "an example shows something")]

use p2p_core::{ErrorCode, Role};
use p2p_mux::{Mux, Yamux, connect};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

async fn serve(mut mux: Mux) {
    while let Ok(mut stream) = mux.accept().await {
        tokio::spawn(async move {
            let mut name = String::new();
            stream.read_to_string(&mut name).await?;
            stream.write_all(format!("hello, {name}").as_bytes()).await?;
            stream.shutdown().await
        });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let (server, driver) = connect(theirs, &Yamux::default(), Role::Responder);
    tokio::spawn(driver);
    tokio::spawn(serve(server));

    let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
    let served = tokio::spawn(driver);
    for name in ["Ada", "Grace"] {
        let mut stream = client.open().await?;
        stream.write_all(name.as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        assert_eq!(answer, format!("hello, {name}"));
    }
    client.close(ErrorCode::NONE, "done");
    println!("{}", served.await?);
    Ok(())
}
