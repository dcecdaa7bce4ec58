//! Products whose devices are judged by a verifier: which one, and what its word is worth ([`crate::verifier`]).

use std::sync::Arc;

use turnpike_core::clock::Now;
use turnpike_core::gate::{Admission, Answer, Attempt, Principal, Question, Verdict};

use super::Gatekeeper;
use super::means::{By, Proven, verifier_print};
use crate::callout::{Call, Callout, Consulted, Said};
use crate::keys::Signed;
use crate::people::log_in as people;
use crate::profile::{Claim, Profile};
use crate::refusal::Refusal;
use crate::verifier::{Grant, Opinion, Verifier, VerifierName};

/// What the shell is asked, and what it answers with, as [`Question`] and [`Answer`] carry them.
#[derive(Debug)]
pub struct Asked(pub Call);

impl Gatekeeper {
    /// The same gate, with an algorithm of somebody's own. Of two of a name the first counts, and none has the call-out's.
    #[must_use]
    pub fn judged_by(mut self, verifier: Box<dyn Verifier>) -> Self {
        self.verifiers.push(verifier);
        self
    }

    /// The same gate, with a call-out. Whoever drives the shards has its questions answered.
    #[must_use]
    pub fn calling_out(self, callout: Arc<Callout>) -> Self {
        Self { callout: Some(callout), ..self }
    }

    /// The call-out, if there is one.
    #[must_use]
    pub fn callout(&self) -> Option<&Arc<Callout>> {
        self.callout.as_ref()
    }

    /// Names that a product may name.
    pub fn verifiers(&self) -> impl Iterator<Item = VerifierName> + '_ {
        let callout = self.callout.iter().map(|_| VerifierName::callout());
        self.verifiers.iter().map(|verifier| verifier.name().clone()).chain(callout)
    }

    /// Has a verifier judge an attempt, if it is a verifier's. None if it is the broker's own.
    pub(super) fn consult(&self, attempt: &Attempt<'_>, now: Now) -> Option<Verdict> {
        if !self.registry.has_verifiers() {
            return None;
        }
        match self.named_by(attempt) {
            Named::Product(product, name) => Some(self.consult_named((product, name), attempt, now)),
            Named::Nobody => self.consult_all(attempt, now),
            Named::Ours => None,
        }
    }

    fn consult_named(&self, (product, name): (&str, VerifierName), attempt: &Attempt<'_>, now: Now) -> Verdict {
        if attempt.enhanced.is_some() {
            return self.refuse(Refusal::BadMethod);
        }
        if let Some(callout) = self.callout.as_ref().filter(|_| name.is_callout()) {
            return self.call_out(callout, Some(product), attempt, now);
        }
        let verifier = self.verifiers.iter().find(|verifier| *verifier.name() == name && !name.is_callout());
        let Some(verifier) = verifier else { return self.refuse(Refusal::VerifierMissing) };
        self.heed(verifier.judge(attempt, now), verifier.name(), attempt, now)
            .unwrap_or_else(|| self.judge(attempt, now, [0; 32], Some(&name)))
    }

    /// Asks everybody about whom nobody knows.
    fn consult_all(&self, attempt: &Attempt<'_>, now: Now) -> Option<Verdict> {
        let own = self.verifiers.iter().filter(|verifier| !verifier.name().is_callout());
        let said = own.map(|verifier| self.heed(verifier.judge(attempt, now), verifier.name(), attempt, now));
        let callout = self.callout.as_ref().filter(|callout| callout.settings().strangers);
        said.flatten().next().or_else(|| callout.map(|callout| self.call_out(callout, None, attempt, now)))
    }

    fn call_out(&self, callout: &Callout, product: Option<&str>, attempt: &Attempt<'_>, now: Now) -> Verdict {
        match callout.consult(attempt, product, now) {
            Consulted::Known(opinion) => self.conclude_callout(Ok(opinion), attempt, now),
            Consulted::Ask(call) => Verdict::Pending(Question::new(Asked(call))),
            Consulted::Refused(refusal) => self.refuse(refusal),
        }
    }

    /// The call-out has answered, or hasn't.
    pub(super) fn answered(&self, attempt: &Attempt<'_>, answer: Answer, now: Now) -> Verdict {
        let said = answer.into_inner::<Said>().unwrap_or(Err(Refusal::CalloutFailed));
        self.conclude_callout(said, attempt, now)
    }

    fn conclude_callout(&self, said: Said, attempt: &Attempt<'_>, now: Now) -> Verdict {
        match said {
            Ok(opinion) => {
                let name = VerifierName::callout();
                let heeded = self.heed(opinion, &name, attempt, now);
                heeded.unwrap_or_else(|| self.judge(attempt, now, [0; 32], Some(&name)))
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// What a verifier's word leads to; none if it isn't the verifier's to say.
    fn heed(&self, opinion: Opinion, name: &VerifierName, attempt: &Attempt<'_>, now: Now) -> Option<Verdict> {
        match opinion {
            Opinion::NotMine => None,
            Opinion::Refused => Some(self.refuse(Refusal::VerifierRefused)),
            Opinion::Granted(grant) => Some(self.verdict(self.admit_granted(&grant, name, attempt, now), Some(name))),
        }
    }

    /// Lets in whom a verifier knows, as far as it is the verifier's to say.
    fn admit_granted(
        &self,
        grant: &Grant,
        name: &VerifierName,
        attempt: &Attempt<'_>,
        now: Now,
    ) -> Result<Admission, Refusal> {
        let (product, device) = (grant.product.as_str(), grant.device.as_str());
        if self.registry.verifier(product).as_ref() != Some(name) {
            return Err(Refusal::UnknownProduct);
        }
        let found = self.registry.find(product, device).ok_or(Refusal::UnknownDevice)?;
        let by = By::Verifier(verifier_print(name));
        let proven = Proven { identity: (product, device), found: &found, profile: Profile::Native, by };
        let admission = self.admit(&proven, None, attempt, now)?;
        let until_ms = admission.until_ms.into_iter().chain(grant.until_ms).min();
        Ok(Admission { until_ms, ..admission })
    }

    /// Whether a device was the broker's to judge: its product names no verifier, or the one that was asked before.
    pub(super) fn check_verifier(
        &self,
        admission: Admission,
        asked: Option<&VerifierName>,
    ) -> Result<Admission, Refusal> {
        let Principal::Device(identity) = &admission.principal else { return Ok(admission) };
        match self.registry.verifier(&identity.product) {
            Some(name) if asked != Some(&name) => Err(Refusal::ProfileNotAllowed),
            _ => Ok(admission),
        }
    }

    /// Whether somebody speaks as a service, or as a user of an application that exists, even if a product goes by its name.
    fn is_of_people(&self, user_name: &str, password: &[u8]) -> bool {
        match people::Claim::parse(user_name, password) {
            Some(people::Claim::Service { .. }) => true,
            Some(people::Claim::Code { user, .. } | people::Claim::Token { user, .. }) => {
                self.people.app(user.0).is_some()
            }
            None => false,
        }
    }

    /// Which product an attempt names, as far as that matters here.
    fn named_by<'a>(&self, attempt: &Attempt<'a>) -> Named<'a> {
        let user_name = attempt.user_name.unwrap_or_default();
        if self.is_of_people(user_name, attempt.password.unwrap_or_default()) {
            return Named::Ours;
        }
        let first = user_name.split_once('/').map(|(product, _)| product);
        let last = || user_name.rsplit_once('&').map(|(_, product)| product);
        let claim = || Claim::parse(attempt.client_id, user_name, attempt.password?);
        let claim = claim();
        let claimed = claim.as_ref().and_then(|claim| claim.identity().named).map(|(product, _)| product);
        for product in [first, last(), claimed].into_iter().flatten() {
            if let Some(name) = self.registry.verifier(product) {
                return Named::Product(product, name);
            }
            if self.registry.product(product).is_some() {
                return Named::Ours;
            }
        }
        let has_format = || {
            let password = attempt.password.unwrap_or_default();
            claim.is_some() || Signed::parse(attempt.client_id, user_name, password).is_some()
        };
        let by_certificate = attempt.certificate.is_some() && user_name.is_empty();
        if attempt.enhanced.is_some() || by_certificate || has_format() { Named::Ours } else { Named::Nobody }
    }
}

/// Which product an attempt names.
enum Named<'a> {
    /// One that names a verifier.
    Product(&'a str, VerifierName),
    /// None that exists, in no format that the broker knows.
    Nobody,
    /// Any other.
    Ours,
}

#[cfg(test)]
mod tests;
