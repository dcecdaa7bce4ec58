//! Clients of the HTTP API that change bindings, or something else.

use std::thread;
use std::time::{Duration, Instant};

use super::stage::{APP, CODE_TTL_S, PRODUCT, Stage, bind, device_path, user_path};
use crate::http::Http;

/// Devices of a client; so many are bound by it at once.
const DEVICES: u32 = 250;
/// Users of a client, who own its devices and are given shares.
const USERS: u32 = 50;

/// Session codes that a user can have.
const CODES_OF_USER: u32 = 20;

/// What a round changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Whom devices are bound to.
    Bindings,
    /// What users may log in with: stored and audited, and no message's concern.
    Codes,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bindings => "bindings",
            Self::Codes => "codes",
        }
    }
}

/// What is done to each device in turn, and then again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Bind,
    Share,
    Unshare,
    Unbind,
}

const STEPS: [Step; 4] = [Step::Bind, Step::Share, Step::Unshare, Step::Unbind];

/// Change number `n` of a client: what, and to which of its devices. All are bound before the first is shared.
fn change(n: u32) -> (Step, u32) {
    (STEPS[(n / DEVICES) as usize % STEPS.len()], n % DEVICES)
}

/// The clients.
pub(super) struct Changers<'a> {
    stage: &'a Stage,
    changers: Vec<Changer>,
}

struct Changer {
    number: u32,
    /// Changes of bindings so far.
    made: u32,
    /// Codes issued so far.
    codes: u32,
}

impl<'a> Changers<'a> {
    /// Clients with devices and users of their own, none of them bound yet, and users enough for as many codes as changes.
    pub(super) fn new(stage: &'a Stage, clients: u32, changes: u32) -> anyhow::Result<Self> {
        let changers = (0..clients).map(|number| Changer { number, made: 0, codes: 0 }).collect();
        let mut changers = Self { stage, changers };
        // A client's share of a round may be one above the mean.
        let holders = (changes / clients + 100).div_ceil(CODES_OF_USER);
        changers.each(|changer, http| changer.prepare(http, holders))?;
        Ok(changers)
    }

    /// Makes so many changes of a kind, all clients together, each as fast as it is answered. How long that takes.
    pub(super) fn run(&mut self, kind: Kind, count: u32) -> anyhow::Result<Duration> {
        let clients = u32::try_from(self.changers.len())?;
        let begun = Instant::now();
        self.each(|changer, http| {
            let count = super::share(count, clients, changer.number);
            (0..count).try_for_each(|_| match kind {
                Kind::Bindings => changer.next(http),
                Kind::Codes => changer.issue(http),
            })
        })?;
        Ok(begun.elapsed())
    }

    /// Each on a connection of its own, which the broker would close in a long pause.
    fn each(&mut self, work: impl Fn(&mut Changer, &mut Http) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
        let (work, stage) = (&work, self.stage);
        thread::scope(|scope| {
            let work = move |changer| work(changer, &mut stage.http()?);
            let running: Vec<_> = self.changers.iter_mut().map(|changer| scope.spawn(move || work(changer))).collect();
            running.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client failed"))?)
        })
    }
}

impl Changer {
    fn device(&self, n: u32) -> String {
        format!("other-{}-{n}", self.number)
    }

    fn user(&self, n: u32) -> String {
        format!("other-{}-{}", self.number, n % USERS)
    }

    fn holder(&self, n: u32) -> String {
        format!("holder-{}-{n}", self.number)
    }

    fn prepare(&mut self, http: &mut Http, holders: u32) -> anyhow::Result<()> {
        for n in 0..holders {
            http.ask("PUT", &user_path(&self.holder(n), ""), "")?;
        }
        for n in 0..USERS {
            http.ask("PUT", &user_path(&self.user(n), ""), "")?;
        }
        for n in 0..DEVICES {
            http.ask("PUT", &device_path(&self.device(n), ""), "{}")?;
        }
        Ok(())
    }

    fn issue(&mut self, http: &mut Http) -> anyhow::Result<()> {
        let holder = self.holder(self.codes / CODES_OF_USER);
        http.ask("POST", &user_path(&holder, "/codes"), &format!(r#"{{"ttl_s":{CODE_TTL_S}}}"#))?;
        self.codes += 1;
        Ok(())
    }

    fn next(&mut self, http: &mut Http) -> anyhow::Result<()> {
        let (step, n) = change(self.made);
        let (device, owner, guest) = (self.device(n), self.user(n), self.user(n + 1));
        let binding = |user: &str| device_path(&device, &format!("/users/{APP}/{user}"));
        match step {
            Step::Bind => bind(http, PRODUCT, &device, &owner)?,
            Step::Share => drop(http.ask("PUT", &binding(&guest), r#"{"role":"control"}"#)?),
            Step::Unshare => drop(http.ask("DELETE", &binding(&guest), "")?),
            Step::Unbind => drop(http.ask("DELETE", &binding(&owner), "")?),
        }
        self.made += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_bound_before_it_is_shared_and_free_at_the_end() {
        let (mut bound, mut shared) = (vec![false; DEVICES as usize], vec![false; DEVICES as usize]);
        for n in 0..DEVICES * 8 {
            let (step, device) = change(n);
            let (bound, shared) = (&mut bound[device as usize], &mut shared[device as usize]);
            let (was, is) = match step {
                Step::Bind => ((false, false), (true, false)),
                Step::Share => ((true, false), (true, true)),
                Step::Unshare => ((true, true), (true, false)),
                Step::Unbind => ((true, false), (false, false)),
            };
            assert_eq!((*bound, *shared), was, "{n}");
            (*bound, *shared) = is;
        }
        assert!(!bound.contains(&true) && !shared.contains(&true));
    }
}
