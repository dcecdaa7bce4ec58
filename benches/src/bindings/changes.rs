//! Clients of the HTTP API that change bindings.

use std::thread;
use std::time::{Duration, Instant};

use super::stage::{APP, PRODUCT, Stage, bind, device_path, user_path};
use crate::http::Http;

/// Devices of a client; so many are bound by it at once.
const DEVICES: u32 = 250;
/// Users of a client, who own its devices and are given shares.
const USERS: u32 = 50;

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
pub(super) struct Changers(Vec<Changer>);

struct Changer {
    http: Http,
    number: u32,
    /// Changes made so far.
    made: u32,
}

impl Changers {
    /// Clients with devices and users of their own, none of them bound yet.
    pub(super) fn new(stage: &Stage, clients: u32) -> anyhow::Result<Self> {
        let mut changers = Vec::new();
        for number in 0..clients {
            changers.push(Changer { http: stage.http()?, number, made: 0 });
        }
        let mut changers = Self(changers);
        changers.each(Changer::prepare)?;
        Ok(changers)
    }

    /// Makes so many changes, all clients together, each as fast as it is answered. How long that takes.
    pub(super) fn run(&mut self, count: u32) -> anyhow::Result<Duration> {
        let clients = u32::try_from(self.0.len())?;
        let begun = Instant::now();
        self.each(|changer| {
            let count = super::share(count, clients, changer.number);
            (0..count).try_for_each(|_| changer.next())
        })?;
        Ok(begun.elapsed())
    }

    fn each(&mut self, work: impl Fn(&mut Changer) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
        let work = &work;
        thread::scope(|scope| {
            let running: Vec<_> = self.0.iter_mut().map(|changer| scope.spawn(move || work(changer))).collect();
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

    fn prepare(&mut self) -> anyhow::Result<()> {
        for n in 0..USERS {
            self.http.ask("PUT", &user_path(&self.user(n), ""), "")?;
        }
        for n in 0..DEVICES {
            self.http.ask("PUT", &device_path(&self.device(n), ""), "{}")?;
        }
        Ok(())
    }

    fn next(&mut self) -> anyhow::Result<()> {
        let (step, n) = change(self.made);
        let (device, owner, guest) = (self.device(n), self.user(n), self.user(n + 1));
        let binding = |user: &str| device_path(&device, &format!("/users/{APP}/{user}"));
        match step {
            Step::Bind => bind(&mut self.http, PRODUCT, &device, &owner)?,
            Step::Share => drop(self.http.ask("PUT", &binding(&guest), r#"{"role":"control"}"#)?),
            Step::Unshare => drop(self.http.ask("DELETE", &binding(&guest), "")?),
            Step::Unbind => drop(self.http.ask("DELETE", &binding(&owner), "")?),
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
