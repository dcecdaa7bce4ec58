//! Registrations that came by CONNECT: the gate's questions, answered where changes are made.

use std::sync::Arc;

use tokio::sync::mpsc::{self, error::TrySendError};
use turnpike_authz::names::ProductKey;
use turnpike_authz::presale::connect::{Asked, Told};
use turnpike_authz::presale::{RegisterError, aliyun};
use turnpike_core::gate::{Answer, Parting, Question};

use super::register::{Guest, Refused};
use super::{Api, audit};
use crate::asker::{Asker, Reply};
use crate::provision::random;

/// Questions that wait. More are answered at once: not now.
const WAITING_MAX: usize = 1024;

/// Takes the gate's questions about registrations, and hands others on.
pub struct Connects {
    sender: mpsc::Sender<(Asked, Reply)>,
    others: Option<Arc<dyn Asker>>,
}

/// Where they come out: for [`super::serve`].
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<(Asked, Reply)>);

impl Connects {
    /// Both ends. `others`: who answers what else the gate asks.
    #[must_use]
    pub fn new(others: Option<Arc<dyn Asker>>) -> (Self, Questions) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { sender, others }, Questions(receiver))
    }
}

impl Asker for Connects {
    fn ask(&self, question: Question, reply: Reply) {
        match question.downcast::<Asked>() {
            Ok(asked) => {
                if let Err(TrySendError::Full((_, reply)) | TrySendError::Closed((_, reply))) =
                    self.sender.try_send((asked, reply))
                {
                    reply.send(Answer::new(Told::Unavailable));
                }
            }
            Err(question) => match &self.others {
                Some(others) => others.ask(question, reply),
                None => reply.send(Answer::new(())),
            },
        }
    }
}

impl Api {
    /// Answers until nobody asks any more. One at a time: each waits for its commit, as all changes do. Where devices don't register, the
    /// questions end here, and [`Connects`] says so to whoever asks.
    pub(super) async fn answer_connects(self, mut questions: Questions) {
        if !self.registrar.settings().enabled {
            return;
        }
        while let Some((asked, reply)) = questions.0.recv().await {
            let serve = self.register_by_connect(&asked);
            let told = audit::Desk::called_by_stranger(asked.peer, serve).await;
            reply.send(Answer::new(told));
        }
    }

    async fn register_by_connect(&self, asked: &Asked) -> Told {
        let Some(claim) = asked.claim() else { return Told::Refused(RegisterError::Malformed) };
        // Failures are the gate's to count: it hears of this one as of any log-in that fails.
        let guest = Guest { source: asked.peer, tls: asked.tls, is_guarded: true };
        let made = self.register_by_vendor(&guest, claim.product, |_, secret| claim.prove(secret)).await;
        let made = match made {
            Ok((made, _)) => made,
            Err(Refused::Rule(error)) => return Told::Refused(error),
            Err(Refused::Unavailable) => return Told::Unavailable,
        };
        let Ok(product) = ProductKey::parse(claim.product) else { return Told::Refused(RegisterError::Malformed) };
        let (topic, payload) = aliyun::push(&product, &made, &hex::encode(random::<8>()));
        Told::Registered(Parting { topic: topic.into(), payload: payload.into_bytes() })
    }
}
