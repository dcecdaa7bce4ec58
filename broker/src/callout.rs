//! Makes the calls of the call-out ([`turnpike_authz::callout`]): HTTP on a thread of its own.
//!
//! ```text
//! shard ─▶ Asker ─▶ channel ─▶ task: wait for a place ─▶ POST ─▶ Callout::settle ─▶ Reply ─▶ the shard's inbox
//! ```
//!
//! How many questions there are is bounded before they get here, since each has a place of `calls_max` + `waiting_max`. A question waits
//! for `timeout` at most to be asked, and as long to be answered; then it is answered without.

mod client;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use axum::http::{HeaderName, Uri};
use tokio::sync::{Semaphore, mpsc};
use turnpike_authz::audit::{Action, Event, Outcome as Ended};
use turnpike_authz::callout::{Call, Callout, Change, Outcome, Settings};
use turnpike_authz::gate::Asked;
use turnpike_core::gate::{Answer, Question};

pub use client::SetupError;
use client::{CallError, Client};

use crate::asker::{Asker, Reply};
use crate::audit::{AuditSink, now_ms};

/// How the call-out is made.
#[derive(Clone, PartialEq, Debug)]
pub struct CalloutSettings {
    /// Where to: `https`, or `http` on loopback.
    pub url: Uri,
    /// PEM file of the authorities that the other end's certificate is checked against; `https` needs one.
    pub ca_file: Option<PathBuf>,
    /// A header, and the file that has its value.
    pub header: Option<(HeaderName, PathBuf)>,
    /// For a call, and before it for a place to make it.
    pub timeout: Duration,
    /// Its bounds.
    pub bounds: Settings,
}

/// A running call-out.
#[derive(Debug)]
pub struct Caller {
    questions: mpsc::UnboundedSender<(Call, Reply)>,
}

impl Caller {
    /// Reads the files and starts the thread, which ends with the last handle to this. When calls cease and begin again goes into the audit.
    ///
    /// # Errors
    /// What is wrong with the settings; or the thread can't be started.
    pub fn start(settings: &CalloutSettings, callout: Arc<Callout>, audit: AuditSink) -> Result<Self, SetupError> {
        let client = Client::new(settings)?;
        let (questions, asked) = mpsc::unbounded_channel();
        let desk = Arc::new(Desk {
            client,
            calls: Semaphore::new(settings.bounds.calls_max),
            timeout: settings.timeout,
            callout,
            audit,
            is_open: AtomicBool::new(false),
        });
        std::thread::Builder::new().name("callout".to_owned()).spawn(move || run(&desk, asked))?;
        Ok(Self { questions })
    }

    /// Reads the files that the settings name, and starts nothing.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn check(settings: &CalloutSettings) -> Result<(), SetupError> {
        Client::new(settings).map(drop)
    }
}

impl Asker for Caller {
    fn ask(&self, question: Question, reply: Reply) {
        match question.into_inner::<Asked>() {
            // If the thread has ended, so does the broker.
            Some(Asked(call)) => drop(self.questions.send((call, reply))),
            None => reply.send(Answer::new(())),
        }
    }
}

fn run(desk: &Arc<Desk>, mut asked: mpsc::UnboundedReceiver<(Call, Reply)>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "nobody can be called out to"),
    };
    runtime.block_on(async {
        while let Some((call, reply)) = asked.recv().await {
            let desk = Arc::clone(desk);
            tokio::spawn(async move { desk.answer(&call, reply).await });
        }
    });
}

/// What every call needs.
struct Desk {
    client: Client,
    calls: Semaphore,
    timeout: Duration,
    callout: Arc<Callout>,
    audit: AuditSink,
    /// Whether the audit has it that the breaker is open.
    is_open: AtomicBool,
}

impl Desk {
    async fn answer(&self, call: &Call, reply: Reply) {
        let outcome = self.make(call).await;
        let (said, change) = self.callout.settle(call, outcome, reply.now());
        match change {
            None => {}
            Some(Change::Opened { for_ms }) => {
                let cause = said.as_ref().err().map(|refusal| refusal.label());
                tracing::warn!(cause, for_ms, "the call-out fails; nobody is called, and its devices are refused");
                self.note(true, cause.unwrap_or("callout_failed"));
            }
            Some(Change::Closed) => {
                tracing::info!("the call-out answers again");
                self.note(false, "");
            }
        }
        reply.send(Answer::new(said));
    }

    /// Has the audit know of a change. A probe that fails opens it for longer, which is none.
    fn note(&self, is_open: bool, cause: &'static str) {
        if self.is_open.swap(is_open, SeqCst) == is_open {
            return;
        }
        let (action, outcome) = match is_open {
            true => (Action::CalloutOpen, Ended::Failed(cause)),
            false => (Action::CalloutClose, Ended::Ok),
        };
        self.audit.record(&Event { outcome, ..Event::own(now_ms(), action, &[]) });
    }

    async fn make(&self, call: &Call) -> Outcome {
        let Ok(Ok(_place)) = tokio::time::timeout(self.timeout, self.calls.acquire()).await else {
            return Outcome::NotMade;
        };
        let body = wire::question(call);
        match tokio::time::timeout(self.timeout, self.client.post(body)).await {
            Err(_) => Outcome::TimedOut,
            Ok(Err(CallError::Failed(error))) => {
                tracing::debug!(error, "a call failed");
                Outcome::Failed
            }
            Ok(Err(CallError::Garbage(what))) => self.garbage(&what),
            Ok(Ok(bytes)) => match wire::answer(&bytes, call.product.as_deref()) {
                Ok((opinion, cache_ms)) => Outcome::Answered { opinion, cache_ms },
                Err(what) => self.garbage(&what),
            },
        }
    }

    fn garbage(&self, what: &str) -> Outcome {
        tracing::debug!(what, "the call-out was answered what can't be understood");
        Outcome::Garbage
    }
}
