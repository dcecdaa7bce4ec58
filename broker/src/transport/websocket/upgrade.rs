//! The opening handshake: an HTTP request that becomes a WebSocket, or an answer that says why not (RFC 6455, 4.2).
//! Implements [MQTT-6.0.0-4].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Bytes of a request, headers included.
const REQUEST_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols that are MQTT, the one preferred first [MQTT-6.0.0-3]. The second is what MQTT 3.1 clients name.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Upgrade {
    /// It isn't there whole.
    Incomplete,
    /// Send `response`; the frames begin `len` bytes on.
    Accepted { len: usize, response: Vec<u8> },
    /// Send `response` and close.
    Refused { response: Vec<u8> },
}

/// Reads a request for one of `paths` from the front of `bytes`.
pub(crate) fn upgrade(bytes: &[u8], paths: &[String]) -> Upgrade {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= REQUEST_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() <= REQUEST_BYTES_MAX => return Upgrade::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return refuse("431 Request Header Fields Too Large", "", "request too large");
        }
        Err(_) => return refuse("400 Bad Request", "", "malformed request"),
    };
    match judge(&request, paths) {
        Ok((key, subprotocol)) => {
            let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
            let response = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
            );
            Upgrade::Accepted { len, response: response.into_bytes() }
        }
        Err(refused) => refused,
    }
}

/// The client's key and the subprotocol, if all is as it must be.
fn judge<'a>(request: &httparse::Request<'_, 'a>, paths: &[String]) -> Result<(&'a [u8], &'static str), Upgrade> {
    let bad = |why| refuse("400 Bad Request", "", why);
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(bad("a WebSocket begins with GET and HTTP/1.1"));
    }
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    if !paths.iter().any(|known| known == path) {
        return Err(refuse("404 Not Found", "", "no such path"));
    }
    if header(request, "host").is_none() {
        return Err(bad("no Host"));
    }
    if !has_token(request, "upgrade", "websocket") || !has_token(request, "connection", "upgrade") {
        return Err(refuse(
            "426 Upgrade Required",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
            "this is a WebSocket for MQTT",
        ));
    }
    if header(request, "sec-websocket-version") != Some(b"13") {
        return Err(refuse(
            "426 Upgrade Required",
            "Sec-WebSocket-Version: 13\r\n",
            "WebSocket version 13 is spoken here",
        ));
    }
    let key = header(request, "sec-websocket-key").unwrap_or_default();
    if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    let subprotocol = SUBPROTOCOLS.into_iter().find(|name| has_token(request, "sec-websocket-protocol", name));
    Ok((key, subprotocol.ok_or_else(|| bad("Sec-WebSocket-Protocol must name mqtt"))?))
}

fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a [u8]> {
    request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
}

/// Whether any of the headers of that name lists the token.
fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    named
        .flat_map(|header| header.value.split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn refuse(status: &str, headers: &str, why: &str) -> Upgrade {
    let length = why.len() + 1;
    let response = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{why}\n"
    );
    Upgrade::Refused { response: response.into_bytes() }
}
