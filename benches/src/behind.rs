//! Threads that are load: they step back behind the broker.
//!
//! A nice thread still has its turn to the end once it has begun, which is milliseconds for whoever wakes up meanwhile. Linux interrupts a thread of the
//! class `SCHED_IDLE` at once for any that isn't. That is what the `unsafe` below pays for: no crate that we have sets a thread's class. One call with a pointer
//! to a local variable, which the kernel reads before the call returns.

use std::io;
use std::thread::{self, JoinHandle};

use anyhow::Context;

/// How load steps back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Back {
    /// By so much, 0 to 19.
    Nice(i32),
    /// It has what nobody else wants.
    Idle,
}

impl std::fmt::Display for Back {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nice(nice) => write!(f, "nice {nice}"),
            Self::Idle => f.write_str("SCHED_IDLE"),
        }
    }
}

impl Back {
    /// For this thread: Linux keeps both for each by itself.
    fn take(self) -> anyhow::Result<()> {
        match self {
            Self::Nice(0) => Ok(()),
            Self::Nice(nice) => rustix::process::setpriority_process(None, nice).context("a thread can't step back"),
            Self::Idle => idle().context("a thread can't step back"),
        }
    }
}

#[allow(unsafe_code)]
fn idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live value of the call's type, which is read alone; 0 is this thread.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts a thread that steps back.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    back: Back,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
    let work = move || {
        back.take()?;
        work()
    };
    Ok(thread::Builder::new().name(name.to_owned()).stack_size(512 << 10).spawn(work)?)
}

/// What each of them has come to.
pub(crate) fn join<T>(threads: Vec<JoinHandle<anyhow::Result<T>>>) -> anyhow::Result<Vec<T>> {
    // All of them: the first that fails mustn't leave others behind.
    let done: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
    done.into_iter().map(|done| done.map_err(|_| anyhow::anyhow!("a thread has panicked"))?).collect()
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn a_thread_steps_back_alone() {
        let before = getpriority_process(None).expect("a priority");
        let stepped = spawn("load", Back::Nice(19), || Ok(getpriority_process(None)?)).expect("a thread");
        assert_eq!(join(vec![stepped]).expect("done"), [19]);
        assert_eq!(getpriority_process(None).expect("a priority"), before);
        let told = spawn("load", Back::Idle, || Ok(std::fs::read_to_string("/proc/thread-self/stat")?));
        let told = join(vec![told.expect("a thread")]).expect("done");
        // Field 41 of proc_pid_stat(5); the second, in parentheses, is the name.
        let policy = told[0].rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(38));
        assert_eq!(policy, Some("5"), "SCHED_IDLE");
        let failed = spawn("load", Back::Nice(0), || -> anyhow::Result<()> { anyhow::bail!("no") });
        assert!(join(vec![failed.expect("a thread")]).is_err());
    }
}
