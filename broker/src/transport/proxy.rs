//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): who the client behind a proxy is.
//!
//! The header is believed: only a listener that none but the proxy can reach may take it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{FromStr, Split};

/// Longest header of version 1, its line end included (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// Fixed part of a header of version 2.
const V2_FIXED_BYTES: usize = 16;
/// What may follow it: addresses and attributes.
const V2_REST_BYTES_MAX: usize = 4096 - V2_FIXED_BYTES;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_SIGNATURE: &[u8; 6] = b"PROXY ";

/// A whole header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// Bytes that it took.
    pub(crate) len: usize,
    /// The client; none if the proxy speaks for itself (health checks) or doesn't know.
    pub(crate) source: Option<SocketAddr>,
}

/// Not a PROXY header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("no PROXY header")]
    Signature,
    #[error("a PROXY header of version 1 that is malformed or too long")]
    V1,
    #[error("a PROXY header of version 2 that is malformed or too long")]
    V2,
}

/// Reads a header from the front of `bytes`; `None` if it isn't there whole yet.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    if starts_like(bytes, V2_SIGNATURE) {
        decode_v2(bytes)
    } else if starts_like(bytes, V1_SIGNATURE) {
        decode_v1(bytes)
    } else {
        Err(ProxyError::Signature)
    }
}

/// As far as either goes.
fn starts_like(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn decode_v1(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let window = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= V1_BYTES_MAX { Err(ProxyError::V1) } else { Ok(None) };
    };
    let line = window.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(ProxyError::V1)?;
    let mut words = line.split(' ');
    words.next();
    let source = match words.next() {
        Some("TCP4") => Some(v1_addresses::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(v1_addresses::<Ipv6Addr>(words)?),
        // The rest of the line is to be ignored (section 2.1).
        Some("UNKNOWN") => None,
        _ => return Err(ProxyError::V1),
    };
    Ok(Some(Header { len: end + 2, source }))
}

/// Source and destination address, source and destination port, and no more.
fn v1_addresses<A: FromStr + Into<IpAddr>>(mut words: Split<'_, char>) -> Result<SocketAddr, ProxyError> {
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok()).ok_or(ProxyError::V1);
    let (source, _destination) = (address()?, address()?);
    let mut port = || words.next().and_then(port_number).ok_or(ProxyError::V1);
    let (port, _) = (port()?, port()?);
    match words.next() {
        None => Ok(SocketAddr::new(source.into(), port)),
        Some(_) => Err(ProxyError::V1),
    }
}

/// Digits alone: `u16::from_str` takes a sign too.
fn port_number(word: &str) -> Option<u16> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

fn decode_v2(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else { return Ok(None) };
    let [.., version_command, family, high, low] = *fixed;
    let rest_len = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || rest_len > V2_REST_BYTES_MAX {
        return Err(ProxyError::V2);
    }
    let Some(rest) = rest.get(..rest_len) else { return Ok(None) };
    let source = match (version_command & 0xf, family) {
        // LOCAL: the proxy's own connection; addresses are to be ignored.
        (0, _) => None,
        (1, 0x11) => Some(v2_addresses::<4, 12>(rest)?),
        (1, 0x21) => Some(v2_addresses::<16, 36>(rest)?),
        // Unspecified, and stream sockets of the UNIX family, which have no address for us.
        (1, 0x00 | 0x31) => None,
        _ => return Err(ProxyError::V2),
    };
    Ok(Some(Header { len: V2_FIXED_BYTES + rest_len, source }))
}

/// Source and destination of `IP` bytes each, then the ports: `ALL` bytes. What follows are attributes.
fn v2_addresses<const IP: usize, const ALL: usize>(rest: &[u8]) -> Result<SocketAddr, ProxyError>
where
    [u8; IP]: Into<IpAddr>,
{
    let all = rest.first_chunk::<ALL>().ok_or(ProxyError::V2)?;
    let ip = *all.first_chunk::<IP>().ok_or(ProxyError::V2)?;
    let port = all.get(2 * IP..).and_then(<[u8]>::first_chunk::<2>).ok_or(ProxyError::V2)?;
    Ok(SocketAddr::new(ip.into(), u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(rest.len()).expect("small").to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const REST_V4: &[u8] = &[10, 1, 2, 3, 10, 0, 0, 1, 0x30, 0x39, 0x07, 0x5b];

    #[test]
    fn headers_that_name_the_client() {
        let mut rest_v6 = [0; 36];
        rest_v6[15] = 1;
        rest_v6[33] = 80;
        let mut with_attributes = REST_V4.to_vec();
        with_attributes.extend([0x04, 0, 1, 0]);
        let cases: &[(&[u8], &str)] = &[
            (b"PROXY TCP4 10.1.2.3 10.0.0.1 12345 1883\r\n", "10.1.2.3:12345"),
            (b"PROXY TCP6 2001:db8::7 ::1 65535 1\r\n", "[2001:db8::7]:65535"),
            (&v2(1, 0x11, REST_V4), "10.1.2.3:12345"),
            (&v2(1, 0x11, &with_attributes), "10.1.2.3:12345"),
            (&v2(1, 0x21, &rest_v6), "[::1]:80"),
        ];
        for (bytes, address) in cases {
            let header = decode(bytes).expect("valid").expect("whole");
            assert_eq!(header.source, Some(address.parse().expect("an address")));
            assert_eq!(header.len, bytes.len());
        }
    }

    #[test]
    fn headers_that_name_nobody() {
        for bytes in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 whatever\r\n".to_vec(),
            v2(0, 0x11, REST_V4),
            v2(1, 0, &[]),
        ] {
            let header = decode(&bytes).expect("valid").expect("whole");
            assert_eq!(header, Header { len: bytes.len(), source: None });
        }
    }

    #[test]
    fn a_header_comes_in_pieces_and_what_follows_is_left() {
        for whole in [b"PROXY TCP4 10.1.2.3 10.0.0.1 12345 1883\r\n".to_vec(), v2(1, 0x11, REST_V4)] {
            for cut in 0..whole.len() {
                assert_eq!(decode(&whole[..cut]), Ok(None), "at {cut}");
            }
            let mut more = whole.clone();
            more.extend(b"\x10\x0c\0\x04MQTT");
            assert_eq!(decode(&more).expect("valid").expect("whole").len, whole.len());
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let mut long = b"PROXY UNKNOWN ".to_vec();
        long.resize(V1_BYTES_MAX, b'x');
        let mut huge = v2(1, 0x11, &[]);
        huge[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
        let mut old = v2(1, 0x11, REST_V4);
        old[12] = 0x11;
        let cases: &[&[u8]] = &[
            b"\x10\x0c\0\x04MQTT",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 12345\r\n",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 12345 1883 \r\n",
            b"PROXY TCP4  10.1.2.3 10.0.0.1 12345 1883\r\n",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 +1234 1883\r\n",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 65536 1883\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
            b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
            &long,
            &huge,
            &old,
            &v2(2, 0x11, REST_V4),
            &v2(1, 0x12, REST_V4),
            &v2(1, 0x11, &REST_V4[..11]),
        ];
        for bytes in cases {
            assert!(decode(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
