//! Threads that are load: they step back behind the broker.

use std::thread::{self, JoinHandle};

use anyhow::Context;

/// Starts a thread that steps back by `nice`. Linux keeps that for each thread by itself.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    nice: i32,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
    let work = move || {
        if nice > 0 {
            rustix::process::setpriority_process(None, nice).context("a thread can't step back")?;
        }
        work()
    };
    Ok(thread::Builder::new().name(name.to_owned()).stack_size(512 << 10).spawn(work)?)
}

/// What each of them has come to.
pub(super) fn join<T>(threads: Vec<JoinHandle<anyhow::Result<T>>>) -> anyhow::Result<Vec<T>> {
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
        let stepped = spawn("load", 19, || Ok(getpriority_process(None)?)).expect("a thread");
        assert_eq!(join(vec![stepped]).expect("done"), [19]);
        assert_eq!(getpriority_process(None).expect("a priority"), before);
        let failed: anyhow::Result<Vec<()>> = join(vec![spawn("load", 0, || anyhow::bail!("no")).expect("a thread")]);
        assert!(failed.is_err());
    }
}
