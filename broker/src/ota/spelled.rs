//! A header's name as devices look for it. `GAgent` compares bytes, and who writes our heads knows capitals at the beginning of words alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turnpike_ota::wire::gizwits::MD5_HEADER;

/// The name as it is written for us, and what is before and behind it.
const WRITTEN: &[u8] = b"\r\nFirmware-Md5: ";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Where the bytes are that are written next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// No head is expected.
    Body,
    /// Something was read since, so a head may begin.
    Answer,
    /// So many bytes before the name.
    Before(usize),
    /// So many bytes of the name have gone.
    Name(usize),
}

/// A stream that writes [`MD5_HEADER`] in the head of an answer as that is spelled.
pub(super) struct Spelled<S> {
    stream: S,
    at: At,
}

impl<S> Spelled<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, at: At::Answer }
    }
}

/// Where the name is in what begins with an answer's head.
fn place(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(b"HTTP/1.") {
        return None;
    }
    let find = |wanted: &[u8]| bytes.windows(wanted.len()).position(|window| window == wanted);
    let end = find(HEAD_END)?;
    find(WRITTEN).filter(|at| *at < end).map(|at| at + 2)
}

impl<S: AsyncRead + Unpin> AsyncRead for Spelled<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if self.at == At::Body && into.filled().len() > before {
            self.at = At::Answer;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Spelled<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.at == At::Answer {
            self.at = place(bytes).map_or(At::Body, At::Before);
        }
        let piece = match self.at {
            At::Body | At::Answer => bytes,
            At::Before(left) => bytes.get(..left).unwrap_or(bytes),
            At::Name(done) => {
                let rest = MD5_HEADER.as_bytes().get(done..).unwrap_or_default();
                rest.get(..bytes.len()).unwrap_or(rest)
            }
        };
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, piece))?;
        self.at = match self.at {
            At::Before(left) if left == written => At::Name(0),
            At::Before(left) => At::Before(left - written),
            At::Name(done) if done + written == MD5_HEADER.len() => At::Body,
            At::Name(done) => At::Name(done + written),
            at @ (At::Body | At::Answer) => at,
        };
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Writes so many bytes at a time, and keeps them; has a byte to read whenever it is asked.
    struct Narrow {
        at_once: usize,
        kept: Vec<u8>,
    }

    impl AsyncRead for Narrow {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            into.put_slice(b"G");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.at_once);
            self.kept.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn written(at_once: usize, parts: &[&[u8]], reads_between: bool) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut stream = Spelled::new(Narrow { at_once, kept: Vec::new() });
        runtime.block_on(async {
            for part in parts {
                stream.write_all(part).await.expect("written");
                if reads_between {
                    let _ = stream.read_u8().await.expect("read");
                }
            }
        });
        String::from_utf8(stream.stream.kept).expect("text")
    }

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nFirmware-Md5: 25f9\r\nContent-Length: 5\r\n\r\nbytes";

    #[test]
    fn the_name_is_spelled_in_heads_and_nowhere_else() {
        let right = "HTTP/1.1 200 OK\r\nFirmware-MD5: 25f9\r\nContent-Length: 5\r\n\r\nbytes";
        assert_eq!(written(1000, &[HEAD, HEAD], true), format!("{right}{right}"));
        // A file that has such bytes, behind its head.
        let wrong = String::from_utf8_lossy(HEAD);
        assert_eq!(written(1000, &[HEAD, HEAD], false), format!("{right}{wrong}"));
        assert_eq!(written(1000, &[b"\r\nFirmware-Md5: x\r\n\r\n"], true), "\r\nFirmware-Md5: x\r\n\r\n");
        let behind = b"HTTP/1.1 200 OK\r\n\r\n\r\nFirmware-Md5: x";
        assert_eq!(written(1000, &[behind], true).as_bytes(), behind);
    }

    proptest! {
        #[test]
        fn however_little_is_taken_at_once(at_once in 1_usize..40) {
            let right = String::from_utf8_lossy(HEAD).replace("Md5", "MD5");
            prop_assert_eq!(written(at_once, &[HEAD], false), right);
        }
    }
}
