//! The section `[ota]`: how firmware goes out.

use std::net::SocketAddr;
use std::path::PathBuf;

use turnpike_ota::firmware::BYTES_MAX;

use super::listeners;
use super::read::Section;
use super::s3;
use super::s3::S3Settings;
use super::{Config, Fault};
use crate::tls::{ClientAuth, TlsSettings};

/// How firmware goes out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtaSettings {
    /// Where files are kept; none: `firmware` in the data folder.
    pub folder: Option<PathBuf>,
    /// The bucket where whole files are kept; none: the folder.
    pub s3: Option<S3Settings>,
    /// Bytes of a firmware, up to [`BYTES_MAX`].
    pub firmware_bytes_max: u64,
    /// Where devices download over HTTP; none: they don't.
    pub address: Option<SocketAddr>,
    /// TLS of that address; none: plain HTTP, for a proxy in front or for tests.
    pub tls: Option<TlsSettings>,
    /// What the links begin with that devices are offered, without a `/` at the end; none: the address.
    pub public_url: Option<String>,
    /// Seconds for which a link is good.
    pub token_s: u64,
    /// Downloads over HTTP at once.
    pub downloads_max: usize,
    /// Bytes a second that all downloads over MQTT take together.
    pub blocks_bytes_s: u64,
}

impl Default for OtaSettings {
    fn default() -> Self {
        Self {
            folder: None,
            s3: None,
            firmware_bytes_max: BYTES_MAX,
            address: None,
            tls: None,
            public_url: None,
            token_s: 24 * 3600,
            downloads_max: 1000,
            blocks_bytes_s: 50 << 20,
        }
    }
}

impl OtaSettings {
    /// Whether a restart is needed from one to the other: certificates are read again without, where there is TLS in both.
    pub(super) fn restart_needed(one: Option<&Self>, other: Option<&Self>) -> bool {
        let (Some(one), Some(other)) = (one, other) else { return one.is_some() != other.is_some() };
        let (Some(_), Some(tls)) = (&one.tls, &other.tls) else { return one != other };
        Self { tls: Some(tls.clone()), ..one.clone() } != *other
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Option<OtaSettings> {
    let mut settings = OtaSettings::default();
    let mut enabled = true;
    section.boolean("enabled", &mut enabled);
    section.optional_path("folder", &mut settings.folder);
    section.integer("firmware_bytes_max", &mut settings.firmware_bytes_max, 1..=BYTES_MAX);
    section.read("address", &mut settings.address, |text| match text {
        "" => Ok(None),
        text => {
            let fault = |_| "must be an address such as \"0.0.0.0:8080\", or empty".to_owned();
            text.parse().map(Some).map_err(fault)
        }
    });
    section.read("public_url", &mut settings.public_url, |text| match text {
        "" => Ok(None),
        text if is_url(text) => Ok(Some(text.trim_end_matches('/').to_owned())),
        _ => Err("must begin with http:// or https:// and have up to 256 characters, none of them a blank".to_owned()),
    });
    section.integer("token_s", &mut settings.token_s, 60..=30 * 24 * 3600);
    section.integer("downloads_max", &mut settings.downloads_max, 1..=100_000);
    section.integer("blocks_bytes_s", &mut settings.blocks_bytes_s, 128 << 10..=1 << 40);
    section.section("s3", |section| settings.s3 = s3::read(section));
    section.section("tls", |section| {
        settings.tls = Some(listeners::tls(section, true, ClientAuth::None));
    });
    enabled.then_some(settings)
}

fn is_url(text: &str) -> bool {
    let has_scheme = ["http://", "https://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    has_scheme && text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

/// An address that is another's.
pub(super) fn check(config: &Config) -> Option<Fault> {
    let address = config.ota.as_ref()?.address?;
    let platform = config.platform.as_ref().map(|platform| platform.address);
    let mut taken = config.listeners.iter().map(|listener| listener.address).chain(config.http).chain(platform);
    (address.port() != 0 && taken.any(|other| other == address)).then(|| Fault {
        key: "ota.address".to_owned(),
        message: format!("{address} is the address of a listener, of platforms or of http too"),
    })
}
