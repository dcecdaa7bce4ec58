//! Aliyun's messages, as its SDKs send and expect them (`aiot_ota_api.c` of the C Link SDK 4, and the vendor's page "OTA升级").
//!
//! | topic | who | what |
//! |---|---|---|
//! | `/ota/device/inform/{p}/{d}` | device → | [`Inform`] |
//! | `/ota/device/upgrade/{p}/{d}` | → device | [`Upgrade::pushed`] |
//! | `/ota/device/progress/{p}/{d}` | device → | [`Progress`] |
//! | `/sys/{p}/{d}/thing/ota/firmware/get` | device → | [`Query`] |
//! | `/sys/{p}/{d}/thing/ota/firmware/get_reply` | → device | [`Upgrade::reply`], [`nothing`] |
//!
//! ```json
//! {"id": "123", "params": {"version": "1.0.1", "module": "MCU"}}
//! {"id": "123", "params": {"step": "-1", "desc": "…", "module": "MCU"}}
//! {"id": "123", "version": "1.0", "params": {"module": "MCU"}, "method": "thing.ota.firmware.get"}
//! {"code": "1000", "data": {"size": 432945, "version": "2.0.0", "url": "https://…", "md5": "…", "sign": "…", "signMethod": "Md5",
//!  "module": "MCU"}, "id": 1507707025, "message": "success"}
//! ```
//!
//! The SDK compares `signMethod` with `Md5` and `Sha256` in exactly these cases. It takes the presence of `dProtocol` for a download over MQTT as the vendor does it
//! (`streamId`, `thing/file/download`), which isn't offered: so there is none. `isDiff` is 1 for a patch, and absent otherwise. `digestsign` is the
//! vendor's own signature under its own key, which nobody else can make; it is never sent.
//!
//! A message names no offer, so a report is about the offer that the device has for the module. Without `module` it is [`Target::DEFAULT`].

use serde::{Deserialize, Serialize};

use super::{RequestId, Scalar, Step, Why, WireError, name, read};
use crate::firmware::{Contents, Firmware};
use crate::target::{Target, Version};

#[derive(Deserialize)]
struct Written<P> {
    id: Option<Scalar>,
    params: P,
}

fn module(text: Option<&str>) -> Result<Target, WireError> {
    match text {
        None | Some("") => name("module", Target::DEFAULT),
        Some(text) => name("module", text),
    }
}

/// The version of a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inform {
    /// Of the message.
    pub id: Option<RequestId>,
    /// Which module.
    pub target: Target,
    /// What it runs.
    pub version: Version,
}

#[derive(Deserialize)]
struct InformParams {
    version: String,
    module: Option<String>,
}

impl Inform {
    /// Reads a report of a version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(payload: &[u8]) -> Result<Self, WireError> {
        let Written { id, params: InformParams { version, module: of } } = read(payload)?;
        let id = id.map(Scalar::id).transpose()?;
        Ok(Self { id, target: module(of.as_deref())?, version: name("version", &version)? })
    }
}

/// A question for firmware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// What the answer repeats.
    pub id: Option<RequestId>,
    /// For which module.
    pub target: Target,
}

#[derive(Deserialize)]
struct QueryParams {
    module: Option<String>,
}

impl Query {
    /// Reads a question.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(payload: &[u8]) -> Result<Self, WireError> {
        let Written { id, params: QueryParams { module: of } } = read(payload)?;
        Ok(Self { id: id.map(Scalar::id).transpose()?, target: module(of.as_deref())? })
    }
}

/// How far a device says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Of the message.
    pub id: Option<RequestId>,
    /// With which module.
    pub target: Target,
    /// How far. 100 percent is [`Step::Downloaded`].
    pub step: Step,
    /// Why it failed: the number of [`Why::NAMED`] that the vendor's is, or what the device says.
    pub why: Option<Why>,
}

#[derive(Deserialize)]
struct ProgressParams {
    step: Scalar,
    desc: Option<String>,
    module: Option<String>,
}

impl Progress {
    /// Reads a report. The step is 0 to 100 percent, or −1 (the upgrade failed), −2 (the download), −3 (the check) or −4 (the writing), as a number or a text.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(payload: &[u8]) -> Result<Self, WireError> {
        let Written { id, params: ProgressParams { step, desc, module: of } } = read(payload)?;
        let step = match step {
            Scalar::Number(number) => Some(number),
            Scalar::Text(text) => text.parse().ok(),
        };
        let said = || desc.as_deref().filter(|desc| !desc.is_empty()).map(Why::from_text);
        let failed = |why: Option<Why>| (Step::Failed { retryable: why.as_ref().is_none_or(Why::is_retryable) }, why);
        let (step, why) = match step {
            Some(100) => (Step::Downloaded, None),
            Some(percent @ 0..100) => (Step::Downloading(u8::try_from(percent).unwrap_or(0)), None),
            Some(-1) => failed(said()),
            Some(-2) => failed(Some(Why::Code(12))),
            Some(-3) => failed(Some(Why::Code(10))),
            Some(-4) => failed(Some(Why::Code(14))),
            _ => return Err(WireError::Range { field: "step" }),
        };
        Ok(Self { id: id.map(Scalar::id).transpose()?, target: module(of.as_deref())?, step, why })
    }
}

/// Which digest `sign` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SignMethod {
    /// MD5, which all devices know.
    #[default]
    Md5,
    /// SHA-256.
    Sha256,
}

/// What a device is told of a firmware.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// What is offered.
    pub firmware: &'a Firmware,
    /// What is in it.
    pub contents: &'a Contents,
    /// Where to fetch it, with the token.
    pub url: &'a str,
    /// How the device is to check it. `md5` is there besides.
    pub method: SignMethod,
}

#[derive(Serialize)]
struct WrittenUpgrade<'a, C, I> {
    code: C,
    data: Data<'a>,
    id: I,
    message: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    size: u64,
    version: &'a str,
    url: &'a str,
    md5: &'a str,
    sign: &'a str,
    sign_method: &'static str,
    module: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_diff: Option<u8>,
}

impl Upgrade<'_> {
    /// Unasked, with a number of the broker's.
    #[must_use]
    pub fn pushed(&self, id: u32) -> String {
        self.written("1000", id)
    }

    /// The answer to a question.
    #[must_use]
    pub fn reply(&self, id: Option<&RequestId>) -> String {
        self.written(200, id)
    }

    fn written(&self, code: impl Serialize, id: impl Serialize) -> String {
        let Self { firmware, contents, url, method } = self;
        let digests = &contents.whole.digests;
        let (md5, sha256) = (hex::encode(digests.md5), hex::encode(digests.sha256));
        let (sign, sign_method) = match method {
            SignMethod::Md5 => (&md5, "Md5"),
            SignMethod::Sha256 => (&sha256, "Sha256"),
        };
        let data = Data {
            size: contents.whole.bytes,
            version: firmware.version.as_str(),
            url,
            md5: &md5,
            sign,
            sign_method,
            module: firmware.target.as_str(),
            is_diff: firmware.base.as_ref().map(|_| 1),
        };
        let upgrade = WrittenUpgrade { code, data, id, message: "success" };
        serde_json::to_string(&upgrade).expect("texts and numbers have a JSON")
    }
}

/// The answer to a question where there is nothing: what the SDK passes over.
#[must_use]
pub fn nothing(id: Option<&RequestId>) -> String {
    serde_json::json!({"code": 200, "data": {}, "id": id, "message": "success"}).to_string()
}

#[cfg(test)]
mod tests;
