//! Records of campaigns and of what devices have said, beside those of [`turnpike_ota::record`].
//!
//! | key | value |
//! |---|---|
//! | `oc\0{campaign, 16 hexadecimal digits}` | layout, then JSON: what was asked for, the salt, how far it has come |
//! | `os\0{campaign}\0{device}` | layout, then the standing (8 bytes), how often it was tried again, and the patch that it was offered (8 bytes), if it was one |
//! | `og\0campaign` | layout, then the greatest number of a campaign that was given (8 bytes); where one was deleted |
//! | `ox\0{campaign}\0{device}` | layout: the device came to match the campaign after its groups were drawn, and isn't in it |
//! | `ov\0{product}\0{device}` | layout, then JSON: versions, hardware and zone as the device reported them last |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use turnpike_authz::registry::RecordError;
use turnpike_core::durable::Op;
use turnpike_ota::campaign::{Approval, Life, State, Why};
use turnpike_ota::ids::{CampaignId, FirmwareId};
use turnpike_ota::machine::Standing;
use turnpike_ota::schedule::Recorded;
use turnpike_ota::target::{Hardware, Target, Version};
use turnpike_ota::zone::Zone;

use super::settings::CampaignRequest;

/// First byte of each value.
const LAYOUT: u8 = 1;

/// How a device is told of firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Speaks {
    /// On `dev/…/ota/offer`.
    #[default]
    Native,
    /// On `/ota/device/upgrade/…`.
    Aliyun,
    /// On `ser2cli_res/…`, that it may check.
    Gizwits,
}

/// What a device has said of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Reported {
    pub(super) versions: BTreeMap<Target, Version>,
    pub(super) hardware: Option<Hardware>,
    pub(super) zone: Option<Zone>,
    pub(super) speaks: Speaks,
}

/// A campaign, but for its devices.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) request: CampaignRequest,
    pub(super) salt: u64,
}

/// A record that was read back.
#[derive(Debug)]
pub(super) enum Read {
    Campaign(CampaignId, Box<Wanted>, Life),
    /// With the patch that the device was offered, if it was one.
    Standing(CampaignId, Recorded, Option<FirmwareId>),
    Given(CampaignId),
    LeftOut(CampaignId, Box<str>),
    Reported(Box<str>, Box<str>, Reported),
}

#[derive(Serialize, Deserialize)]
struct WrittenReported {
    versions: BTreeMap<String, String>,
    hardware: Option<String>,
    zone: Option<i16>,
    aliyun: bool,
    #[serde(default)]
    gizwits: bool,
}

#[derive(Serialize, Deserialize)]
struct WrittenCampaign {
    request: CampaignRequest,
    salt: u64,
    state: WrittenState,
    since_s: u64,
    created_at_s: u64,
    approval: Option<(String, u64)>,
    bounds: Vec<u64>,
    begun: u8,
    #[serde(default)]
    retrying: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenState {
    AwaitingApproval,
    Scheduled,
    Running,
    Paused,
    Stopping(WrittenWhy),
    Stopped(WrittenWhy),
    Completed,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenWhy {
    ByHand,
    Errors(u8),
    Ended,
}

impl From<Why> for WrittenWhy {
    fn from(why: Why) -> Self {
        match why {
            Why::ByHand => Self::ByHand,
            Why::Errors { group } => Self::Errors(group),
            Why::Ended => Self::Ended,
        }
    }
}

impl From<WrittenWhy> for Why {
    fn from(why: WrittenWhy) -> Self {
        match why {
            WrittenWhy::ByHand => Self::ByHand,
            WrittenWhy::Errors(group) => Self::Errors { group },
            WrittenWhy::Ended => Self::Ended,
        }
    }
}

/// Drafts aren't kept: a campaign is submitted as soon as it is made.
fn written(state: State) -> WrittenState {
    match state {
        State::Draft | State::AwaitingApproval => WrittenState::AwaitingApproval,
        State::Scheduled => WrittenState::Scheduled,
        State::Running => WrittenState::Running,
        State::Paused => WrittenState::Paused,
        State::Stopping(why) => WrittenState::Stopping(why.into()),
        State::Stopped(why) => WrittenState::Stopped(why.into()),
        State::Completed => WrittenState::Completed,
    }
}

fn read_state(state: WrittenState) -> State {
    match state {
        WrittenState::AwaitingApproval => State::AwaitingApproval,
        WrittenState::Scheduled => State::Scheduled,
        WrittenState::Running => State::Running,
        WrittenState::Paused => State::Paused,
        WrittenState::Stopping(why) => State::Stopping(why.into()),
        WrittenState::Stopped(why) => State::Stopped(why.into()),
        WrittenState::Completed => State::Completed,
    }
}

/// Whether a record is one of these.
pub(super) fn is_ours(key: &[u8]) -> bool {
    matches!(key, [b'o', b'c' | b'g' | b's' | b'v' | b'x', 0, ..])
}

fn json(value: &impl Serialize) -> Box<[u8]> {
    let mut bytes = vec![LAYOUT];
    serde_json::to_writer(&mut bytes, value).expect("texts and numbers have a JSON");
    bytes.into()
}

pub(super) fn campaign_key(id: CampaignId) -> Box<[u8]> {
    format!("oc\0{:016x}", id.0).into_bytes().into()
}

pub(super) fn standing_key(id: CampaignId, device: &str) -> Box<[u8]> {
    format!("os\0{:016x}\0{device}", id.0).into_bytes().into()
}

fn left_out_key(id: CampaignId, device: &str) -> Box<[u8]> {
    format!("ox\0{:016x}\0{device}", id.0).into_bytes().into()
}

fn reported_key(product: &str, device: &str) -> Box<[u8]> {
    format!("ov\0{product}\0{device}").into_bytes().into()
}

pub(super) fn put_campaign(id: CampaignId, wanted: &Wanted, life: &Life) -> Op {
    let record = WrittenCampaign {
        request: wanted.request.clone(),
        salt: wanted.salt,
        state: written(life.state),
        since_s: life.since_s,
        created_at_s: life.created_at_s,
        approval: life.approval.as_ref().map(|approval| (approval.by.to_string(), approval.at_s)),
        bounds: life.bounds.clone(),
        begun: life.begun,
        retrying: life.retrying,
    };
    Op::RegistryPut(campaign_key(id), json(&record))
}

pub(super) fn put_given(id: CampaignId) -> Op {
    let value = [&[LAYOUT][..], &id.0.to_be_bytes()].concat();
    Op::RegistryPut(b"og\0campaign"[..].into(), value.into())
}

pub(super) fn put_standing(
    id: CampaignId,
    device: &str,
    standing: Standing,
    retries: u8,
    patch: Option<FirmwareId>,
) -> Op {
    let mut value = vec![LAYOUT];
    value.extend(standing.to_bytes());
    value.push(retries);
    value.extend(patch.into_iter().flat_map(|patch| patch.0.to_be_bytes()));
    Op::RegistryPut(standing_key(id, device), value.into())
}

pub(super) fn put_left_out(id: CampaignId, device: &str) -> Op {
    Op::RegistryPut(left_out_key(id, device), Box::from([LAYOUT]))
}

pub(super) fn delete_left_out(id: CampaignId, device: &str) -> Op {
    Op::RegistryDelete(left_out_key(id, device))
}

pub(super) fn put_reported(product: &str, device: &str, reported: &Reported) -> Op {
    let Reported { versions, hardware, zone, speaks } = reported;
    let record = WrittenReported {
        versions: versions.iter().map(|(target, version)| (target.to_string(), version.to_string())).collect(),
        hardware: hardware.as_ref().map(ToString::to_string),
        zone: zone.map(Zone::minutes),
        aliyun: *speaks == Speaks::Aliyun,
        gizwits: *speaks == Speaks::Gizwits,
    };
    Op::RegistryPut(reported_key(product, device), json(&record))
}

pub(super) fn delete_reported(product: &str, device: &str) -> Op {
    Op::RegistryDelete(reported_key(product, device))
}

/// Reads a record.
pub(super) fn read(key: &[u8], value: &[u8]) -> Result<Read, RecordError> {
    let damaged = || RecordError::Damaged("firmware".to_owned());
    match value.split_first() {
        Some((&LAYOUT, rest)) => parsed(key, rest).ok_or_else(damaged),
        Some((&layout, _)) => Err(RecordError::Layout(layout)),
        None => Err(damaged()),
    }
}

fn parsed(key: &[u8], value: &[u8]) -> Option<Read> {
    let key = std::str::from_utf8(key).ok()?;
    let id = |text| u64::from_str_radix(text, 16).ok().map(CampaignId);
    match *key.split('\0').take(4).collect::<Vec<_>>() {
        ["oc", campaign] => {
            let record: WrittenCampaign = serde_json::from_slice(value).ok()?;
            let life = Life {
                state: read_state(record.state),
                since_s: record.since_s,
                created_at_s: record.created_at_s,
                approval: record.approval.map(|(by, at_s)| Approval { by: by.into(), at_s }),
                bounds: record.bounds,
                begun: record.begun,
                retrying: record.retrying,
            };
            let wanted = Wanted { request: record.request, salt: record.salt };
            Some(Read::Campaign(id(campaign)?, Box::new(wanted), life))
        }
        ["og", "campaign"] => Some(Read::Given(CampaignId(u64::from_be_bytes(value.try_into().ok()?)))),
        ["os", campaign, device] => {
            let (standing, rest) = value.split_first_chunk::<8>()?;
            let (&retries, patch) = rest.split_first()?;
            let patch = match patch {
                [] => None,
                patch => Some(FirmwareId(u64::from_be_bytes(patch.try_into().ok()?))),
            };
            let recorded = Recorded { device: device.into(), standing: Standing::from_bytes(*standing)?, retries };
            Some(Read::Standing(id(campaign)?, recorded, patch))
        }
        ["ox", campaign, device] if value.is_empty() => Some(Read::LeftOut(id(campaign)?, device.into())),
        ["ov", product, device] => {
            let record: WrittenReported = serde_json::from_slice(value).ok()?;
            let versions =
                record.versions.iter().map(|(target, version)| Some((target.parse().ok()?, version.parse().ok()?)));
            let reported = Reported {
                versions: versions.collect::<Option<_>>()?,
                hardware: record
                    .hardware
                    .map(|hardware| hardware.parse().ok())
                    .map_or(Some(None), |read| read.map(Some))?,
                zone: record.zone.map(Zone::from_minutes).transpose().ok()?,
                speaks: match (record.aliyun, record.gizwits) {
                    (true, _) => Speaks::Aliyun,
                    (false, true) => Speaks::Gizwits,
                    (false, false) => Speaks::Native,
                },
            };
            Some(Read::Reported(product.into(), device.into(), reported))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use turnpike_ota::machine::{Reason, State as Device};

    use super::*;

    fn read_back(op: &Op) -> Read {
        let Op::RegistryPut(key, value) = op else { panic!("a put") };
        assert!(is_ours(key));
        read(key, value).expect("readable")
    }

    #[test]
    fn what_is_written_is_read_back() {
        let standing = Standing { state: Device::Downloading(7), reason: Reason(3), since_s: 5 };
        for patch in [None, Some(FirmwareId(5))] {
            let op = put_standing(CampaignId(9), "one", standing, 2, patch);
            let Read::Standing(id, recorded, read) = read_back(&op) else { panic!("a standing") };
            assert_eq!((id, recorded), (CampaignId(9), Recorded { device: "one".into(), standing, retries: 2 }));
            assert_eq!(read, patch);
        }

        let Read::LeftOut(id, device) = read_back(&put_left_out(CampaignId(9), "one")) else { panic!("left out") };
        assert_eq!((id, &*device), (CampaignId(9), "one"));

        let Read::Given(given) = read_back(&put_given(CampaignId(7))) else { panic!("a number") };
        assert_eq!(given, CampaignId(7));

        let mut versions: BTreeMap<Target, Version> =
            [("mcu".parse().expect("a target"), "1.0".parse().expect("a version"))].into();
        let zone = Zone::from_minutes(480).ok();
        for speaks in [Speaks::Native, Speaks::Aliyun, Speaks::Gizwits] {
            let said = Reported { versions, hardware: "A1".parse().ok(), zone, speaks };
            let Read::Reported(product, device, reported) = read_back(&put_reported("p", "d", &said)) else {
                panic!("a report")
            };
            assert_eq!((&*product, &*device, &reported), ("p", "d", &said));
            versions = reported.versions;
        }
        let older = b"\x01{\"versions\":{},\"hardware\":null,\"zone\":null,\"aliyun\":true}";
        let Ok(Read::Reported(.., reported)) = read(b"ov\0p\0d", older) else { panic!("a report") };
        assert_eq!(reported.speaks, Speaks::Aliyun);

        let wanted = Wanted { request: CampaignRequest::plain("spring", 4), salt: u64::MAX };
        let life = Life {
            state: State::Stopped(Why::Errors { group: 1 }),
            since_s: 8,
            created_at_s: 7,
            approval: Some(Approval { by: "operator".into(), at_s: 6 }),
            bounds: vec![1, u64::MAX],
            begun: 2,
            retrying: true,
        };
        let Read::Campaign(id, read, lived) = read_back(&put_campaign(CampaignId(3), &wanted, &life)) else {
            panic!("a campaign")
        };
        assert_eq!((id, read.salt, lived), (CampaignId(3), u64::MAX, life));
        assert_eq!(read.request, wanted.request);
    }

    #[test]
    fn damage_is_found() {
        for (key, value) in [
            (&b"oc\x000000000000000003"[..], &b"\x01{}"[..]),
            (b"os\x000000000000000003\0d", b"\x01\0\0\0\0\0\0\0\0"),
            (b"ov\0p\0d", b"\x01[]"),
            (b"ov\0p", b"\x01{}"),
            (b"ov\0p\0d", b""),
            (b"ox\x000000000000000003\0d", b"\x01x"),
        ] {
            assert!(is_ours(key) && matches!(read(key, value), Err(RecordError::Damaged(_))), "{key:?}");
        }
        assert!(matches!(read(b"ov\0p\0d", b"\x02"), Err(RecordError::Layout(2))));
    }
}
