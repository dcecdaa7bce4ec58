//! Workers, as processes or as threads, and the lines between them and the parent.
//!
//! Processes are the rule: one may have only so many descriptors. Threads serve the tests.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use mio::Waker;

use crate::load::Load;
use crate::protocol::{Assignment, Command, Event};
use crate::spec::Spec;

/// The workers of a run.
pub struct Workers {
    links: Vec<Link>,
    events: Receiver<(usize, Event)>,
}

enum Link {
    Process { child: Child, stdin: ChildStdin },
    Thread { commands: Sender<Command>, waker: Arc<Waker> },
}

impl Workers {
    /// Starts a process for each worker: this program again.
    ///
    /// # Errors
    /// A process can't be started.
    pub fn processes(spec: &Spec) -> io::Result<Self> {
        let (tell, events) = mpsc::channel();
        let mut workers = Self { links: Vec::new(), events };
        for worker in 0..spec.processes {
            // Not by its path, under which there may be another program meanwhile.
            let mut child =
                Process::new("/proc/self/exe").arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to a worker"))?;
            let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe from a worker"))?;
            send_line(&mut stdin, &Assignment { spec: spec.clone(), worker })?;
            workers.links.push(Link::Process { child, stdin });
            let tell = tell.clone();
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let Ok(line) = line else { break };
                    let event = serde_json::from_str(&line).unwrap_or_else(|error| Event::Failed(error.to_string()));
                    let is_last = matches!(event, Event::Outcome(_) | Event::Failed(_));
                    if tell.send((worker, event)).is_err() || is_last {
                        return;
                    }
                }
                let _ = tell.send((worker, Event::Failed("a worker ended too early".to_owned())));
            });
        }
        Ok(workers)
    }

    /// Starts a thread for each worker.
    ///
    /// # Errors
    /// What epoll or TLS says.
    pub fn threads(spec: &Spec) -> io::Result<Self> {
        let (tell, events) = mpsc::channel();
        let mut workers = Self { links: Vec::new(), events };
        for worker in 0..spec.processes {
            let (commands, obey) = mpsc::channel();
            let tell = tell.clone();
            let emit = Box::new(move |event| drop(tell.send((worker, event))));
            let load = Load::new(spec.clone(), worker, obey, emit)?;
            let waker = load.waker();
            thread::spawn(move || load.run());
            workers.links.push(Link::Thread { commands, waker });
        }
        Ok(workers)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// Tells all of them.
    ///
    /// # Errors
    /// One isn't there any more.
    pub fn send(&mut self, command: Command) -> io::Result<()> {
        for link in &mut self.links {
            match link {
                Link::Process { stdin, .. } => send_line(stdin, &command)?,
                Link::Thread { commands, waker } => {
                    commands.send(command).map_err(|_| io::Error::other("a worker has ended"))?;
                    waker.wake()?;
                }
            }
        }
        Ok(())
    }

    /// The next event, and whose it is; none in that time.
    ///
    /// # Errors
    /// A worker can't go on, or all have gone.
    pub fn next(&mut self, timeout: Duration) -> io::Result<Option<(usize, Event)>> {
        match self.events.recv_timeout(timeout) {
            Ok((_, Event::Failed(why))) => Err(io::Error::other(why)),
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the workers have gone")),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for link in &mut self.links {
            if let Link::Process { child, .. } = link {
                // After its last word there is nothing left to do for it.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn send_line<T: serde::Serialize>(to: &mut impl Write, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// What a worker process does: reads its assignment and commands from standard input, and tells events on standard output.
///
/// # Errors
/// The assignment can't be read.
pub fn work() -> io::Result<()> {
    crate::cpu::raise_descriptor_limit();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let Assignment { spec, worker } = serde_json::from_str(&line)?;
    let (commands, obey) = mpsc::channel();
    let emit = Box::new(|event| drop(send_line(&mut io::stdout().lock(), &event)));
    let load = match Load::new(spec, worker, obey, emit) {
        Ok(load) => load,
        Err(error) => return send_line(&mut io::stdout().lock(), &Event::Failed(error.to_string())),
    };
    let waker = load.waker();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(command) if commands.send(command).is_ok() => _ = waker.wake(),
                _ => break,
            }
        }
        // The parent has gone: so does the sender, which the loop sees.
        drop(commands);
        let _ = waker.wake();
    });
    load.run();
    Ok(())
}
