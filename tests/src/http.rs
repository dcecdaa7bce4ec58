//! HTTP for tests: one request, one connection, the whole answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::time::SOON;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head, lower-cased names.
    pub head: String,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// It isn't.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Where requests go, and as whom.
#[derive(Clone, Debug)]
pub struct Http {
    /// The broker's HTTP address.
    pub address: SocketAddr,
    /// Bearer token, if any.
    pub token: Option<String>,
}

impl Http {
    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", "")
    }

    /// PUT with a JSON body.
    #[track_caller]
    pub fn put(&self, path: &str, json: &str) -> Answer {
        self.request("PUT", path, "application/json", json)
    }

    /// POST.
    #[track_caller]
    pub fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        self.request("POST", path, content_type, body)
    }

    /// PATCH with a JSON body.
    #[track_caller]
    pub fn patch(&self, path: &str, json: &str) -> Answer {
        self.request("PATCH", path, "application/json", json)
    }

    /// DELETE.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, "", "")
    }

    /// Any request.
    ///
    /// # Panics
    /// There is no answer, or none that is HTTP.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
        let content_type =
            if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") };
        self.request_with(method, path, &content_type, body)
    }

    /// Any request with more headers: lines, each with its end.
    ///
    /// # Panics
    /// There is no answer, or none that is HTTP.
    #[track_caller]
    pub fn request_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        parse(&self.send(method, path, headers, body))
    }

    /// The same, and what came back if it was no answer: nothing, where the broker has died.
    ///
    /// # Panics
    /// Nobody listens.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect_timeout(&self.address, SOON).expect("the HTTP API listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        if let Some(token) = &self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        head += headers;
        head += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).expect("sent");
        // An answer may come before the body is read, and close the connection; it counts all the same.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }
}

#[track_caller]
fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { panic!("no HTTP answer: {text:?}") };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let head = head.to_ascii_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Answer { status, head, body }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        out += &rest[..size];
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}
