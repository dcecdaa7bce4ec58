//! Records of firmware and commands, as the store keeps them beside the registry's.
//!
//! | key | value |
//! |---|---|
//! | `of\0{firmware, 16 hexadecimal digits}` | layout, then a [`Firmware`] |
//! | `od\0{product}` | layout, then its [`Demands`]; absent where they are the default |
//! | `on\0firmware`, `on\0command`, `on\0log` | layout, the greatest number that was given (8 bytes) |
//! | `oq\0{product}\0{device}\0{command, 8 hexadecimal digits}` | layout, then a [`Command`] |
//! | `ol\0{product}\0{device}\0{log, 16 hexadecimal digits}` | layout, then a [`Kept`] log |
//! | `oc\0…`, `os\0…` | kept free for campaigns and for the states of their devices |
//!
//! Numbers are big-endian, texts have their length (2 bytes) in front, lists their count (1 byte), and what may be absent a byte that says whether it is there.
//!
//! What a record says is checked as if it came from outside: a name that is none or a list that is too long is damage.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use turnpike_authz::keys::PublicKey;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::x509::Fingerprint;
use turnpike_core::durable::Op;

use crate::catalog;
use crate::command::{self, Command, CommandId, Kind};
use crate::fields::{Reader, Writer};
use crate::firmware::{
    Contents, Declared, Demands, Digests, Firmware, HARDWARE_MAX, NOTE_BYTES_MAX, RunsOn, State, TargetRule,
    WHY_BYTES_MAX, Whole,
};
use crate::ids::FirmwareId;
use crate::logs::shelf::{self, Kept, LogId, Packing};
use crate::signature::{Keys, SIGNATURE_BYTES_MAX, Signed};
use crate::target::Hardware;

/// First byte of each value.
const LAYOUT: u8 = 1;

/// A change of what is durable here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Of the catalog.
    Catalog(catalog::Change),
    /// Of the book of commands.
    Command(command::Change),
    /// Of the shelf of logs.
    Log(shelf::Change),
}

impl From<shelf::Change> for Change {
    fn from(change: shelf::Change) -> Self {
        Self::Log(change)
    }
}

impl From<catalog::Change> for Change {
    fn from(change: catalog::Change) -> Self {
        Self::Catalog(change)
    }
}

impl From<command::Change> for Change {
    fn from(change: command::Change) -> Self {
        Self::Command(change)
    }
}

/// Why a record of the store can't be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version.
    #[error("a firmware record has layout {0}; this version reads layout {LAYOUT}")]
    Layout(u8),
    /// It isn't what such a record is.
    #[error("a firmware record of {0} is damaged")]
    Damaged(String),
}

/// Whether a record of the store is one of this crate's, and not one of the registry's or of somebody else's.
#[must_use]
pub fn is_record(key: &[u8]) -> bool {
    matches!(key, [b'o', b'f' | b'd' | b'n' | b'q' | b'l', 0, ..])
}

/// Whether it is one of commands or logs.
#[must_use]
pub fn is_command(key: &[u8]) -> bool {
    matches!(key, [b'o', b'q' | b'l', 0, ..]) || key == b"on\0command" || key == b"on\0log"
}

/// What the store is to be told.
#[must_use]
pub fn encode(change: &Change) -> Op {
    match change {
        Change::Catalog(catalog::Change::Put(firmware)) => {
            Op::RegistryPut(firmware_key(firmware.id), firmware_value(firmware))
        }
        Change::Catalog(catalog::Change::Delete(id)) => Op::RegistryDelete(firmware_key(*id)),
        Change::Catalog(catalog::Change::Given(id)) => given("firmware", id.0),
        Change::Catalog(catalog::Change::SetDemands(product, demands)) => {
            let key = key(format!("od\0{product}"));
            match demands.as_ref().filter(|demands| ***demands != Demands::default()) {
                Some(demands) => Op::RegistryPut(key, demands_value(demands)),
                None => Op::RegistryDelete(key),
            }
        }
        Change::Command(command::Change::Put(command)) => {
            let key = command_key(&command.product, &command.device, command.id);
            Op::RegistryPut(key, command_value(command))
        }
        Change::Command(command::Change::Forget(product, device, id)) => {
            Op::RegistryDelete(command_key(product, device, *id))
        }
        Change::Command(command::Change::Given(id)) => given("command", id.0.into()),
        Change::Log(shelf::Change::Put(kept)) => {
            Op::RegistryPut(log_key(&kept.product, &kept.device, kept.id), log_value(kept))
        }
        Change::Log(shelf::Change::Forget(product, device, id)) => Op::RegistryDelete(log_key(product, device, *id)),
        Change::Log(shelf::Change::Given(id)) => given("log", id.0),
    }
}

/// The change that made a record.
///
/// # Errors
/// [`RecordError`].
pub fn decode(key: &[u8], value: &[u8]) -> Result<Change, RecordError> {
    let text = std::str::from_utf8(key).map_err(|_| RecordError::Damaged("an unreadable key".to_owned()))?;
    let parts: Vec<_> = text.split('\0').take(5).collect();
    // Without the device's name: this ends up in a log.
    let damaged = || RecordError::Damaged(format!("kind {:?} and {:?}", parts.first(), parts.get(1)));
    let (&layout, rest) = value.split_first().ok_or_else(damaged)?;
    if layout != LAYOUT {
        return Err(RecordError::Layout(layout));
    }
    read(&parts, &mut Reader(rest)).ok_or_else(damaged)
}

fn read(parts: &[&str], from: &mut Reader<'_>) -> Option<Change> {
    let change = match *parts {
        ["of", id] => catalog::Change::Put(Arc::new(firmware(FirmwareId(number(id, 16)?), from)?)).into(),
        ["od", product] => {
            let demands = demands(from).filter(|demands| *demands != Demands::default())?;
            catalog::Change::SetDemands(ProductKey::parse(product).ok()?, Some(Arc::new(demands))).into()
        }
        ["on", "firmware"] => catalog::Change::Given(FirmwareId(from.u64()?)).into(),
        ["on", "command"] => command::Change::Given(CommandId(u32::try_from(from.u64()?).ok()?)).into(),
        ["on", "log"] => shelf::Change::Given(LogId(from.u64()?)).into(),
        ["ol", product, device, id] => {
            let device = (ProductKey::parse(product).ok()?, DeviceName::parse(device).ok()?);
            shelf::Change::Put(Box::new(log(LogId(number(id, 16)?), device, from)?)).into()
        }
        ["oq", product, device, id] => {
            let id = CommandId(u32::try_from(number(id, 8)?).ok()?);
            let device = (ProductKey::parse(product).ok()?, DeviceName::parse(device).ok()?);
            command::Change::Put(Box::new(command(id, device, from)?)).into()
        }
        _ => return None,
    };
    from.end()?;
    Some(change)
}

fn key(text: String) -> Box<[u8]> {
    text.into_bytes().into()
}

fn firmware_key(id: FirmwareId) -> Box<[u8]> {
    key(format!("of\0{:016x}", id.0))
}

fn command_key(product: &ProductKey, device: &DeviceName, id: CommandId) -> Box<[u8]> {
    key(format!("oq\0{product}\0{device}\0{:08x}", id.0))
}

fn log_key(product: &ProductKey, device: &DeviceName, id: LogId) -> Box<[u8]> {
    key(format!("ol\0{product}\0{device}\0{:016x}", id.0))
}

fn given(what: &str, number: u64) -> Op {
    Op::RegistryPut(key(format!("on\0{what}")), Writer::default().u8(LAYOUT).u64(number).done())
}

/// As it is written: of so many digits, and none of them upper case.
fn number(text: &str, digits: usize) -> Option<u64> {
    let is_written_so = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_written_so.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn parsed<T: FromStr>(from: &mut Reader<'_>) -> Option<T> {
    from.text()?.parse().ok()
}

fn limited<'a>(from: &mut Reader<'a>, most: usize) -> Option<&'a str> {
    from.text().filter(|text| text.len() <= most)
}

/// A list in ascending order without repetitions, as a set writes it.
fn hardware(from: &mut Reader<'_>) -> Option<BTreeSet<Hardware>> {
    let list: Vec<Hardware> = from.list(parsed)?;
    let is_set = list.is_sorted_by(|one, next| one < next) && list.len() <= HARDWARE_MAX;
    is_set.then(|| list.into_iter().collect())
}

fn hardware_list(to: Writer, hardware: &BTreeSet<Hardware>) -> Writer {
    to.list(hardware.iter(), |to, hardware| to.text(hardware.as_str()))
}

fn firmware_value(firmware: &Firmware) -> Box<[u8]> {
    let Firmware { id: _, product, target, version, runs_on, release, base, note, created_at_s, state } = firmware;
    let to = Writer::default().u8(LAYOUT).text(product.as_str()).text(target.as_str()).text(version.as_str());
    let to = match runs_on {
        RunsOn::Any => to.u8(0),
        RunsOn::Listed(listed) => hardware_list(to.u8(1), listed),
    };
    let to = to.u64(*release).option(base.as_ref(), |to, base| to.text(base.as_str()));
    let to = to.text(note).u64(*created_at_s);
    let to = match state {
        State::Uploading(Declared { bytes, sha256, md5, crc32 }) => to
            .u8(0)
            .option(*bytes, Writer::u64)
            .option(*sha256, |to, sha256| to.raw(&sha256))
            .option(*md5, |to, md5| to.raw(&md5))
            .option(*crc32, Writer::u32),
        State::Ready(contents) => contents_value(to.u8(1), contents),
        State::Refused { why } => to.u8(2).text(why),
        State::Withdrawn(contents) => contents_value(to.u8(3), contents),
    };
    to.done()
}

fn firmware(id: FirmwareId, from: &mut Reader<'_>) -> Option<Firmware> {
    Some(Firmware {
        id,
        product: ProductKey::parse(from.text()?).ok()?,
        target: parsed(from)?,
        version: parsed(from)?,
        runs_on: match from.u8()? {
            0 => RunsOn::Any,
            1 => RunsOn::listed(hardware(from)?).ok()?,
            _ => return None,
        },
        release: from.u64()?,
        base: from.option(parsed)?,
        note: limited(from, NOTE_BYTES_MAX)?.into(),
        created_at_s: from.u64()?,
        state: match from.u8()? {
            0 => State::Uploading(Declared {
                bytes: from.option(Reader::u64)?,
                sha256: from.option(Reader::array)?,
                md5: from.option(Reader::array)?,
                crc32: from.option(Reader::u32)?,
            }),
            1 => State::Ready(contents(from)?),
            2 => State::Refused { why: limited(from, WHY_BYTES_MAX)?.into() },
            3 => State::Withdrawn(contents(from)?),
            _ => return None,
        },
    })
}

fn contents_value(to: Writer, contents: &Contents) -> Writer {
    let Contents { whole: Whole { bytes, digests: Digests { sha256, md5, crc32 } }, signed } = contents;
    let to = to.u64(*bytes).raw(sha256).raw(md5).u32(*crc32);
    to.option(signed.as_ref(), |to, signed| to.raw(signed.key.as_bytes()).bytes(&signed.signature))
}

fn contents(from: &mut Reader<'_>) -> Option<Contents> {
    let bytes = from.u64()?;
    let digests = Digests { sha256: from.array()?, md5: from.array()?, crc32: from.u32()? };
    let signed = from.option(|from| {
        let key = Fingerprint::from_bytes(from.array()?);
        let signature = from.bytes().filter(|signature| signature.len() <= SIGNATURE_BYTES_MAX)?;
        Some(Signed { signature: signature.into(), key })
    })?;
    Some(Contents { whole: Whole { bytes, digests }, signed })
}

fn demands_value(demands: &Demands) -> Box<[u8]> {
    let Demands { signature_required, keys, targets } = demands;
    let to = Writer::default().u8(LAYOUT).u8((*signature_required).into());
    let to = to.list(keys.as_slice().iter(), |to, key| to.bytes(key.as_der()));
    let to = to.list(targets.iter(), |to, (target, TargetRule { release_min, hardware })| {
        hardware_list(to.text(target.as_str()).u64(*release_min), hardware)
    });
    to.done()
}

fn demands(from: &mut Reader<'_>) -> Option<Demands> {
    let signature_required = match from.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let keys = from.list(|from| PublicKey::from_der(from.bytes()?).ok())?;
    let rule = |from: &mut Reader<'_>| {
        Some((parsed(from)?, TargetRule { release_min: from.u64()?, hardware: hardware(from)? }))
    };
    let targets = from.list(rule)?;
    let is_set = targets.is_sorted_by(|(one, _), (next, _)| one < next);
    let targets: BTreeMap<_, _> = is_set.then(|| targets.into_iter().collect())?;
    let demands = Demands { signature_required, keys: Keys::new(keys).ok()?, targets };
    demands.check().is_ok().then_some(demands)
}

fn command_value(command: &Command) -> Box<[u8]> {
    let Command { id: _, product: _, device: _, kind, arguments, asked_at_ms, deadline_ms, .. } = command;
    let Command { state, state_at_ms, reason, sends, sent_at_ms, late, .. } = command;
    let to = Writer::default().u8(LAYOUT).text(kind.as_str()).text(arguments).u64(*asked_at_ms).u64(*deadline_ms);
    let to = to.text(state.as_str()).u64(*state_at_ms).text(reason).u8(*sends).option(*sent_at_ms, Writer::u64);
    to.option(*late, |to, late| to.text(late.as_str())).done()
}

fn state_of_command(from: &mut Reader<'_>) -> Option<command::State> {
    let word = from.text()?;
    command::State::ALL.into_iter().find(|state| state.as_str() == word)
}

fn command(id: CommandId, (product, device): (ProductKey, DeviceName), from: &mut Reader<'_>) -> Option<Command> {
    let kind: Kind = parsed(from)?;
    let arguments = limited(from, command::ARGUMENTS_BYTES_MAX)?;
    serde_json::from_str::<serde::de::IgnoredAny>(arguments).ok()?;
    Some(Command {
        id,
        product,
        device,
        kind,
        arguments: arguments.into(),
        asked_at_ms: from.u64()?,
        deadline_ms: from.u64()?,
        state: state_of_command(from)?,
        state_at_ms: from.u64()?,
        reason: limited(from, command::REASON_BYTES_MAX)?.into(),
        sends: from.u8()?,
        sent_at_ms: from.option(Reader::u64)?,
        late: from.option(state_of_command)?,
    })
}

fn log_value(log: &Kept) -> Box<[u8]> {
    let Kept { id: _, product: _, device: _, number, command, bytes, crc32, packing, unpacked_bytes, at_ms } = log;
    let to = Writer::default().u8(LAYOUT).u32(*number).option(*command, Writer::u32).u64(*bytes).u32(*crc32);
    let to = to.option(*packing, |to, packing| to.text(packing.as_str()));
    to.u64(*unpacked_bytes).u64(*at_ms).done()
}

fn log(id: LogId, (product, device): (ProductKey, DeviceName), from: &mut Reader<'_>) -> Option<Kept> {
    Some(Kept {
        id,
        product,
        device,
        number: from.u32()?,
        command: from.option(Reader::u32)?,
        bytes: from.u64()?,
        crc32: from.u32()?,
        packing: from.option(|from| {
            let word = from.text()?;
            Packing::ALL.into_iter().find(|packing| packing.as_str() == word)
        })?,
        unpacked_bytes: from.u64()?,
        at_ms: from.u64()?,
    })
}

#[cfg(test)]
mod tests;
