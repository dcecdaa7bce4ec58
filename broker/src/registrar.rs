//! Registration of devices ([`turnpike_authz::presale`]), as the shell keeps it: packages and lists in memory, limits, counts.
//!
//! **Invariant:** who changes the book, or registers by it, holds the control plane's lock, and [`Registrar::is_in_doubt`] is no. A commit that
//! takes too long is answered with an error and may reach the disk all the same; until that is known, nothing else is decided by the book,
//! or a key could register two devices.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use ipnet::IpNet;
use parking_lot::{RwLock, RwLockReadGuard};
use turnpike_authz::presale::{Book, Change, RegisterError};
use turnpike_authz::quota::{self, Caller, Quotas, RetryAfter, Windows};
use turnpike_authz::registry::RecordError;
use turnpike_core::clock::Now;

/// Addresses whose requests are counted.
const CALLERS_MAX: usize = 1 << 16;

/// How devices register over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationSettings {
    /// Whether they do at all.
    pub enabled: bool,
    /// An address for that and nothing else; none means that of the API.
    pub address: Option<SocketAddr>,
    /// How often one address, or one IPv6 /64, may ask.
    pub requests: Windows,
    /// Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub proxies: Vec<IpNet>,
    /// Where gizwits devices are told to connect to: host and port of MQTT.
    pub mqtt: Option<(String, u16)>,
}

impl Default for RegistrationSettings {
    fn default() -> Self {
        let requests = "10/1s, 300/60s".parse().unwrap_or_default();
        Self { enabled: true, address: None, requests, proxies: Vec::new(), mqtt: None }
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A device is new.
    Made,
    /// The answer was given once more.
    Again,
    /// Nothing was registered.
    Refused(RegisterError),
}

/// Packages and lists, and what guards them. One for the process.
#[derive(Debug)]
pub struct Registrar {
    settings: RegistrationSettings,
    book: RwLock<Book>,
    quotas: Quotas,
    in_doubt: AtomicUsize,
    made: AtomicU64,
    again: AtomicU64,
    /// In the order of [`RegisterError::ALL`].
    refused: [AtomicU64; RegisterError::ALL.len()],
}

/// A commit that nobody knows the end of. While it lives, the book is in doubt.
#[derive(Debug)]
pub struct Doubt(Arc<Registrar>);

impl Drop for Doubt {
    fn drop(&mut self) {
        self.0.in_doubt.fetch_sub(1, SeqCst);
    }
}

impl Registrar {
    /// An empty book. `exempt`: networks whose addresses aren't limited.
    #[must_use]
    pub fn new(settings: RegistrationSettings, exempt: Vec<IpNet>) -> Self {
        let requests = quota::RequestLimits { address: settings.requests, ..quota::RequestLimits::default() };
        let limits = quota::Settings { requests, exempt, ..quota::Settings::default() };
        let sizes = quota::Sizes { origins_max: 1, owners_max: 1, callers_max: CALLERS_MAX };
        Self {
            settings,
            book: RwLock::default(),
            quotas: Quotas::new(limits, sizes),
            in_doubt: AtomicUsize::new(0),
            made: AtomicU64::new(0),
            again: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// How devices register over HTTP.
    #[must_use]
    pub fn settings(&self) -> &RegistrationSettings {
        &self.settings
    }

    /// Takes a record back at start, in any order.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn load(&self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.book.write().load(key, value)
    }

    /// Packages and lists. Not to be held across anything that waits.
    pub fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read()
    }

    /// Makes committed changes visible.
    pub fn apply(&self, changes: Vec<Change>) {
        let mut book = self.book.write();
        changes.into_iter().for_each(|change| book.apply(change));
    }

    /// The book is in doubt until what this gives is dropped.
    #[must_use]
    pub fn doubt(self: &Arc<Self>) -> Doubt {
        self.in_doubt.fetch_add(1, SeqCst);
        Doubt(Arc::clone(self))
    }

    /// Whether a commit is under way whose end nobody has seen.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(SeqCst) > 0
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    /// It asks too often.
    pub fn asked_by(&self, address: IpAddr, now: Now) -> Result<(), RetryAfter> {
        self.quotas.request(&[Caller::Address(address)], now)
    }

    /// Forgets addresses that haven't asked lately.
    pub fn sweep(&self, now: Now) {
        self.quotas.sweep(now);
    }

    /// Counts what became of a request.
    pub fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Made => Some(&self.made),
            Outcome::Again => Some(&self.again),
            Outcome::Refused(error) => self.refused.get(error as usize),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// How often each outcome happened.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let made = [("made", &self.made), ("again", &self.again)].into_iter();
        let refused = RegisterError::ALL.iter().map(|error| error.label()).zip(&self.refused);
        made.chain(refused).map(|(label, count)| (label, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_by_itself() {
        let registrar = Registrar::new(RegistrationSettings::default(), Vec::new());
        registrar.count(Outcome::Made);
        registrar.count(Outcome::Again);
        RegisterError::ALL.iter().for_each(|error| registrar.count(Outcome::Refused(*error)));
        let counts: Vec<_> = registrar.counts().collect();
        assert_eq!(counts.len(), 2 + RegisterError::ALL.len());
        assert!(counts.iter().all(|(_, count)| *count == 1), "{counts:?}");
    }

    #[test]
    fn a_book_is_in_doubt_until_the_last_commit_is_known() {
        let registrar = Arc::new(Registrar::new(RegistrationSettings::default(), Vec::new()));
        let (first, second) = (registrar.doubt(), registrar.doubt());
        drop(first);
        assert!(registrar.is_in_doubt());
        drop(second);
        assert!(!registrar.is_in_doubt());
    }

    #[test]
    fn an_address_asks_no_more_often_than_it_may() {
        let requests = "2/1s".parse().expect("windows");
        let settings = RegistrationSettings { requests, ..RegistrationSettings::default() };
        let registrar = Registrar::new(settings, vec!["10.0.0.0/8".parse().expect("a network")]);
        let now = Now { mono_ms: 5, unix_ms: 5 };
        let ask = |address: &str| registrar.asked_by(address.parse().expect("an address"), now).is_ok();
        assert_eq!([ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2")], [true, true, false, true]);
        assert!((0..9).all(|_| ask("10.1.2.3")));
        assert!(!RegistrationSettings::default().requests.is_unlimited());
    }
}
