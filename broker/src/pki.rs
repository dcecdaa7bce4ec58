//! A certificate authority and a server certificate for development, made at first start.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::tls::CertificateSettings;

/// Validity of the server's certificate; it is made again in the last third.
const SERVER_DAYS: u64 = 365;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The files of the development certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Development {
    /// What clients trust.
    pub ca: PathBuf,
    /// What listeners show.
    pub server: CertificateSettings,
}

/// Makes what is missing in `{data}/pki`: an authority that lasts, and a certificate for `localhost` and the loopback addresses.
///
/// # Errors
/// A file can't be read or written.
pub fn development(data: &Path) -> io::Result<Development> {
    let folder = data.join("pki");
    fs::create_dir_all(&folder)?;
    let files = Development {
        ca: folder.join("ca.pem"),
        server: CertificateSettings { chain_file: folder.join("server.pem"), key_file: folder.join("server.key") },
    };
    let ca_key_file = folder.join("ca.key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Turnpike development CA");
    let key = if ca_key_file.exists() && files.ca.exists() {
        KeyPair::from_pem(&fs::read_to_string(&ca_key_file)?).map_err(io::Error::other)?
    } else {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        write_secret(&ca_key_file, key.serialize_pem().as_bytes())?;
        write_whole(&files.ca, certificate.pem().as_bytes(), 0o644)?;
        // Whatever the old authority had signed is worth nothing now.
        let _ = fs::remove_file(&files.server.chain_file);
        key
    };
    if !is_fresh(&files.server) {
        sign_server(&Issuer::new(params, key), &files.server)?;
    }
    Ok(files)
}

fn is_fresh(server: &CertificateSettings) -> bool {
    let made = fs::metadata(&server.chain_file).and_then(|metadata| metadata.modified());
    let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    server.key_file.exists() && age.is_some_and(|age| age < DAY * (SERVER_DAYS as u32) * 2 / 3)
}

fn sign_server(issuer: &Issuer<'_, KeyPair>, files: &CertificateSettings) -> io::Result<()> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, "Turnpike development server");
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * (SERVER_DAYS as u32)).into();
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params.signed_by(&key, issuer).map_err(io::Error::other)?;
    // A start that breaks off in between leaves no certificate, rather than one of another key.
    let _ = fs::remove_file(&files.chain_file);
    write_secret(&files.key_file, key.serialize_pem().as_bytes())?;
    write_whole(&files.chain_file, certificate.pem().as_bytes(), 0o644)
}

/// Writes a file that only its owner may read; it has that mode from its first moment.
///
/// # Errors
/// The file can't be written.
pub fn write_secret(file: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(file, bytes, 0o600)
}

/// Writes a file that is there whole and on disk, or not at all.
fn write_whole(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = file.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut handle = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    handle.write_all(bytes)?;
    handle.sync_all()?;
    fs::rename(&temporary, file)?;
    // The name itself; a file without a folder in its path is in the current one.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_keys_are_private() {
        let data = tempfile::tempdir().expect("a folder");
        let first = development(data.path()).expect("made");
        let read = |file: &Path| fs::read(file).expect("readable");
        let (ca, server) = (read(&first.ca), read(&first.server.chain_file));
        assert_eq!(development(data.path()).expect("there"), first);
        assert_eq!((read(&first.ca), read(&first.server.chain_file)), (ca, server));
        for key in [&first.server.key_file, &data.path().join("pki/ca.key")] {
            assert_eq!(fs::metadata(key).expect("there").permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_new_server_certificate_is_signed_by_the_same_authority() {
        let data = tempfile::tempdir().expect("a folder");
        let first = development(data.path()).expect("made");
        let ca = fs::read(&first.ca).expect("readable");
        fs::remove_file(&first.server.chain_file).expect("removed");
        let second = development(data.path()).expect("made");
        assert_eq!(fs::read(&second.ca).expect("readable"), ca);
        let settings = crate::tls::TlsSettings {
            certificates: vec![second.server],
            client_auth: crate::tls::ClientAuth::None,
            client_trust: crate::tls::ClientTrust::Files,
            client_ca_files: Vec::new(),
            crl_files: Vec::new(),
            min_version: crate::tls::TlsVersion::V1_2,
        };
        assert!(crate::tls::Acceptor::load(&settings, false).is_ok());
    }
}
