//! Erasures planned ([`super::erasure`]).

use std::sync::Arc;

use super::People;
use super::change::Change;
use super::erasure::{Ask, Counts, Erasure, ErasureNumber, Kind, OPEN_MAX, Tally};
use super::ids::UserKey;
use super::plan::PlanError;

impl People {
    /// Has a user erased: a job to be committed, and its number. A user that is to be erased already keeps that job, which may become sooner by
    /// this.
    ///
    /// # Errors
    /// [`PlanError::NoSuchApp`], [`PlanError::NoSuchUser`]; [`PlanError::TooMuch`] beyond [`OPEN_MAX`], and of what
    /// [`Ask::is_valid`] says no to.
    pub fn plan_erasure(
        &self,
        user: &UserKey,
        ask: &Ask<'_>,
        now_s: u64,
    ) -> Result<(ErasureNumber, Option<Change>), PlanError> {
        if !ask.is_valid() {
            return Err(PlanError::TooMuch);
        }
        if let Some((number, open)) = self.erasures.of(user) {
            let hastened = open.hastened(ask, now_s);
            let change = (hastened != *open).then(|| Change::PutErasure(number, Box::new(hastened)));
            return Ok((number, change));
        }
        self.app(user.app.as_str()).ok_or(PlanError::NoSuchApp)?;
        self.bindings.user(user.app.as_str(), user.user.as_str()).ok_or(PlanError::NoSuchUser)?;
        if self.erasures.open_count() >= OPEN_MAX {
            return Err(PlanError::TooMuch);
        }
        let number = self.erasures.next_number(now_s);
        Ok((number, Some(Change::PutErasure(number, Box::new(Erasure::new(user, ask, now_s))))))
    }

    /// Removes the records of the user whom an erasure is about, and counts them, in one commit; `seen` is what else was found and is about
    /// to end. Nothing, if there is neither; what a kill has interrupted counts once.
    #[must_use]
    pub fn plan_erase(&self, number: ErasureNumber, seen: &Counts) -> Vec<Change> {
        let Some(erasure) = self.erasures.get(number) else { return Vec::new() };
        let Some(user) = erasure.user_key() else { return Vec::new() };
        let kept = self.kept_of(&user);
        let found = kept.plus(seen);
        if found.first().is_none() {
            return Vec::new();
        }
        let mut changes = if kept.first().is_some() { self.deletion(&user) } else { Vec::new() };
        let erased = erasure.erased.plus(&found);
        changes.push(Change::PutErasure(number, Box::new(Erasure { erased, ..Erasure::clone(&erasure) })));
        changes
    }

    /// What has come of an attempt: `left` is what was found outside when somebody looked after it; what is kept here is looked for by this. None
    /// of an erasure that is done.
    #[must_use]
    pub fn plan_conclude(&self, number: ErasureNumber, left: &Counts, now_s: u64) -> Option<Change> {
        let erasure = self.erasures.get(number)?;
        let left = self.kept_of(&erasure.user_key()?).plus(left);
        Some(Change::PutErasure(number, Box::new(erasure.concluded(&left, now_s))))
    }

    /// Forgets up to `limit` reports that have been kept long enough, or are too many.
    #[must_use]
    pub fn plan_forget_reports(&self, now_s: u64, limit: usize) -> Vec<Change> {
        self.erasures.outlived(now_s, limit).into_iter().map(Change::DeleteErasure).collect()
    }

    /// What is kept of a user in records, by kind.
    #[must_use]
    pub fn kept_of(&self, user: &UserKey) -> Counts {
        let account = self.bindings.user(user.app.as_str(), user.user.as_str()).is_some();
        let devices = self.bindings.devices_of(user);
        let owned = devices.iter().filter(|(_, binding)| binding.role == super::bindings::Role::Owner);
        let shares = owned.map(|(device, _)| self.bindings.users_of(device).len().saturating_sub(1)).sum();
        Counts::default()
            .with(Kind::Account, usize::from(account))
            .with(Kind::Binding, devices.len())
            .with(Kind::Share, shares)
            .with(Kind::Code, self.codes.of(user).len())
            .with(Kind::LogIn, self.log_ins.of(user).len())
            .with(Kind::Place, self.log_ins.places(user).len())
    }

    /// An erasure.
    #[must_use]
    pub fn erasure(&self, number: ErasureNumber) -> Option<Arc<Erasure>> {
        self.erasures.get(number)
    }

    /// Up to `limit` erasures of an app before a number, the newest first. The last one's number asks for the next page.
    #[must_use]
    pub fn erasures(
        &self,
        app: &str,
        before: Option<ErasureNumber>,
        limit: usize,
    ) -> Vec<(ErasureNumber, Arc<Erasure>)> {
        self.erasures.page(app, before, limit)
    }

    /// Whether a user is to be erased and isn't yet.
    #[must_use]
    pub fn is_to_be_erased(&self, user: &UserKey) -> bool {
        self.erasures.of(user).is_some()
    }

    /// Up to `limit` erasures that are to be tried now, the oldest first.
    #[must_use]
    pub fn erasures_to_do(&self, now_s: u64, limit: usize) -> Vec<ErasureNumber> {
        self.erasures.to_do(now_s, limit)
    }

    /// Up to `limit` erasures that should have been done.
    #[must_use]
    pub fn erasures_overdue(&self, now_s: u64, limit: usize) -> Vec<(ErasureNumber, Arc<Erasure>)> {
        self.erasures.overdue(now_s, limit)
    }

    /// How many there are.
    #[must_use]
    pub fn erasure_tally(&self, now_s: u64) -> Tally {
        self.erasures.tally(now_s)
    }
}
