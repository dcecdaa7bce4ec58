//! The section `[platform]`: where other clouds come in.

use std::net::SocketAddr;

use super::listeners;
use super::read::Section;
use super::{Config, Fault};
use crate::tls::{ClientAuth, ClientTrust, TlsSettings, TlsVersion};

/// The listener for platforms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformSettings {
    /// Where.
    pub address: SocketAddr,
    /// Its TLS; clients show a certificate.
    pub tls: TlsSettings,
    /// Used nonces that are remembered.
    pub nonces_max: usize,
}

impl PlatformSettings {
    /// Whether a restart is needed from one to the other: certificates are read again without.
    pub(super) fn restart_needed(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => (one.address, one.nonces_max) != (other.address, other.nonces_max),
            (one, other) => one.is_some() != other.is_some(),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> PlatformSettings {
    let mut settings = PlatformSettings {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: TlsSettings {
            certificates: Vec::new(),
            client_auth: ClientAuth::Required,
            client_trust: ClientTrust::Files,
            client_ca_files: Vec::new(),
            crl_files: Vec::new(),
            min_version: TlsVersion::V1_2,
        },
        nonces_max: 1_000_000,
    };
    section.required("address");
    section.parsed("address", &mut settings.address, "an address such as \"0.0.0.0:8444\"");
    section.integer("nonces_max", &mut settings.nonces_max, 1_000..=1_000_000_000);
    section.required("tls");
    section.section("tls", |section| {
        settings.tls = listeners::tls(section, true, ClientAuth::Required);
        if settings.tls.client_auth != ClientAuth::Required {
            section.fault("client_auth", "must be \"required\": platforms show a certificate; or remove it");
        }
        if settings.tls.client_trust != ClientTrust::Files {
            section.fault("client_trust", "must be \"files\": platforms aren't devices; or remove it");
        }
    });
    settings
}

/// An address that is another's.
pub(super) fn check(config: &Config) -> Option<Fault> {
    let address = config.platform.as_ref()?.address;
    let mut taken = config.listeners.iter().map(|listener| listener.address).chain(config.http);
    (address.port() != 0 && taken.any(|other| other == address)).then(|| Fault {
        key: "platform.address".to_owned(),
        message: format!("{address} is the address of a listener or of http too"),
    })
}
