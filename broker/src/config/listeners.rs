//! `[[listeners]]`: what is read of one, and what is wrong with it or with several together.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::read::Section;
use super::{Config, Fault, Kind, Listener};
use crate::tls::{Acceptor, CertificateSettings, ClientAuth, ClientTrust, TlsError, TlsSettings, TlsVersion};

/// Bytes of a listener's name: it stands in every line of the log that is about it, and in metrics.
const NAME_BYTES_MAX: usize = 64;

/// Reads one listener.
pub(super) fn listener(section: &mut Section<'_>) -> Listener {
    let kinds = [Kind::Mqtt, Kind::Mqtts, Kind::Ws, Kind::Wss].map(|kind| (kind.as_str(), kind));
    // Stands in for an address that is missing, and collides with nothing.
    let mut listener = Listener::plain(Kind::Mqtt, SocketAddr::from(([127, 0, 0, 1], 0)));
    section.choice("kind", &mut listener.kind, &kinds);
    let kind = listener.kind;
    // Whatever would follow from a kind that can't be read isn't said.
    let is_kind_known = !section.is_faulty("kind");
    let mut name = String::new();
    section.text("name", &mut name);
    let is_named = !name.is_empty();
    listener.name = match (section.is_faulty("name"), is_named) {
        (_, true) => name,
        (false, _) if is_kind_known => kind.as_str().to_owned(),
        // It can't be anybody's name, so it collides with none.
        _ => section.name(""),
    };
    if is_named && !is_name(&listener.name) {
        section.fault("name", format!("must be 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens or underscores"));
    }
    section.required("address");
    section.parsed("address", &mut listener.address, "an address such as \"0.0.0.0:1883\"");
    let mut paths = Vec::new();
    if section.texts("paths", &mut paths) {
        if is_kind_known && !kind.is_websocket() {
            section.fault("paths", "this kind of listener speaks no WebSocket; use kind ws or wss, or remove it");
        } else if paths.is_empty() || paths.iter().any(|path| !path.starts_with('/') || path.contains(['?', '#'])) {
            section.fault("paths", "must be one path or more, each beginning with / and without a query: [\"/mqtt\"]");
        }
        listener.paths = paths;
    }
    section.boolean("proxy_protocol", &mut listener.proxy_protocol);
    section.section("tls", |section| {
        if is_kind_known && !kind.is_tls() {
            section.fault("", "this kind of listener speaks no TLS; use kind mqtts or wss, or remove it");
        }
        listener.tls = Some(tls(section, kind.is_websocket(), ClientAuth::None));
    });
    listener
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// Reads a section about TLS; `client_auth` is what it is where the section doesn't say.
pub(super) fn tls(section: &mut Section<'_>, websocket: bool, client_auth: ClientAuth) -> TlsSettings {
    let mut tls = TlsSettings {
        certificates: Vec::new(),
        client_auth,
        client_trust: ClientTrust::Files,
        client_ca_files: Vec::new(),
        crl_files: Vec::new(),
        min_version: TlsVersion::V1_2,
    };
    let mut files = Vec::new();
    section.sections("certificates", |sections| {
        for section in sections {
            let mut certificate = CertificateSettings { chain_file: PathBuf::new(), key_file: PathBuf::new() };
            for (key, file) in [("chain_file", &mut certificate.chain_file), ("key_file", &mut certificate.key_file)] {
                section.required(key);
                section.path(key, file);
                files.push((section.name(key), file.clone()));
            }
            tls.certificates.push(certificate);
        }
    });
    if tls.certificates.is_empty() {
        section.fault("certificates", "needs at least one [[listeners.tls.certificates]] with chain_file and key_file");
    }
    let auths = &[("none", ClientAuth::None), ("optional", ClientAuth::Optional), ("required", ClientAuth::Required)];
    section.choice("client_auth", &mut tls.client_auth, auths);
    let trusts = &[("files", ClientTrust::Files), ("devices", ClientTrust::Devices)];
    section.choice("client_trust", &mut tls.client_trust, trusts);
    section.choice("min_version", &mut tls.min_version, &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]);
    for (key, several) in [("client_ca_files", &mut tls.client_ca_files), ("crl_files", &mut tls.crl_files)] {
        section.paths(key, several);
        files.extend(several.iter().map(|file| (section.name(key), file.clone())));
    }
    check_trust(section, &tls);
    check_files(section, &tls, websocket, &files);
    tls
}

/// Whether something says which client certificates are good, and nothing says it in vain.
fn check_trust(section: &mut Section<'_>, tls: &TlsSettings) {
    let is_by_devices = tls.client_trust == ClientTrust::Devices;
    if is_by_devices && tls.client_auth == ClientAuth::None {
        section.fault("client_trust", "needs client_auth = \"optional\" or \"required\"");
    }
    for (key, files) in [("client_ca_files", &tls.client_ca_files), ("crl_files", &tls.crl_files)] {
        if is_by_devices && !files.is_empty() {
            section.fault(key, "counts for nothing with client_trust = \"devices\"; remove one of them");
        }
    }
    if !is_by_devices && tls.client_auth != ClientAuth::None && tls.client_ca_files.is_empty() {
        let message = "must name the authorities of client certificates when client_auth isn't none; \
                       or client_trust = \"devices\" takes those that devices log in by";
        section.fault("client_ca_files", message);
    }
}

/// Everything that would keep a TLS listener from starting: `files` are those of `tls`, each with its dotted key.
fn check_files(section: &mut Section<'_>, tls: &TlsSettings, websocket: bool, files: &[(String, PathBuf)]) {
    let mut unreadable: HashSet<&Path> = HashSet::new();
    for (key, file) in files {
        if file.as_os_str().is_empty() {
            // That it is missing has been said.
            unreadable.insert(file);
        } else if let Err(error) = File::open(file) {
            section.fault_at(key.clone(), format!("{} can't be read: {error}", file.display()));
            unreadable.insert(file);
        }
    }
    let key_of = |path: &Path| files.iter().find(|(_, file)| file == path).map_or("", |(key, _)| key).to_owned();
    for fault in Acceptor::load(tls, websocket).err().into_iter().flatten() {
        match &fault {
            TlsError::File { path, .. } if unreadable.contains(path.as_path()) => {}
            TlsError::File { path, .. } => section.fault_at(key_of(path), fault.to_string()),
            TlsError::KeyMismatch { key_file, .. } => section.fault_at(key_of(key_file), fault.to_string()),
            // Said above, with the key to set.
            TlsError::NoCertificate | TlsError::NoAuthority | TlsError::UnusedTrust => {}
            TlsError::Verifier(_) => section.fault("client_ca_files", fault.to_string()),
            TlsError::Setup(_) => section.fault("", fault.to_string()),
        }
    }
}

/// Faults that no single listener shows.
pub(super) fn check_together(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let before = config.listeners.get(..index).unwrap_or_default();
        if before.iter().any(|other| other.name == listener.name) {
            let message = format!("{:?} is the name of another listener too; give each its own", listener.name);
            faults.push(Fault { key: format!("listeners[{index}].name"), message });
        }
        let mut taken = before.iter().map(|other| other.address).chain(config.http);
        if listener.address.port() != 0 && taken.any(|address| address == listener.address) {
            let message = format!("{} is the address of another listener or of http too", listener.address);
            faults.push(Fault { key: format!("listeners[{index}].address"), message });
        }
    }
    faults
}

/// Private keys that any user of the machine can read.
pub(super) fn warnings(config: &Config) -> Vec<Fault> {
    let mut found = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates).enumerate();
        for (which, certificate) in certificates {
            let file = &certificate.key_file;
            let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
            if mode & 0o007 != 0 {
                let message = format!("every user of this machine can reach {} (mode {mode:o})", file.display());
                found.push(Fault { key: format!("listeners[{index}].tls.certificates[{which}].key_file"), message });
            }
        }
    }
    found
}
