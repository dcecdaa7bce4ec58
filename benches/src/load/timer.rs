//! A timer of nanoseconds: epoll's own timeout is of milliseconds, which is far too coarse for an open loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

pub(super) struct Timer {
    fd: OwnedFd,
    set_ns: u64,
}

impl Timer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, set_ns: u64::MAX })
    }

    /// Wakes the loop then. One call to the kernel for each new time.
    pub(super) fn set(&mut self, at_ns: u64) {
        if at_ns == self.set_ns {
            return;
        }
        self.set_ns = at_ns;
        let at = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        let _ = timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &once);
    }

    /// It has gone off. Edges are told once, so what it counted needn't be read.
    pub(super) fn clear(&mut self) {
        self.set_ns = u64::MAX;
    }
}
