//! Changes of apps, users, bindings, services and tenants, in the words of the audit. Described before they are applied, so that it can
//! be told what is new.
//!
//! What goes with a user that is deleted (codes, log-ins) isn't told one by one; bindings are, since devices are concerned.

use std::net::SocketAddr;

use super::{Action, Event, Id, Key, Outcome, Subject, Value};
use crate::names::ProductKey;
use crate::people::bindings::{Binding, DeviceKey, Role};
use crate::people::erasure::Erasure;
use crate::people::ids::{AccessKey, AppId, UserKey};
use crate::people::{Change, People};

/// What a change will do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedPeople {
    action: Action,
    target: Target,
    /// Of a binding: with whom.
    user: Option<UserKey>,
    role: Option<Role>,
    expires_ms: Option<u64>,
    enabled: Option<bool>,
    secret_replaced: Option<bool>,
    /// Of an erasure.
    number: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    App(AppId),
    User(UserKey),
    Device(DeviceKey),
    Service(AccessKey),
    Product(ProductKey),
}

impl DescribedPeople {
    fn new(action: Action, target: Target) -> Self {
        Self {
            action,
            target,
            user: None,
            role: None,
            expires_ms: None,
            enabled: None,
            secret_replaced: None,
            number: None,
        }
    }

    /// That a user is signed out of a session.
    #[must_use]
    pub fn sign_out(user: &UserKey) -> Self {
        Self::new(Action::SessionRevoke, Target::User(user.clone()))
    }

    /// That what is kept of a user is given out.
    #[must_use]
    pub fn export(user: &UserKey) -> Self {
        Self::new(Action::UserExport, Target::User(user.clone()))
    }

    /// That an erasure should have been done by now.
    #[must_use]
    pub fn overdue(number: u64, erasure: &Erasure) -> Self {
        let target = erasure.user_key().map_or_else(|| Target::App(erasure.app.clone()), Target::User);
        Self { number: Some(number), ..Self::new(Action::ErasureOverdue, target) }
    }

    /// That a proof for binding a device is issued.
    #[must_use]
    pub fn proof(device: &DeviceKey) -> Self {
        Self::new(Action::ProofIssue, Target::Device(device.clone()))
    }

    /// That a user wants to be bound to a device.
    #[must_use]
    pub fn bind(device: &DeviceKey, user: &UserKey) -> Self {
        Self { user: Some(user.clone()), ..Self::new(Action::Bind, Target::Device(device.clone())) }
    }

    /// Hands over the event that this is, done by somebody.
    pub fn tell<R>(
        &self,
        at_ms: u64,
        (actor, source): (Subject<'_>, Option<SocketAddr>),
        outcome: Outcome,
        to: impl FnOnce(&Event<'_>) -> R,
    ) -> R {
        let target = match &self.target {
            Target::App(app) => Subject::App(Id::of(app)),
            Target::User(user) => Subject::user(user),
            Target::Device(device) => Subject::device(&device.product, &device.device),
            Target::Service(key) => Subject::Service(Id::of(key)),
            Target::Product(product) => Subject::product(product),
        };
        let mut details = Vec::new();
        if let Some(user) = &self.user {
            details.push((Key::App, Value::Id(Id::of(&user.app))));
            details.push((Key::User, Value::Id(Id::of(&user.user))));
        }
        details.extend(self.role.map(|role| (Key::Role, Value::Word(role.as_str()))));
        details.extend(self.expires_ms.map(|at_ms| (Key::ExpiresMs, Value::Number(at_ms))));
        details.extend(self.enabled.map(|enabled| (Key::Enabled, Value::Flag(enabled))));
        details.extend(self.secret_replaced.map(|replaced| (Key::SecretReplaced, Value::Flag(replaced))));
        details.extend(self.number.map(|number| (Key::Erasure, Value::Number(number))));
        to(&Event { at_ms, actor, source, action: self.action, target: Some(target), outcome, details: &details })
    }
}

/// Describes changes that are committed together.
#[must_use]
pub fn describe_people(people: &People, changes: &[Change]) -> Vec<DescribedPeople> {
    let deleted: Vec<&UserKey> = changes
        .iter()
        .filter_map(|change| match change {
            Change::DeleteUser(user) => Some(user),
            _ => None,
        })
        .collect();
    changes.iter().filter_map(|change| describe_one(people, changes, &deleted, change)).collect()
}

fn describe_one(people: &People, all: &[Change], deleted: &[&UserKey], change: &Change) -> Option<DescribedPeople> {
    let of_user = |action, user: &UserKey| DescribedPeople::new(action, Target::User(user.clone()));
    Some(match change {
        Change::PutApp(id, app) => {
            let before = people.app(id.as_str());
            let was_enabled = before.as_ref().is_none_or(|before| before.enabled);
            let action = match (was_enabled, app.enabled) {
                (true, false) => Action::AppCutOff,
                (false, true) => Action::AppRestore,
                _ => Action::AppPut,
            };
            let secret_replaced = before.map(|before| before.secret != app.secret);
            let target = Target::App(id.clone());
            DescribedPeople { enabled: Some(app.enabled), secret_replaced, ..DescribedPeople::new(action, target) }
        }
        Change::DeleteApp(id) => DescribedPeople::new(Action::AppDelete, Target::App(id.clone())),
        Change::PutUser(key, user) => {
            let was_frozen =
                people.bindings().user(key.app.as_str(), key.user.as_str()).is_some_and(|before| before.frozen);
            let action = match (was_frozen, user.frozen) {
                (false, true) => Action::UserFreeze,
                (true, false) => Action::UserUnfreeze,
                _ => Action::UserPut,
            };
            of_user(action, key)
        }
        Change::DeleteUser(key) => of_user(Action::UserDelete, key),
        Change::Bind(device, user, binding) => bound(all, device, user, binding),
        Change::Unbind(device, user) => {
            let role = people.bindings().binding(device, user).map(|binding| binding.role);
            let action = if role == Some(Role::Owner) { Action::Unbind } else { Action::Unshare };
            let target = Target::Device(device.clone());
            DescribedPeople { user: Some(user.clone()), role, ..DescribedPeople::new(action, target) }
        }
        Change::PutCode(_, code) => DescribedPeople {
            expires_ms: Some(code.expires_at_s.saturating_mul(1000)),
            ..of_user(Action::TokenIssue, &code.user)
        },
        Change::DeleteCode(_, user) if deleted.contains(&user) => return None,
        Change::DeleteCode(_, user) => of_user(Action::TokenRevoke, user),
        Change::PutLogIns(..) | Change::DeleteLogIns(_) => return None,
        Change::PutService(key, service) => {
            let secret_replaced = people.service(key.as_str()).map(|before| before.secret != service.secret);
            let target = Target::Service(key.clone());
            let enabled = Some(service.enabled);
            DescribedPeople { enabled, secret_replaced, ..DescribedPeople::new(Action::ServicePut, target) }
        }
        Change::DeleteService(key) => DescribedPeople::new(Action::ServiceDelete, Target::Service(key.clone())),
        Change::PutProofs(device, _) => DescribedPeople::proof(device),
        Change::DeleteProofs(_) => return None,
        Change::PutErasure(number, erasure) => return erasing(people, *number, erasure),
        Change::DeleteErasure(_) => return None,
        Change::SetTenant(product, _) => DescribedPeople::new(Action::ProductTenant, Target::Product(product.clone())),
    })
}

/// An erasure that is asked for, done, or has failed; counts on the way are told with its end. Who is erased isn't named any more at the end.
fn erasing(people: &People, number: u64, erasure: &Erasure) -> Option<DescribedPeople> {
    let before = people.erasure(number);
    let of_user = |action| Some(DescribedPeople::new(action, Target::User(erasure.user_key()?)));
    let described = match before {
        None => of_user(Action::ErasureAsk),
        Some(before) if before.begins_at_s > erasure.begins_at_s => of_user(Action::ErasureAsk),
        Some(before) if before.failures < erasure.failures => of_user(Action::ErasureFail),
        Some(_) if erasure.done_at_s.is_some() => {
            Some(DescribedPeople::new(Action::ErasureDone, Target::App(erasure.app.clone())))
        }
        Some(_) => None,
    };
    described.map(|described| DescribedPeople { number: Some(number), ..described })
}

/// A new owner takes the device from another one whose binding ends with the same commit, or from nobody.
fn bound(all: &[Change], device: &DeviceKey, user: &UserKey, binding: &Binding) -> DescribedPeople {
    let is_taken = all.iter().any(|change| matches!(change, Change::Unbind(from, _) if from == device));
    let action = match binding.role {
        Role::Owner if is_taken => Action::Transfer,
        Role::Owner => Action::Bind,
        Role::Control | Role::View => Action::Share,
    };
    let expires_ms = binding.expires_at_s.map(|at_s| u64::from(at_s) * 1000);
    let (user, role) = (Some(user.clone()), Some(binding.role));
    DescribedPeople { user, role, expires_ms, ..DescribedPeople::new(action, Target::Device(device.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::apps::TokenRules;
    use crate::people::plan::{AppRequest, ServiceRequest, Share};
    use crate::people::tests::{NOW_S, World, access_key, app_id, device, key, making, user};

    fn said(world: &World, changes: &[Change]) -> Vec<String> {
        let said = |described: &DescribedPeople| {
            let mut body = Vec::new();
            described.tell(7, (Subject::Broker, None), Outcome::Ok, |event| event.encode(&mut body));
            let body = String::from_utf8(body).expect("JSON");
            body.replace("\"time\":7,\"actor\":\"broker\",\"action\":", "").replace(",\"result\":\"ok\"", "")
        };
        describe_people(&world.people, changes).iter().map(said).collect()
    }

    fn run(world: &mut World, changes: Vec<Change>) -> Vec<String> {
        let said = said(world, &changes);
        world.run_all(changes);
        said
    }

    #[test]
    fn apps_and_services_are_told_by_what_changes() {
        let mut world = World::new();
        let put = |world: &World, enabled, renew_secret| {
            let request =
                AppRequest { enabled, renew_secret, tokens: Some(TokenRules::default()), ..AppRequest::default() };
            vec![world.people.plan_put_app(&app_id("a"), request, &making(&key())).expect("a plan").change]
        };
        for (enabled, action, is_enabled) in
            [(Some(false), "app_cut_off", false), (None, "app_put", false), (Some(true), "app_restore", true)]
        {
            let changes = put(&world, enabled, false);
            let detail = format!("{{\"enabled\":{is_enabled},\"secret_replaced\":false}}");
            assert_eq!(run(&mut world, changes), [format!("\"{action}\",\"target\":\"app:a\",\"detail\":{detail}")]);
        }
        let made = world.people.plan_put_service(&access_key("s"), ServiceRequest::default(), &making(&key()));
        let said = run(&mut world, vec![made.expect("a plan").change]);
        assert_eq!(said, ["\"service_put\",\"target\":\"service:s\",\"detail\":{\"enabled\":true}"]);
    }

    #[test]
    fn bindings_name_device_user_role_and_end() {
        let mut world = World::new();
        let (d, o, c) = (device("p", "d"), user("a", "o"), user("a", "c"));
        let bind = world.people.plan_bind(&world.registry, &d, &o, false).expect("a plan");
        let with = |user: &str| format!("\"target\":\"device:p/d\",\"detail\":{{\"app\":\"a\",\"user\":\"{user}\"");
        assert_eq!(run(&mut world, vec![bind]), [format!("\"bind\",{},\"role\":\"owner\"}}", with("o"))]);
        let share = Share { with: &c, role: Role::View, expires_at_s: Some(1_800_000_000) };
        let share = world.people.plan_share(&world.registry, &d, Some(&o), &share, NOW_S).expect("a plan");
        let end = "\"role\":\"view\",\"expires_ms\":1800000000000";
        assert_eq!(run(&mut world, vec![share]), [format!("\"share\",{},{end}}}", with("c"))]);
        let passed = world.people.plan_transfer(&world.registry, &d, &o, &c, false).expect("a plan");
        let said = run(&mut world, passed);
        assert_eq!(said.last(), Some(&format!("\"transfer\",{},\"role\":\"owner\"}}", with("c"))));
        let unbound = world.people.plan_unbind(&d, &c).expect("a plan");
        assert_eq!(run(&mut world, unbound), [format!("\"unbind\",{},\"role\":\"owner\"}}", with("c"))]);
    }

    #[test]
    fn a_user_goes_in_one_record_and_with_its_bindings() {
        let mut world = World::new();
        let o = user("a", "o");
        world.bind(&device("p", "d"), &o);
        let issued = world.people.plan_issue_code(&o, 60, [1; 32], NOW_S).expect("a plan");
        let said_of_code = run(&mut world, vec![issued.change]);
        assert!(said_of_code.concat().starts_with("\"token_issue\",\"target\":\"user:a/o\""), "{said_of_code:?}");
        let frozen = world.people.plan_freeze_user(&o, true).expect("a user");
        assert_eq!(run(&mut world, vec![frozen]), ["\"user_freeze\",\"target\":\"user:a/o\""]);
        let thawed = world.people.plan_freeze_user(&o, false).expect("a user");
        assert_eq!(run(&mut world, vec![thawed]), ["\"user_unfreeze\",\"target\":\"user:a/o\""]);
        let gone = world.people.plan_delete_user(&o).expect("a user");
        let said = run(&mut world, gone);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said.concat().starts_with("\"unbind\"")
                && said.concat().ends_with("\"user_delete\",\"target\":\"user:a/o\"")
        );
    }
}
