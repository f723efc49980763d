//! The two Redis commands of the test interface.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::Failure;

/// The list that listeners push their addresses onto (CONN-50).
const LIST: &str = "listenerAddr";
/// How long Redis may take to answer what does not wait.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest line or text that is read, in bytes.
const LEN_MAX: u64 = 4096;

/// Appends an address to the list.
pub(crate) async fn push(redis: &str, addr: &str) -> Result<(), Failure> {
    timeout(ANSWER_MAX, ask(redis, &["RPUSH", LIST, addr])).await??;
    Ok(())
}

/// Takes the first address of the list, waiting for one for at most `limit`.
pub(crate) async fn pop(redis: &str, limit: Duration) -> Result<String, Failure> {
    let seconds = limit.as_secs().max(1).to_string();
    let answer = timeout(limit + ANSWER_MAX, ask(redis, &["BLPOP", LIST, &seconds])).await??;
    answer.last().cloned().ok_or_else(|| "no listener has told its address".into())
}

/// Sends one command on a connection of its own; gives the texts of the answer.
async fn ask(redis: &str, command: &[&str]) -> Result<Vec<String>, Failure> {
    let mut socket = TcpStream::connect(redis).await?;
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    socket.write_all(request.as_bytes()).await?;
    answer(&mut BufReader::new(socket)).await
}

async fn answer(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Vec<String>, Failure> {
    let (mut texts, mut left) = (Vec::new(), 1u64);
    while left > 0 {
        left -= 1;
        let line = line(reader).await?;
        let (kind, rest) = line.split_at_checked(1).ok_or("Redis sent an empty line")?;
        match kind {
            "+" | ":" => texts.push(rest.to_owned()),
            "$" if rest != "-1" => texts.push(text(reader, rest.parse()?).await?),
            // Nothing has come in time.
            "$" => {}
            "*" if rest == "-1" => {}
            "*" => left = rest.parse::<u64>()?.min(LEN_MAX),
            _ => return Err(format!("Redis says {line}").into()),
        }
    }
    Ok(texts)
}

async fn line(reader: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LEN_MAX).read_line(&mut line).await?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn text(reader: &mut (impl AsyncBufReadExt + Unpin), len: u64) -> Result<String, Failure> {
    if len > LEN_MAX {
        return Err(format!("Redis sends {len} bytes").into());
    }
    let mut bytes = vec![0; usize::try_from(len)? + 2];
    reader.read_exact(&mut bytes).await?;
    bytes.truncate(usize::try_from(len)?);
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::answer;

    async fn read(mut wire: &[u8]) -> Result<Vec<String>, String> {
        answer(&mut wire).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn conn_50_the_answers_of_the_two_commands_are_understood() {
        assert_eq!(read(b":1\r\n").await.unwrap(), ["1"]);
        let popped = b"*2\r\n$12\r\nlistenerAddr\r\n$3\r\n/a\n\r\n";
        assert_eq!(read(popped).await.unwrap(), ["listenerAddr", "/a\n"]);
        assert!(read(b"*-1\r\n").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn errors_and_cut_answers_are_failures() {
        assert!(read(b"-WRONGTYPE of list\r\n").await.unwrap_err().contains("WRONGTYPE"));
        for cut in [&b""[..], b":1", b"\r\n", b"*1\r\n$3\r\nab", b"$99999999\r\n"] {
            read(cut).await.unwrap_err();
        }
    }
}
