//! What is audited: the list of actions, and the fields of a record.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use turnpike_core::gate::{DeviceIdentity, Principal};

use super::id::{Id, TokenId};
use crate::names::{DeviceName, ProductKey};
use crate::people::ids::UserKey;

/// Details of one event that are kept; what a caller gives beyond is left out.
const DETAILS_MAX: usize = 12;

macro_rules! labels {
    ($(#[$outer:meta])* $type:ident { $($(#[$doc:meta])* $name:ident = $label:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $type { $($(#[$doc])* $name,)* }

        impl $type {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is written.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

labels! {
    /// What was done. The list of what can be audited; a word, once written, keeps its meaning.
    Action {
        /// A client has come in, or was refused.
        LogIn = "log_in",
        /// A client has gone.
        LogOut = "log_out",
        /// A live client had to prove itself again.
        ReAuthenticate = "re_authenticate",
        /// An address, an identity or a product was banned.
        Ban = "ban",
        /// A ban was lifted.
        Unban = "unban",
        /// What was held against an identity was forgotten.
        Pardon = "pardon",
        /// One identity was seen in two places.
        CloneDetected = "clone_detected",
        /// A device registered itself.
        Register = "register",
        /// How a product's devices register, and whether they may.
        ProductRegistration = "product_registration",
        /// A registration was taken back: its key or identifier may register another device.
        RegistrationRelease = "registration_release",
        /// Burn-in keys were issued.
        KeysIssue = "keys_issue",
        /// Burn-in keys that had been issued were shown again.
        KeysShow = "keys_show",
        /// A package of registrations was made or changed.
        PackagePut = "package_put",
        /// It was withdrawn.
        PackageDelete = "package_delete",
        /// A list of serial numbers that may register was changed.
        AllowListPut = "allow_list_put",
        /// A device was bound to a user.
        Bind = "bind",
        /// A bound device was shared.
        Share = "share",
        /// A share was withdrawn.
        Unshare = "unshare",
        /// A bound device was given to another user.
        Transfer = "transfer",
        /// A binding was ended.
        Unbind = "unbind",
        /// A proof that a device is at somebody's hands was issued.
        ProofIssue = "proof_issue",
        /// A message to a device, by a service or a platform.
        Control = "control",
        /// A product is new.
        ProductCreate = "product_create",
        /// A product was put anew.
        ProductPut = "product_put",
        /// A product's devices may come in.
        ProductEnable = "product_enable",
        /// A product's devices may no longer come in.
        ProductDisable = "product_disable",
        /// Which log-in formats a product takes.
        ProductProfiles = "product_profiles",
        /// Other settings of a product.
        ProductSettings = "product_settings",
        /// Who issues the certificates of a product's devices.
        ProductAuthorities = "product_authorities",
        /// How fast a product's devices may be.
        ProductLimits = "product_limits",
        /// Whose a product is.
        ProductTenant = "product_tenant",
        /// A product is gone, and its devices with it.
        ProductDelete = "product_delete",
        /// A device is new.
        DeviceCreate = "device_create",
        /// A device was put anew, with a secret that may be new.
        DevicePut = "device_put",
        /// Which public keys and certificates a device has.
        DeviceKeys = "device_keys",
        /// Which firmware and module a device is expected to state.
        DeviceAttestation = "device_attestation",
        /// How fast a device may be.
        DeviceLimits = "device_limits",
        /// Tags or regions of devices were changed.
        DeviceLabels = "device_labels",
        /// A device may come in.
        DeviceEnable = "device_enable",
        /// A device may no longer come in.
        DeviceDisable = "device_disable",
        /// A device is gone.
        DeviceDelete = "device_delete",
        /// Many devices were put at once.
        DevicesImport = "devices_import",
        /// Many devices were deleted at once.
        DevicesDelete = "devices_delete",
        /// A user was made or changed.
        UserPut = "user_put",
        /// A user was frozen: nothing of theirs comes in.
        UserFreeze = "user_freeze",
        /// A user was unfrozen.
        UserUnfreeze = "user_unfreeze",
        /// A user's data were given out.
        UserExport = "user_export",
        /// A user and their data were deleted.
        UserDelete = "user_delete",
        /// What is kept of a user is to be erased.
        ErasureAsk = "erasure_ask",
        /// An attempt has left something; there will be another.
        ErasureFail = "erasure_fail",
        /// It should have been done by now.
        ErasureOverdue = "erasure_overdue",
        /// Nothing is left of a user.
        ErasureDone = "erasure_done",
        /// A user has logged in from a device or an address that isn't among the last ones.
        NewPlace = "new_place",
        /// A session was ended from outside.
        SessionRevoke = "session_revoke",
        /// An app was made or changed.
        AppPut = "app_put",
        /// All clients of an app were cut off.
        AppCutOff = "app_cut_off",
        /// They may come in again.
        AppRestore = "app_restore",
        /// An app was deleted.
        AppDelete = "app_delete",
        /// A service was made or changed.
        ServicePut = "service_put",
        /// A service was deleted.
        ServiceDelete = "service_delete",
        /// A platform was made or changed.
        PlatformPut = "platform_put",
        /// A platform was deleted.
        PlatformDelete = "platform_delete",
        /// A platform has asked for what is neither a token nor a control.
        PlatformRequest = "platform_request",
        /// A firmware is to be uploaded.
        FirmwareCreate = "firmware_create",
        /// A part of a firmware's file wasn't taken.
        FirmwareUpload = "firmware_upload",
        /// A firmware's file has come, and was found to be right or wrong.
        FirmwareFinish = "firmware_finish",
        /// A firmware isn't to be offered any more.
        FirmwareWithdraw = "firmware_withdraw",
        /// A firmware was deleted.
        FirmwareDelete = "firmware_delete",
        /// What a product demands of its firmware: keys, signatures, release counters.
        FirmwareDemands = "firmware_demands",
        /// A campaign was made.
        CampaignCreate = "campaign_create",
        /// A campaign may start.
        CampaignApprove = "campaign_approve",
        /// A campaign offers no more.
        CampaignPause = "campaign_pause",
        /// A campaign offers again.
        CampaignResume = "campaign_resume",
        /// A campaign has stopped: by somebody, for too many errors, or at its end.
        CampaignStop = "campaign_stop",
        /// Devices that have failed in a campaign are tried again.
        CampaignRetry = "campaign_retry",
        /// What was kept of a campaign that is over was deleted.
        CampaignDelete = "campaign_delete",
        /// A token was issued.
        TokenIssue = "token_issue",
        /// A token was revoked.
        TokenRevoke = "token_revoke",
        /// A key was replaced: the master key, or that of a product, an app, a service.
        KeyRotate = "key_rotate",
        /// A request to the API without the right token.
        ApiRefused = "api_refused",
        /// The audit was read through the API.
        AuditRead = "audit_read",
        /// Configuration and certificates were read again.
        ConfigReload = "config_reload",
        /// There is no room to remember more used nonces: log-ins that need it are refused.
        NoncesFull = "nonces_full",
        /// The call-out's breaker has opened: its devices are refused, but for those whose answers are kept.
        CalloutOpen = "callout_open",
        /// The call-out answers again.
        CalloutClose = "callout_close",
        /// The broker has started.
        BrokerStart = "broker_start",
        /// The broker has ended in good order.
        BrokerStop = "broker_stop",
        /// A segment begins. The first line of each.
        SegmentStart = "segment_start",
        /// A segment ends: how many records it has, and from when to when. The last line of each but the one in use.
        SegmentEnd = "segment_end",
        /// Records that could not be kept: they came faster than they could be written, or while nothing could be written.
        RecordsDropped = "records_dropped",
        /// Refused log-ins beyond the rate at which they are kept one by one.
        RecordsSuppressed = "records_suppressed",
        /// Segments older than they are to be kept are removed, up to and including a record.
        RecordsRemoved = "records_removed",
        /// What an interrupted write had left at the end of the last segment was cut off.
        UnfinishedRemoved = "unfinished_removed",
        /// Records are missing or changed that the head knows of, or files were removed while they were written.
        DamageFound = "damage_found",
        /// The audit has begun anew although this broker had one before.
        ChainLost = "chain_lost",
        /// From here on the chain is under another master key.
        ChainRekeyed = "chain_rekeyed",
    }
}

labels! {
    /// What a detail says.
    Key {
        /// Client id.
        Client = "client",
        /// Through TLS.
        Tls = "tls",
        /// Log-in format, or the formats allowed.
        Profile = "profile",
        /// How many.
        Count = "count",
        /// The first of many.
        First = "first",
        /// The last of many.
        Last = "last",
        /// Sequence number of another record.
        Sequence = "sequence",
        /// Whether a secret was replaced.
        SecretReplaced = "secret_replaced",
        /// Whether it is enabled.
        Enabled = "enabled",
        /// A role that was given.
        Role = "role",
        /// When it ends, milliseconds since 1970 UTC.
        ExpiresMs = "expires_ms",
        /// The earliest moment, milliseconds since 1970 UTC.
        FromMs = "from_ms",
        /// The latest moment, milliseconds since 1970 UTC.
        ToMs = "to_ms",
        /// Bytes.
        Bytes = "bytes",
        /// How a client has gone, or what has become of the audit's files.
        How = "how",
        /// A user who is concerned.
        User = "user",
        /// An app that is concerned.
        App = "app",
        /// An address that is concerned.
        Address = "address",
        /// How many bits of an address a network has.
        Prefix = "prefix",
        /// A request of a platform, by its name.
        Request = "request",
        /// Message id of a control command.
        Message = "message",
        /// Version of the program, or of something else that has versions.
        Version = "version",
        /// Number of a package of registrations.
        Package = "package",
        /// A way of registration.
        Way = "way",
        /// Number of an erasure.
        Erasure = "erasure",
        /// Number of a firmware.
        Firmware = "firmware",
        /// Number of a campaign.
        Campaign = "campaign",
        /// Whether something needs a restart.
        RestartNeeded = "restart_needed",
    }
}

/// Who acts, or who is acted upon. Written as `kind:id`, in which an id of two parts has a `/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject<'a> {
    /// The broker itself.
    Broker,
    /// Whoever has the API's token.
    Operator(TokenId),
    /// Nobody who has proved who they are.
    Unknown,
    /// Let in by `--anonymous`.
    Anonymous,
    /// A product.
    Product(Id<'a>),
    /// A device of a product.
    Device(Id<'a>, Id<'a>),
    /// A user of an app.
    User(Id<'a>, Id<'a>),
    /// An app.
    App(Id<'a>),
    /// A back-end service.
    Service(Id<'a>),
    /// Another cloud.
    Platform(Id<'a>),
    /// A package of registrations.
    Package(Id<'a>),
    /// A session of a client.
    Session(Id<'a>),
    /// An address.
    Address(IpAddr),
    /// The audit itself.
    Audit,
}

impl<'a> Subject<'a> {
    /// A product.
    #[must_use]
    pub fn product(product: &'a ProductKey) -> Self {
        Self::Product(Id::of(product))
    }

    /// A device.
    #[must_use]
    pub fn device(product: &'a ProductKey, device: &'a DeviceName) -> Self {
        Self::Device(Id::of(product), Id::of(device))
    }

    /// A user.
    #[must_use]
    pub fn user(user: &'a UserKey) -> Self {
        Self::User(Id::of(&user.app), Id::of(&user.user))
    }

    /// A device that has proved who it is.
    #[must_use]
    pub fn identity(identity: &'a DeviceIdentity) -> Self {
        Self::Device(Id::proved(&identity.product), Id::proved(&identity.device))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Operator(_) => "operator",
            Self::Unknown => "unknown",
            Self::Anonymous => "anonymous",
            Self::Product(_) => "product",
            Self::Device(..) => "device",
            Self::User(..) => "user",
            Self::App(_) => "app",
            Self::Service(_) => "service",
            Self::Platform(_) => "platform",
            Self::Package(_) => "package",
            Self::Session(_) => "session",
            Self::Address(_) => "address",
            Self::Audit => "audit",
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(self.kind().as_bytes());
        match self {
            Self::Broker | Self::Unknown | Self::Anonymous | Self::Audit => {}
            Self::Operator(token) => print(format_args!(":{token}"), out),
            Self::Address(address) => print(format_args!(":{address}"), out),
            Self::Device(first, second) | Self::User(first, second) => {
                out.push(b':');
                escape_id(*first, out);
                out.push(b'/');
                escape_id(*second, out);
            }
            Self::Product(id)
            | Self::App(id)
            | Self::Service(id)
            | Self::Platform(id)
            | Self::Package(id)
            | Self::Session(id) => {
                out.push(b':');
                escape_id(*id, out);
            }
        }
        out.push(b'"');
    }
}

impl<'a> From<&'a Principal> for Subject<'a> {
    fn from(principal: &'a Principal) -> Self {
        match principal {
            Principal::Anonymous => Self::Anonymous,
            Principal::Device(identity) => Self::identity(identity),
            Principal::User(user) => Self::User(Id::proved(&user.app), Id::proved(&user.user)),
            Principal::Service(service) => Self::Service(Id::proved(&service.key)),
            Principal::Platform(identity) => Self::Platform(Id::proved(&identity.id)),
            Principal::Broker => Self::Broker,
        }
    }
}

/// How it ended. Causes are words of closed enums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was allowed and is on record; it is being done. Where that fails, another record says [`Self::Failed`].
    Accepted,
    /// It was not allowed.
    Refused(&'static str),
    /// It was allowed and didn't succeed.
    Failed(&'static str),
}

/// A detail's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// A number: a count, bytes, milliseconds.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// An identifier.
    Id(Id<'a>),
    /// A word of a closed enum.
    Word(&'static str),
    /// An address.
    Address(IpAddr),
}

/// What happened. Everything in it is an identifier, a number, an address, or a word of the program's own.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Who did it.
    pub actor: Subject<'a>,
    /// From where.
    pub source: Option<SocketAddr>,
    /// What.
    pub action: Action,
    /// To whom.
    pub target: Option<Subject<'a>>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whatever else is to be known; a dozen at the most.
    pub details: &'a [(Key, Value<'a>)],
}

impl<'a> Event<'a> {
    /// Something that the broker did of itself.
    #[must_use]
    pub fn own(at_ms: u64, action: Action, details: &'a [(Key, Value<'a>)]) -> Self {
        Self { at_ms, actor: Subject::Broker, source: None, action, target: None, outcome: Outcome::Ok, details }
    }

    /// Whether a stranger can cause as many of these as they like.
    #[must_use]
    pub fn is_unsolicited(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_))
            && matches!(self.action, Action::LogIn | Action::ApiRefused | Action::Register)
    }

    /// Appends the members of a JSON object, without its braces, that this is written as.
    pub fn encode(&self, out: &mut Vec<u8>) {
        member("time", out);
        number(self.at_ms, out);
        out.push(b',');
        member("actor", out);
        self.actor.encode(out);
        if let Some(source) = self.source {
            out.push(b',');
            member("source", out);
            out.push(b'"');
            socket(source, out);
            out.push(b'"');
        }
        out.push(b',');
        member("action", out);
        word(self.action.label(), out);
        if let Some(target) = self.target {
            out.push(b',');
            member("target", out);
            target.encode(out);
        }
        let (result, cause) = match self.outcome {
            Outcome::Ok => ("ok", None),
            Outcome::Accepted => ("accepted", None),
            Outcome::Refused(cause) => ("refused", Some(cause)),
            Outcome::Failed(cause) => ("failed", Some(cause)),
        };
        out.push(b',');
        member("result", out);
        word(result, out);
        if let Some(cause) = cause {
            out.push(b',');
            member("cause", out);
            word(cause, out);
        }
        if !self.details.is_empty() {
            out.push(b',');
            member("detail", out);
            self.encode_details(out);
        }
    }

    fn encode_details(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (key, value)) in self.details.iter().take(DETAILS_MAX).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            member(key.label(), out);
            match value {
                Value::Number(value) => number(*value, out),
                Value::Flag(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
                Value::Word(text) => word(text, out),
                Value::Address(address) => print(format_args!("\"{address}\""), out),
                Value::Id(id) => {
                    out.push(b'"');
                    escape_id(*id, out);
                    out.push(b'"');
                }
            }
        }
        out.push(b'}');
    }
}

/// A member's name and colon. Names are this program's, and plain.
fn member(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// In decimal digits. Each log-in has half a dozen numbers, and the machinery of formats costs more than they do.
pub(super) fn number(mut value: u64, out: &mut Vec<u8>) {
    let begin = out.len();
    while value >= 10 {
        out.push(b'0' + (value % 10) as u8);
        value /= 10;
    }
    out.push(b'0' + value as u8);
    out.get_mut(begin..).unwrap_or_default().reverse();
}

/// As `Display` writes it.
fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(address) = address else { return print(format_args!("{address}"), out) };
    for (index, octet) in address.ip().octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number(u64::from(octet), out);
    }
    out.push(b':');
    number(u64::from(address.port()), out);
}

fn print(what: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    out.write_fmt(what).expect("a vector takes everything");
}

/// A word of the program's own. Quoted, and escaped nevertheless: causes come from wherever gates are written.
fn word(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

fn escape_id(id: Id<'_>, out: &mut Vec<u8>) {
    let (text, cut) = id.kept();
    escape(text, out);
    if cut {
        out.extend_from_slice("…".as_bytes());
    }
}

/// RFC 8259, section 7; DEL too, which terminals take.
fn escape(text: &str, out: &mut Vec<u8>) {
    let is_plain = |byte: u8| !matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f);
    if text.bytes().all(is_plain) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => print(format_args!("\\u{byte:04x}"), out),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests;
