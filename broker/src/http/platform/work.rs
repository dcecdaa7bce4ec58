//! What is done for a platform that has been admitted.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use turnpike_authz::audit::{Action, Event, Id, Key, Outcome, Subject, Value};
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::platform::{
    ACCESS_MS, Admitted, Body, Cause, LogInRandom, Message, Operation, PAYLOAD_BYTES_MAX, REFRESH_MS, Refresh, Request,
    UserId,
};
use turnpike_core::gate::{PlatformIdentity, Principal};
use turnpike_mqtt::TopicName;

use super::book::NotCommitted;
use super::desk::{Desk, Peer};
use crate::audit::now_ms;
use crate::provision::random;
use crate::shard::OutsideMessage;

/// How long a message may take to be taken, and a record to be written, before the platform is told to try again.
const TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Done {
    code: u8,
}

#[derive(Serialize)]
struct Tokens<'a> {
    code: u8,
    access_token: &'a str,
    access_expires_s: u64,
    refresh_token: &'a str,
    refresh_expires_s: u64,
}

#[derive(Serialize)]
struct UserKey {
    code: u8,
    key: String,
    expires_s: u64,
}

#[derive(Serialize)]
struct Status {
    code: u8,
    enabled: bool,
    online: bool,
    since: u64,
}

#[derive(Serialize)]
struct Listed {
    device: String,
    enabled: bool,
    online: bool,
}

#[derive(Serialize)]
struct Page {
    code: u8,
    devices: Vec<Listed>,
    next: String,
}

#[derive(Serialize)]
struct Controlled {
    code: u8,
    subscribed: bool,
}

#[derive(Serialize)]
struct State {
    code: u8,
    found: bool,
    payload: String,
}

impl From<NotCommitted> for Cause {
    fn from(_: NotCommitted) -> Self {
        Self::Store
    }
}

fn json(answer: &impl Serialize) -> Result<Vec<u8>, Cause> {
    serde_json::to_vec(answer).map_err(|_| Cause::NotTaken)
}

fn log_in_random() -> LogInRandom {
    LogInRandom { family: random(), access: random(), refresh: random() }
}

/// A request that is being done, for the audit.
struct Case<'a> {
    desk: &'a Desk,
    admitted: &'a Admitted,
    peer: &'a Peer,
    operation: Operation,
}

impl Case<'_> {
    fn event<'b>(
        &'b self,
        action: Action,
        target: Option<Subject<'b>>,
        outcome: Outcome,
        details: &'b [(Key, Value<'b>)],
    ) -> Event<'b> {
        Event {
            at_ms: now_ms(),
            actor: Subject::Platform(Id::of(&self.admitted.platform)),
            source: Some(self.peer.address),
            action,
            target,
            outcome,
            details,
        }
    }

    fn record(&self, action: Action, target: Option<Subject<'_>>, details: &[(Key, Value<'_>)]) {
        let request = (Key::Request, Value::Word(self.operation.label()));
        let all: Vec<_> = details.iter().copied().chain([request]).collect();
        self.desk.0.audit.record(&self.event(action, target, Outcome::Ok, &all));
    }

    fn for_user(&self, user: &UserId) {
        self.record(Action::PlatformRequest, None, &[(Key::User, Value::Id(Id::of(user)))]);
    }

    /// The product and the device are the platform's to read, or to control, and if a user asks, the user's too. What isn't there and what isn't granted
    /// look alike.
    fn check(
        &self,
        (product, device): (&ProductKey, &DeviceName),
        user: Option<&UserId>,
        control: bool,
    ) -> Result<(), Cause> {
        let (desk, platform) = (&self.desk.0, self.admitted.platform);
        let granted = desk.book.platforms().may(platform, product.as_str(), control);
        if !granted || desk.registry.device(product.as_str(), device.as_str()).is_none() {
            return Err(Cause::NotGranted);
        }
        let allowed = user.is_none_or(|user| desk.users.may(platform, user, (product, device), control));
        if allowed { Ok(()) } else { Err(Cause::UserNotAllowed) }
    }
}

impl Desk {
    /// Does what a request asks for, and gives the body of the answer.
    pub(super) async fn work(&self, request: &Request, admitted: &Admitted, peer: &Peer) -> Result<Vec<u8>, Cause> {
        let case = Case { desk: self, admitted, peer, operation: request.operation };
        match &request.body {
            Body::LogIn => self.log_in(&case).await,
            Body::Refresh(token) => self.refresh(&case, token).await,
            Body::LogOut => self.log_out(&case).await,
            Body::UserLogIn(user) => self.user_log_in(&case, user),
            Body::UserLogOut(user) => {
                self.0.book.platforms().drop_data_key(admitted.platform, user);
                case.for_user(user);
                json(&Done { code: 0 })
            }
            Body::ListDevices { product, after, limit } => self.list(&case, product, after.as_ref(), *limit),
            Body::DeviceStatus(product, device) => self.status(&case, product, device),
            Body::Control { user, message } => self.control(&case, user.as_ref(), message).await,
            Body::State { user, product, device, topic } => self.state(&case, user, (product, device), topic),
        }
    }

    async fn log_in(&self, case: &Case<'_>) -> Result<Vec<u8>, Cause> {
        let book = &self.0.book;
        let _changing = book.lock().await;
        let issued = book.platforms().plan_log_in(case.admitted.platform, &log_in_random(), self.0.control.now())?;
        book.commit(issued.changes).await?;
        case.record(Action::LogIn, None, &[]);
        tokens(issued.access.expose(), issued.refresh.expose())
    }

    async fn refresh(&self, case: &Case<'_>, token: &str) -> Result<Vec<u8>, Cause> {
        let book = &self.0.book;
        let _changing = book.lock().await;
        let now = self.0.control.now();
        match book.platforms().plan_refresh(case.admitted.platform, token, &log_in_random(), now) {
            Refresh::Issued(issued) => {
                book.commit(issued.changes).await?;
                case.record(Action::TokenIssue, None, &[]);
                tokens(issued.access.expose(), issued.refresh.expose())
            }
            Refresh::Reused(change) => {
                book.commit(vec![change]).await?;
                case.record(Action::TokenRevoke, None, &[]);
                Err(Cause::RefreshReused)
            }
            Refresh::Unknown => Err(Cause::WrongRefresh),
        }
    }

    async fn log_out(&self, case: &Case<'_>) -> Result<Vec<u8>, Cause> {
        let book = &self.0.book;
        let family = case.admitted.family.ok_or(Cause::WrongAccess)?;
        let _changing = book.lock().await;
        book.commit(vec![book.platforms().plan_log_out(case.admitted.platform, family)]).await?;
        case.record(Action::LogOut, None, &[]);
        json(&Done { code: 0 })
    }

    fn user_log_in(&self, case: &Case<'_>, user: &UserId) -> Result<Vec<u8>, Cause> {
        let platforms = self.0.book.platforms();
        let issued = platforms.issue_data_key(case.admitted.platform, user, &random(), self.0.control.now())?;
        case.for_user(user);
        json(&UserKey { code: 0, key: hex::encode(issued.key.expose()), expires_s: issued.for_ms / 1000 })
    }

    fn list(
        &self,
        case: &Case<'_>,
        product: &ProductKey,
        after: Option<&DeviceName>,
        limit: usize,
    ) -> Result<Vec<u8>, Cause> {
        if !self.0.book.platforms().may(case.admitted.platform, product.as_str(), false) {
            return Err(Cause::NotGranted);
        }
        let found = self.0.registry.devices(product.as_str(), after.map(DeviceName::as_str), limit + 1);
        let last = (found.len() > limit).then(|| found.get(limit - 1).map(|(name, _)| name.to_string())).flatten();
        let listed = found.into_iter().take(limit).map(|(name, device)| Listed {
            online: self.0.presence.since_ms(product.as_str(), name.as_str()).is_some(),
            device: name.to_string(),
            enabled: device.enabled,
        });
        let page = Page { code: 0, devices: listed.collect(), next: last.unwrap_or_default() };
        case.record(Action::PlatformRequest, Some(Subject::product(product)), &[]);
        json(&page)
    }

    fn status(&self, case: &Case<'_>, product: &ProductKey, device: &DeviceName) -> Result<Vec<u8>, Cause> {
        case.check((product, device), None, false)?;
        let since = self.0.presence.since_ms(product.as_str(), device.as_str());
        let enabled = self.0.registry.is_enabled(product.as_str(), device.as_str());
        case.record(Action::PlatformRequest, Some(Subject::device(product, device)), &[]);
        json(&Status { code: 0, enabled, online: since.is_some(), since: since.unwrap_or(0) })
    }

    async fn control(&self, case: &Case<'_>, user: Option<&UserId>, message: &Message) -> Result<Vec<u8>, Cause> {
        let Message { product, device, topic, qos, expires_s, payload } = message;
        case.check((product, device), user, true)?;
        let (desk, platform) = (&self.0, case.admitted.platform);
        let payload = match user {
            Some(user) => {
                let key = desk.book.platforms().data_key(platform, user, desk.control.now())?;
                key.decrypt(payload).ok_or(Cause::Malformed)?
            }
            None => payload.clone(),
        };
        let bytes = (Key::Bytes, Value::Number(payload.len() as u64));
        let user = user.map(|user| (Key::User, Value::Id(Id::of(user))));
        let details: Vec<_> = user.into_iter().chain([bytes]).collect();
        let target = Some(Subject::device(product, device));
        self.accept(&case.event(Action::Control, target, Outcome::Accepted, &details)).await?;
        let identity = PlatformIdentity { id: platform.as_str().into() };
        let taken = desk.control.publish_outside(OutsideMessage {
            principal: Principal::Platform(Arc::new(identity)),
            topic: format!("dev/{product}/{device}/down/{topic}"),
            payload,
            qos: *qos,
            expires_at_ms: desk.control.now().unix_ms.saturating_add(expires_s.saturating_mul(1000)),
        });
        let cause = match tokio::time::timeout(TIME_MAX, taken).await {
            Ok(Ok(Ok(subscribed))) => return json(&Controlled { code: 0, subscribed }),
            // Its grant has gone between the check and the gate.
            Ok(Ok(Err(turnpike_mqtt::ReasonCode::NotAuthorized))) => Cause::NotGranted,
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Cause::NotTaken,
        };
        desk.audit.record(&case.event(Action::Control, target, Outcome::Failed(cause.label()), &details));
        Err(cause)
    }

    /// Has a control on record before it is done. If that can't be, it must not be done.
    async fn accept(&self, event: &Event<'_>) -> Result<(), Cause> {
        let written = self.0.audit.record_durable(event);
        match tokio::time::timeout(TIME_MAX, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) if self.0.audit_required => Err(Cause::Audit),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("a platform controls a device, and it isn't on record");
                Ok(())
            }
        }
    }

    fn state(
        &self,
        case: &Case<'_>,
        user: &UserId,
        (product, device): (&ProductKey, &DeviceName),
        topic: &str,
    ) -> Result<Vec<u8>, Cause> {
        case.check((product, device), Some(user), false)?;
        let key = self.0.book.platforms().data_key(case.admitted.platform, user, self.0.control.now())?;
        let topic = format!("dev/{product}/{device}/up/{topic}");
        let topic = TopicName::parse(&topic).map_err(|_| Cause::Malformed)?;
        let message = self.0.control.retained(topic);
        if message.as_ref().is_some_and(|message| message.parts().payload.len() > PAYLOAD_BYTES_MAX) {
            return Err(Cause::TooLarge);
        }
        let payload = message.as_ref().map(|message| STANDARD.encode(key.encrypt(random(), message.parts().payload)));
        let target = Some(Subject::device(product, device));
        case.record(Action::PlatformRequest, target, &[(Key::User, Value::Id(Id::of(user)))]);
        json(&State { code: 0, found: payload.is_some(), payload: payload.unwrap_or_default() })
    }
}

fn tokens(access: &str, refresh: &str) -> Result<Vec<u8>, Cause> {
    json(&Tokens {
        code: 0,
        access_token: access,
        access_expires_s: ACCESS_MS / 1000,
        refresh_token: refresh,
        refresh_expires_s: REFRESH_MS / 1000,
    })
}
