//! A client of the broker's HTTP API that keeps its connection: as much of HTTP/1.1 as that API speaks.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;

/// An answer that doesn't come in that time is none.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// A connection.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    token: &'static str,
}

impl Http {
    /// `token`: an administrator's.
    pub(crate) fn connect(address: SocketAddr, token: &'static str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("the HTTP API doesn't listen")?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), token })
    }

    /// A request that must succeed; the body of the answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        self.ask_with(method, path, "", body)
    }

    /// The same with header lines more, each with its end.
    pub(crate) fn ask_with(&mut self, method: &str, path: &str, headers: &str, body: &str) -> anyhow::Result<String> {
        let (token, length) = (self.token, body.len());
        // In one segment, whatever the length of its parts.
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (status, answer) = answer(&mut self.stream).with_context(|| format!("{method} {path}"))?;
        anyhow::ensure!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        Ok(answer)
    }
}

/// Status and body of the next answer.
fn answer(from: &mut impl BufRead) -> anyhow::Result<(u16, String)> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.context("no answer")?;
    let mut length = 0;
    loop {
        line.clear();
        anyhow::ensure!(from.read_line(&mut line)? > 0, "the answer ends too early");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("the answer's length")?;
        }
        anyhow::ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "the answer's length isn't known");
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).context("the answer ends too early")?;
    Ok((status, String::from_utf8(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_follow_each_other() {
        let text = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nx: y\r\n\r\n{}HTTP/1.1 204 No Content\r\n\r\n";
        let mut from = text.as_bytes();
        assert_eq!(answer(&mut from).expect("one"), (201, "{}".to_owned()));
        assert_eq!(answer(&mut from).expect("another"), (204, String::new()));
        assert!(answer(&mut from).is_err(), "the connection was closed");
    }

    #[test]
    fn what_is_no_answer() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(answer(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
