//! Records of apps, users, bindings, services and tenants, as the store keeps them, beside the registry's.
//!
//! | key | value |
//! |---|---|
//! | `ua\0{app}` | layout, flags, created (seconds, 8 bytes), users at most, leeway, tenant, sealed secret, issuer, audience, kind and text of the keys' source, products |
//! | `uu\0{app}\0{user}` | layout, flags, created (seconds, 4 bytes) |
//! | `ub\0{product}\0{device}\0{app}\0{user}` | layout, flags, role, expiry (seconds, 4 bytes; 0 for none) |
//! | `uc\0{SHA-256 of a session code, hexadecimal}` | layout, expiry (seconds, 8 bytes), app, user |
//! | `ul\0{app}\0{user}` | layout, the last log-ins: flags, seconds, address, client id |
//! | `ue\0{number, 16 hexadecimal digits}` | layout, an erasure: app, user (until it is done), masked id, who asked, times, failures, what was left, counts |
//! | `up\0{product}\0{device}` | layout, passcode and QR code: whether there is one, its HMAC, expiry (seconds, 8 bytes) |
//! | `us\0{access key}` | layout, flags, created, tenant, sealed secret, networks, grants |
//! | `ut\0{product}` | layout, tenant; absent where it is the default one |
//!
//! A secret is sealed for the key of its record, so it opens in no other.

use turnpike_core::durable::Op;

use super::apps::{App, KeySource, Products, TokenRules};
use super::bindings::{Binding, DeviceKey, Role, User};
use super::change::Change;
use super::codes::{Code, CodeHash};
use super::erasure::{Counts, Erasure, ErasureNumber, Kind};
use super::fields::{Reader, Writer};
use super::ids::{AccessKey, AppId, TenantId, UserId, UserKey};
use super::log_ins::is_record;
use super::proofs::{Open, Stored};
use super::services::{Grant, Rights, Service};
use crate::names::{DeviceName, ProductKey};
use crate::record::RecordError;
use crate::secret::Sealed;

/// First byte of each value.
const LAYOUT: u8 = 1;

const ENABLED: u8 = 1;
const HS256: u8 = 2;
const ALL_PRODUCTS: u8 = 4;
const FROZEN: u8 = 1;
const BY_ADMIN: u8 = 1;

/// Whether a record of the store is one of these.
pub(super) fn is_ours(key: &[u8]) -> bool {
    matches!(key, [b'u', _, 0, ..])
}

/// Whom an app's secret is sealed for.
pub(super) fn app_owner(app: &str) -> String {
    format!("ua\0{app}")
}

/// Whom a service's secret is sealed for.
pub(super) fn service_owner(key: &str) -> String {
    format!("us\0{key}")
}

pub(super) fn encode(change: &Change) -> Op {
    match change {
        Change::PutApp(id, app) => put(app_owner(id.as_str()), app_value(app)),
        Change::DeleteApp(id) => delete(app_owner(id.as_str())),
        Change::PutUser(key, user) => {
            let flags = if user.frozen { FROZEN } else { 0 };
            put(user_key(key), Writer::default().u8(LAYOUT).u8(flags).u32(user.created_at_s))
        }
        Change::DeleteUser(key) => delete(user_key(key)),
        Change::Bind(device, user, binding) => {
            let flags = if binding.by_admin { BY_ADMIN } else { 0 };
            let value = Writer::default().u8(LAYOUT).u8(flags).u8(binding.role as u8);
            put(binding_key(device, user), value.u32(binding.expires_at_s.unwrap_or(0)))
        }
        Change::Unbind(device, user) => delete(binding_key(device, user)),
        Change::PutCode(hash, code) => {
            let value = Writer::default().u8(LAYOUT).u64(code.expires_at_s).bytes(code.user.app.as_str().as_bytes());
            put(code_key(*hash), value.bytes(code.user.user.as_str().as_bytes()))
        }
        Change::DeleteCode(hash, _) => delete(code_key(*hash)),
        Change::PutLogIns(user, record) => {
            let value = [&[LAYOUT], &record[..]].concat();
            Op::RegistryPut(log_ins_key(user).into_bytes().into(), value.into())
        }
        Change::DeleteLogIns(user) => delete(log_ins_key(user)),
        Change::PutService(key, service) => put(service_owner(key.as_str()), service_value(service)),
        Change::DeleteService(key) => delete(service_owner(key.as_str())),
        Change::SetTenant(product, tenant) if *tenant == TenantId::default() => delete(tenant_key(product)),
        Change::SetTenant(product, tenant) => {
            put(tenant_key(product), Writer::default().u8(LAYOUT).bytes(tenant.as_str().as_bytes()))
        }
        Change::PutProofs(device, stored) => put(proofs_key(device), proofs_value(stored)),
        Change::DeleteProofs(device) => delete(proofs_key(device)),
        Change::PutErasure(number, erasure) => put(erasure_key(*number), erasure_value(erasure)),
        Change::DeleteErasure(number) => delete(erasure_key(*number)),
    }
}

fn put(key: String, value: Writer) -> Op {
    Op::RegistryPut(key.into_bytes().into(), value.done())
}

fn delete(key: String) -> Op {
    Op::RegistryDelete(key.into_bytes().into())
}

fn user_key(key: &UserKey) -> String {
    format!("uu\0{}\0{}", key.app, key.user)
}

fn binding_key(device: &DeviceKey, user: &UserKey) -> String {
    format!("ub\0{}\0{}\0{}\0{}", device.product, device.device, user.app, user.user)
}

fn code_key(hash: CodeHash) -> String {
    format!("uc\0{}", hex::encode(hash.0))
}

fn log_ins_key(key: &UserKey) -> String {
    format!("ul\0{}\0{}", key.app, key.user)
}

fn tenant_key(product: &ProductKey) -> String {
    format!("ut\0{product}")
}

fn proofs_key(device: &DeviceKey) -> String {
    format!("up\0{}\0{}", device.product, device.device)
}

fn proofs_value(stored: &Stored) -> Writer {
    stored.iter().fold(Writer::default().u8(LAYOUT), |writer, open| match open {
        Some(open) => writer.u8(1).bytes(&open.hash).u64(open.expires_at_s),
        None => writer.u8(0),
    })
}

fn read_proof(value: &mut Reader<'_>) -> Option<Option<Open>> {
    match value.u8()? {
        0 => Some(None),
        1 => Some(Some(Open { hash: value.bytes()?.try_into().ok()?, expires_at_s: value.u64()? })),
        _ => None,
    }
}

fn erasure_key(number: ErasureNumber) -> String {
    format!("ue\0{number:016x}")
}

fn erasure_value(erasure: &Erasure) -> Writer {
    let left = erasure.left.map_or(0, |kind| kind as u8 + 1);
    Writer::default()
        .u8(LAYOUT)
        .bytes(erasure.app.as_str().as_bytes())
        .option(erasure.user.as_ref().map(UserId::as_str))
        .bytes(erasure.masked.as_bytes())
        .bytes(erasure.by.as_bytes())
        .u64(erasure.asked_at_s)
        .u64(erasure.begins_at_s)
        .u64(erasure.due_at_s)
        .u32(erasure.failures)
        .u8(left)
        .u64(erasure.done_at_s.unwrap_or(0))
        .list(erasure.erased.numbers().iter(), |writer, count| writer.u64(*count))
}

fn read_erasure(value: &mut Reader<'_>) -> Option<Erasure> {
    let app = AppId::parse(value.text()?).ok()?;
    let user = match value.option()? {
        Some(user) => Some(UserId::parse(&user).ok()?),
        None => None,
    };
    let (masked, by) = (value.text()?.into(), value.text()?.into());
    let (asked_at_s, begins_at_s, due_at_s) = (value.u64()?, value.u64()?, value.u64()?);
    let failures = value.u32()?;
    let left = match value.u8()? {
        0 => None,
        left => Some(*Kind::ALL.get(usize::from(left) - 1)?),
    };
    let done_at_s = Some(value.u64()?).filter(|at_s| *at_s != 0);
    let erased = Counts::from_numbers(&value.list(Reader::u64)?)?;
    // Open with a user, or done without.
    (user.is_some() != done_at_s.is_some()).then_some(())?;
    Some(Erasure { app, user, masked, by, asked_at_s, begins_at_s, due_at_s, failures, left, done_at_s, erased })
}

fn app_value(app: &App) -> Writer {
    let TokenRules { hs256, keys, issuer, audience, leeway_s } = &app.tokens;
    let mut flags = if app.enabled { ENABLED } else { 0 } | if *hs256 { HS256 } else { 0 };
    let products: Vec<&ProductKey> = match &app.products {
        Products::All => {
            flags |= ALL_PRODUCTS;
            Vec::new()
        }
        Products::Only(products) => products.iter().collect(),
    };
    let (kind, text) = match keys {
        KeySource::None => (0, ""),
        KeySource::Document(text) => (1, &**text),
        KeySource::Url(text) => (2, &**text),
        KeySource::File(text) => (3, &**text),
    };
    Writer::default()
        .u8(LAYOUT)
        .u8(flags)
        .u64(app.created_at_s)
        .u32(app.users_max)
        .u16(*leeway_s)
        .bytes(app.tenant.as_str().as_bytes())
        .bytes(app.secret.as_bytes())
        .option(issuer.as_deref())
        .option(audience.as_deref())
        .u8(kind)
        .bytes(text.as_bytes())
        .list(products.into_iter(), |writer, product| writer.bytes(product.as_str().as_bytes()))
}

fn read_app(value: &mut Reader<'_>) -> Option<App> {
    let flags = value.u8().filter(|flags| flags & !(ENABLED | HS256 | ALL_PRODUCTS) == 0)?;
    let (created_at_s, users_max, leeway_s) = (value.u64()?, value.u32()?, value.u16()?);
    let tenant = TenantId::parse(value.text()?).ok()?;
    let secret = Sealed::from_bytes(value.bytes()?);
    let (issuer, audience) = (value.option()?, value.option()?);
    let (kind, text) = (value.u8()?, Box::<str>::from(value.text()?));
    let keys = match kind {
        0 if text.is_empty() => KeySource::None,
        1 => KeySource::Document(text),
        2 => KeySource::Url(text),
        3 => KeySource::File(text),
        _ => return None,
    };
    let products = value.list(|value| ProductKey::parse(value.text()?).ok())?;
    let products = match (flags & ALL_PRODUCTS != 0, products.is_empty()) {
        (true, true) => Products::All,
        (true, false) => return None,
        (false, _) => Products::Only(products.into_iter().collect()),
    };
    let tokens = TokenRules { hs256: flags & HS256 != 0, keys, issuer, audience, leeway_s };
    Some(App { tenant, secret, enabled: flags & ENABLED != 0, created_at_s, products, tokens, users_max })
}

fn service_value(service: &Service) -> Writer {
    Writer::default()
        .u8(LAYOUT)
        .u8(if service.enabled { ENABLED } else { 0 })
        .u64(service.created_at_s)
        .bytes(service.tenant.as_str().as_bytes())
        .bytes(service.secret.as_bytes())
        .list(service.networks.iter(), |writer, network| writer.bytes(network.to_string().as_bytes()))
        .list(service.grants.iter(), |writer, grant| {
            writer.option(grant.product.as_ref().map(ProductKey::as_str)).u8(grant.rights.bits())
        })
}

fn read_service(value: &mut Reader<'_>) -> Option<Service> {
    let flags = value.u8().filter(|flags| flags & !ENABLED == 0)?;
    let created_at_s = value.u64()?;
    let tenant = TenantId::parse(value.text()?).ok()?;
    let secret = Sealed::from_bytes(value.bytes()?);
    let networks = value.list(|value| value.text()?.parse().ok())?;
    let grants = value.list(|value| {
        let product = match value.option()? {
            Some(product) => Some(ProductKey::parse(&product).ok()?),
            None => None,
        };
        Some(Grant { product, rights: Rights::from_bits(value.u8()?)? })
    })?;
    Some(Service { tenant, secret, enabled: flags & ENABLED != 0, created_at_s, networks, grants })
}

fn read_user(value: &mut Reader<'_>) -> Option<User> {
    let flags = value.u8().filter(|flags| flags & !FROZEN == 0)?;
    Some(User { frozen: flags & FROZEN != 0, created_at_s: value.u32()? })
}

fn read_binding(value: &mut Reader<'_>) -> Option<Binding> {
    let flags = value.u8().filter(|flags| flags & !BY_ADMIN == 0)?;
    let role = Role::from_bits(value.u8()?)?;
    let expires_at_s = Some(value.u32()?).filter(|at_s| *at_s != 0);
    Some(Binding { role, expires_at_s, by_admin: flags & BY_ADMIN != 0 })
}

/// The change that made a record.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Change, RecordError> {
    let text = std::str::from_utf8(key).map_err(|_| RecordError::Damaged("an unreadable key".to_owned()))?;
    let kind = text.split('\0').next().unwrap_or("");
    // Without what follows: this ends up in a log.
    let damaged = || RecordError::Damaged(format!("kind {kind:?}"));
    match value.split_first() {
        Some((&LAYOUT, rest)) => read(text, &mut Reader(rest)).ok_or_else(damaged),
        Some((&layout, _)) => Err(RecordError::Layout(layout)),
        None => Err(damaged()),
    }
}

fn read(key: &str, value: &mut Reader<'_>) -> Option<Change> {
    let mut parts = key.split('\0');
    let kind = parts.next()?;
    let mut part = || parts.next();
    let change = match kind {
        "ua" => Change::PutApp(AppId::parse(part()?).ok()?, read_app(value)?),
        "uu" => Change::PutUser(UserKey::parse(part()?, part()?).ok()?, read_user(value)?),
        "ub" => {
            let (product, device) = (ProductKey::parse(part()?).ok()?, DeviceName::parse(part()?).ok()?);
            let user = UserKey::parse(part()?, part()?).ok()?;
            Change::Bind(DeviceKey { product, device }, user, read_binding(value)?)
        }
        "uc" => {
            let key = part()?;
            let mut hash = CodeHash([0; 32]);
            hex::decode_to_slice(key, &mut hash.0).ok()?;
            let expires_at_s = value.u64()?;
            let user = UserKey::parse(value.text()?, value.text()?).ok()?;
            let is_lower = key.bytes().all(|byte| !byte.is_ascii_uppercase());
            is_lower.then_some(Change::PutCode(hash, Code { user, expires_at_s }))?
        }
        "ul" => {
            let record = std::mem::take(&mut value.0);
            let user = UserKey::parse(part()?, part()?).ok()?;
            is_record(record).then(|| Change::PutLogIns(user, record.into()))?
        }
        "ue" => {
            let key = part()?;
            let number = ErasureNumber::from_str_radix(key, 16).ok()?;
            (key == format!("{number:016x}")).then_some(())?;
            Change::PutErasure(number, Box::new(read_erasure(value)?))
        }
        "up" => {
            let (product, device) = (ProductKey::parse(part()?).ok()?, DeviceName::parse(part()?).ok()?);
            let stored = [read_proof(value)?, read_proof(value)?];
            stored.iter().any(Option::is_some).then_some(())?;
            Change::PutProofs(DeviceKey { product, device }, stored)
        }
        "us" => Change::PutService(AccessKey::parse(part()?).ok()?, read_service(value)?),
        "ut" => {
            let tenant = TenantId::parse(value.text()?).ok().filter(|tenant| *tenant != TenantId::default());
            Change::SetTenant(ProductKey::parse(part()?).ok()?, tenant?)
        }
        _ => return None,
    };
    value.end()?;
    part().is_none().then_some(change)
}

#[cfg(test)]
mod tests;
