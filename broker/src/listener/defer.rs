//! TCP_DEFER_ACCEPT: the kernel gives us a connection when its first bytes have come, or after a second.
//!
//! Every client of ours speaks first (CONNECT, a TLS hello, an HTTP request, a PROXY header), so a connection is read in the turn that accepts
//! it, and one that is at home on another shard moves there before this shard's poll knows it. A client that says nothing, or goes away
//! again, costs no wake-up. Measured on the 2-core machine, 500 clients at a time, CPU for a connection from accept to CONNACK:
//! 23 to 26 µs without and 16 to 22 with it on one shard, 36 and 21 on two.
//!
//! That is what the `unsafe` below pays for: no crate that we have sets this option. One call with a pointer to a local
//! variable and its size, which the kernel reads before the call returns.

use std::io;

use socket2::Socket;

/// When the kernel stops waiting for the first bytes. Longer than a client's round trip over a mobile network.
static SILENCE_S: libc::c_int = 1;

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn defer_accept(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let length = libc::socklen_t::try_from(size_of_val(&SILENCE_S)).expect("four bytes");
    // SAFETY: the descriptor is open as long as `socket` is borrowed; pointer and length are those of a static of type int, as
    // tcp(7) asks for, and are only read during the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const SILENCE_S).cast(),
            length,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn defer_accept(_: &Socket) -> io::Result<()> {
    Ok(())
}
