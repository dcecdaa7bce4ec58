//! The call-out: devices that are judged by somebody over HTTP. What is pure of it; who makes the calls is in the shell.
//!
//! ```text
//! attempt ─▶ Callout::consult ─▶ known? the opinion
//!                             ├▶ broken, or too many calls? refused, nobody is asked
//!                             └▶ Call ─▶ (the shell asks over HTTP) ─▶ Callout::settle ─▶ what was said
//! ```
//!
//! **Nobody gets in when nobody answers**: no answer, a wrong one, an open breaker and too many calls are refusals of their own, all 0x88.
//!
//! What was answered may be kept for a while ([`Settings::cache_ms`]), under an HMAC-SHA256 of everything that was asked about, under a
//! key of this process: the memory holds neither passwords nor what they could be guessed by. An opinion from the cache is
//! held against the registry like one that has just come.

mod breaker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use turnpike_core::clock::Now;
use turnpike_core::gate::Attempt;
use zeroize::Zeroizing;

pub use breaker::{Breaker, BreakerTerms, Permit};

use crate::refusal::Refusal;
use crate::table::{Fades, Table};
use crate::verifier::Opinion;

/// Bounds and terms of the call-out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Calls at once; more wait.
    pub calls_max: usize,
    /// Questions that wait for others to be answered; more are refused.
    pub waiting_max: usize,
    /// When the breaker opens.
    pub breaker: BreakerTerms,
    /// For how long an answer is kept that doesn't say, milliseconds; 0 for not at all.
    pub cache_ms: u64,
    /// For how long an answer is kept at most, whatever it says, milliseconds.
    pub cache_most_ms: u64,
    /// Answers that are kept, about 100 bytes each.
    pub cache_entries_max: usize,
    /// Whether it is asked about attempts of no known format that name no product.
    pub strangers: bool,
}

/// What it is asked about one attempt. `Debug` shows none of it.
pub struct Call {
    /// The product that names the call-out, if the attempt names one.
    pub product: Option<Box<str>>,
    /// Client id as sent.
    pub client_id: Box<str>,
    /// User name, if sent.
    pub user_name: Option<Box<str>>,
    /// Password, if sent.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// The peer's address.
    pub peer: std::net::SocketAddr,
    /// Whether the bytes came through TLS.
    pub tls: bool,
    /// DER of the client certificate that TLS has verified, if there is one.
    pub certificate: Option<Box<[u8]>>,
    key: Key,
    permit: Permit,
    _slot: Slot,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("product", &self.product).finish_non_exhaustive()
    }
}

/// What became of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// What was said.
        opinion: Opinion,
        /// For how long that may be kept, milliseconds, if it was said.
        cache_ms: Option<u64>,
    },
    /// There was an answer, and it was none of ours: another status, no JSON, too long.
    Garbage,
    /// There was no connection, or it broke.
    Failed,
    /// There was no answer in time.
    TimedOut,
    /// It wasn't made: too many others were under way for too long.
    NotMade,
}

/// What was said to a call, or why nothing was.
pub type Said = Result<Opinion, Refusal>;

/// What is to be done about an attempt.
#[derive(Debug)]
pub(crate) enum Consulted {
    /// It was answered before.
    Known(Opinion),
    /// It has to be asked.
    Ask(Call),
    /// It can't be asked.
    Refused(Refusal),
}

/// Counts since start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Calls answered `granted`, `refused`, `not_mine`.
    pub answered: [u64; 3],
    /// Calls with a wrong answer.
    pub garbage: u64,
    /// Calls without a connection.
    pub failed: u64,
    /// Calls without an answer in time.
    pub timed_out: u64,
    /// Attempts that were refused since too many calls were under way.
    pub busy: u64,
    /// Attempts that were refused since the breaker was open.
    pub broken: u64,
    /// Attempts that were answered from what was kept.
    pub cached: u64,
    /// How often the breaker has opened.
    pub opened: u64,
    /// Gauge: calls under way, and those that wait.
    pub under_way: u64,
    /// Gauge: answers that are kept.
    pub kept: u64,
    /// Gauge: whether the breaker isn't closed.
    pub open: bool,
}

type Key = [u8; 32];

/// An opinion that is kept.
#[derive(Debug)]
struct Known {
    opinion: Opinion,
    until_ms: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self { opinion: Opinion::Refused, until_ms: 0 }
    }
}

impl Fades for Known {
    fn weight(&self, now: u64) -> u64 {
        self.until_ms.saturating_sub(now)
    }
}

/// One of so many places for calls, given back when it is dropped.
#[derive(Debug)]
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Default)]
struct Counters {
    answered: [AtomicU64; 3],
    garbage: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    busy: AtomicU64,
    broken: AtomicU64,
    cached: AtomicU64,
    opened: AtomicU64,
}

/// The call-out: shared by all shards and by who makes the calls.
#[derive(Debug)]
pub struct Callout {
    settings: Settings,
    /// Of the cache's keys.
    secret: Zeroizing<[u8; 32]>,
    known: Table<Key, Known>,
    breaker: Mutex<Breaker>,
    under_way: Arc<AtomicUsize>,
    counters: Counters,
}

impl Callout {
    /// Nobody was asked yet. `random` is fresh, and known to nobody.
    #[must_use]
    pub fn new(settings: Settings, random: [u8; 32]) -> Self {
        Self {
            secret: Zeroizing::new(random),
            known: Table::new(settings.cache_entries_max),
            breaker: Mutex::new(Breaker::new(settings.breaker)),
            under_way: Arc::default(),
            counters: Counters::default(),
            settings,
        }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is to be done about an attempt; `product` names the call-out and is named by the attempt.
    pub(crate) fn consult(&self, attempt: &Attempt<'_>, product: Option<&str>, now: Now) -> Consulted {
        let key = self.key(attempt, product);
        let known = self.known.peek(key, |known| (known.until_ms > now.mono_ms).then(|| known.opinion.clone()));
        if let Some(opinion) = known.flatten() {
            self.counters.cached.fetch_add(1, Relaxed);
            return Consulted::Known(opinion);
        }
        let Some(slot) = self.slot() else {
            self.counters.busy.fetch_add(1, Relaxed);
            return Consulted::Refused(Refusal::CalloutBusy);
        };
        let Some(permit) = self.breaker.lock().permit(now.mono_ms) else {
            self.counters.broken.fetch_add(1, Relaxed);
            return Consulted::Refused(Refusal::CalloutBroken);
        };
        Consulted::Ask(Call {
            product: product.map(Box::from),
            client_id: attempt.client_id.into(),
            user_name: attempt.user_name.map(Box::from),
            password: attempt.password.map(|password| Zeroizing::new(password.to_vec())),
            peer: attempt.peer,
            tls: attempt.tls,
            certificate: attempt.certificate.map(Box::from),
            key,
            permit,
            _slot: slot,
        })
    }

    /// Takes note of what became of a call, and says what that means for the attempt. Also says in which way the breaker has changed.
    pub fn settle(&self, call: &Call, outcome: Outcome, now: Now) -> (Said, Option<Change>) {
        let counters = &self.counters;
        let (count, refusal) = match outcome {
            Outcome::Answered { opinion, cache_ms } => {
                let index = match &opinion {
                    Opinion::Granted(_) => 0,
                    Opinion::Refused => 1,
                    Opinion::NotMine => 2,
                };
                if let Some(count) = counters.answered.get(index) {
                    count.fetch_add(1, Relaxed);
                }
                self.keep(call.key, &opinion, cache_ms, now);
                let closed = self.breaker.lock().succeeded(call.permit).then_some(Change::Closed);
                return (Ok(opinion), closed);
            }
            // It says nothing of who would have been called; a probe that wasn't made is followed by another.
            Outcome::NotMade => {
                counters.busy.fetch_add(1, Relaxed);
                return (Err(Refusal::CalloutBusy), None);
            }
            Outcome::Garbage => (&counters.garbage, Refusal::CalloutGarbage),
            Outcome::Failed => (&counters.failed, Refusal::CalloutFailed),
            Outcome::TimedOut => (&counters.timed_out, Refusal::CalloutTimedOut),
        };
        count.fetch_add(1, Relaxed);
        let opened = self.breaker.lock().failed(call.permit, now.mono_ms).map(|for_ms| Change::Opened { for_ms });
        counters.opened.fetch_add(u64::from(opened.is_some()), Relaxed);
        (Err(refusal), opened)
    }

    /// Forgets what was kept and is over. A table in use does that by itself; call it now and then (a minute).
    pub fn sweep(&self, now: Now) {
        self.known.sweep(now.mono_ms);
    }

    /// Counts since start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counters = &self.counters;
        Counts {
            answered: std::array::from_fn(|n| counters.answered.get(n).map_or(0, |count| count.load(Relaxed))),
            garbage: counters.garbage.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            timed_out: counters.timed_out.load(Relaxed),
            busy: counters.busy.load(Relaxed),
            broken: counters.broken.load(Relaxed),
            cached: counters.cached.load(Relaxed),
            opened: counters.opened.load(Relaxed),
            under_way: self.under_way.load(Relaxed) as u64,
            kept: self.known.len() as u64,
            open: !self.breaker.lock().is_closed(),
        }
    }

    fn slot(&self) -> Option<Slot> {
        let most = self.settings.calls_max.saturating_add(self.settings.waiting_max);
        let slot = Slot(Arc::clone(&self.under_way));
        (self.under_way.fetch_add(1, Relaxed) < most).then_some(slot)
    }

    fn keep(&self, key: Key, opinion: &Opinion, cache_ms: Option<u64>, now: Now) {
        let kept_ms = cache_ms.unwrap_or(self.settings.cache_ms).min(self.settings.cache_most_ms);
        let good_ms = match opinion {
            Opinion::Granted(grant) => grant.until_ms.map(|until_ms| until_ms.saturating_sub(now.unix_ms)),
            Opinion::Refused | Opinion::NotMine => None,
        };
        let for_ms = kept_ms.min(good_ms.unwrap_or(u64::MAX));
        if for_ms > 0 {
            self.known.with(key, now.mono_ms, |known| {
                *known = Known { opinion: opinion.clone(), until_ms: now.mono_ms.saturating_add(for_ms) };
            });
        }
    }

    /// What equal questions have in common: all that is asked but the peer's port.
    fn key(&self, attempt: &Attempt<'_>, product: Option<&str>) -> Key {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&*self.secret).expect("HMAC takes keys of any length");
        let mut field = |bytes: Option<&[u8]>| {
            // Lengths, so that no two questions read the same; and a word for what is absent.
            let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
            hmac.update(&length.to_be_bytes());
            hmac.update(bytes.unwrap_or_default());
        };
        field(product.map(str::as_bytes));
        field(Some(attempt.client_id.as_bytes()));
        field(attempt.user_name.map(str::as_bytes));
        field(attempt.password);
        field(attempt.certificate);
        field(Some(&[u8::from(attempt.tls)]));
        field(Some(attempt.peer.ip().to_string().as_bytes()));
        hmac.finalize().into_bytes().into()
    }
}

/// How the breaker has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nobody is called for so many milliseconds.
    Opened {
        /// Milliseconds.
        for_ms: u64,
    },
    /// Calls are made again.
    Closed,
}

#[cfg(test)]
mod tests;
