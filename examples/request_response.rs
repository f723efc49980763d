//! A service that adds numbers: one request, one answer, both in JSON.
//!
//! ```text
//! cargo run -p p2p-examples --bin request-response               listens, and prints its address
//! cargo run -p p2p-examples --bin request-response -- ADDR 1 2   asks for the sum
//! ```
#![expect(clippy::print_stdout, reason = "a program")]

use std::{env, error::Error, time::Duration};

use p2p::request::{Request, RequestError, Responding, json};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Numbers(Vec<i64>);

#[derive(Serialize, Deserialize)]
enum Answer {
    Sum(i64),
    TooLarge,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.split_first() {
        None => serve().await,
        Some((addr, numbers)) => ask(addr, numbers).await,
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
    let limits = Responding::default().request_max(16 * 1024).timeout(Duration::from_secs(2));
    host.respond("/sum/1.0.0", limits, |request: Request| async move {
        let Numbers(numbers) = json::decode(&request.body)?;
        let sum = numbers.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number));
        json::encode(&sum.map_or(Answer::TooLarge, Answer::Sum)) as Result<_, RequestError>
    })?;
    println!("{}", host.addrs().join("\n"));
    tokio::signal::ctrl_c().await?;
    host.close().await;
    Ok(())
}

async fn ask(addr: &str, numbers: &[String]) -> Result<(), Box<dyn Error>> {
    let numbers = numbers.iter().map(|text| text.parse()).collect::<Result<Vec<i64>, _>>()?;
    let host = p2p::builder().spawn().await?;
    let question = json::encode(&Numbers(numbers))?;
    let answer = host.request(addr, "/sum/1.0.0", question).answer_max(1024).await?;
    match json::decode(&answer)? {
        Answer::Sum(sum) => println!("{sum}"),
        Answer::TooLarge => println!("the sum is too large"),
    }
    host.close().await;
    Ok(())
}
