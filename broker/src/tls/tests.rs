//! What is made of files. Handshakes are tested in `server/tests/tls.rs`, with this file's authority.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use super::*;

/// A certificate authority with a folder for what it makes.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("makes a key");
        let pem = params.self_signed(&key).expect("signs").pem();
        Self { issuer: Issuer::new(params, key), pem, folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("writes");
        path
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.write("ca.pem", &self.pem)
    }

    /// A certificate for a server or a client, in files named after it.
    pub(crate) fn issue(&self, name: &str, serial: u64) -> CertificateSettings {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a DNS name");
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("makes a key");
        let chain = params.signed_by(&key, &self.issuer).expect("signs").pem();
        CertificateSettings {
            chain_file: self.write(&format!("{name}.pem"), chain),
            key_file: self.write(&format!("{name}.key"), key.serialize_pem()),
        }
    }

    /// A revocation list with these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("crl.pem", list.signed_by(&self.issuer).expect("signs").pem().expect("PEM"))
    }

    /// What a server with these certificates is configured with.
    pub(crate) fn settings(&self, certificates: Vec<CertificateSettings>) -> TlsSettings {
        TlsSettings {
            certificates,
            client_auth: ClientAuth::None,
            client_trust: ClientTrust::Files,
            client_ca_files: vec![self.ca_file()],
            crl_files: Vec::new(),
            min_version: TlsVersion::V1_2,
        }
    }
}

#[test]
fn every_fault_is_said_with_its_file() {
    let authority = Authority::new("ca");
    let (good, other) = (authority.issue("good.test", 1), authority.issue("other.test", 2));
    let mut settings = authority.settings(vec![
        CertificateSettings { chain_file: "/nowhere/chain.pem".into(), ..good.clone() },
        CertificateSettings { chain_file: authority.write("empty.pem", ""), ..good.clone() },
        CertificateSettings { key_file: authority.write("no.key", "nothing"), ..good.clone() },
        CertificateSettings { key_file: other.key_file.clone(), ..good.clone() },
    ]);
    settings.client_auth = ClientAuth::Required;
    settings.client_ca_files =
        vec![authority.write("bad-ca.pem", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n")];
    settings.crl_files = vec![authority.write("bad.crl", "not DER"), "/nowhere/list.crl".into()];
    let said: Vec<_> = Acceptor::load(&settings, false).expect_err("faults").iter().map(ToString::to_string).collect();
    let expected = [
        "/nowhere/chain.pem: can't be read",
        "empty.pem: holds no certificate",
        "no.key: holds no private key",
        "other.test.key is not that of the certificate in",
        "bad-ca.pem: not a PEM file of certificates",
        "bad.crl: not a revocation list",
        "/nowhere/list.crl: can't be read",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said:?} doesn't say {expected:?}");
    }
}

#[test]
fn missing_settings_are_said() {
    let authority = Authority::new("ca");
    let mut settings = authority.settings(Vec::new());
    assert!(matches!(Acceptor::load(&settings, false).expect_err("none")[..], [TlsError::NoCertificate]));
    settings.certificates = vec![authority.issue("a.test", 1)];
    settings.client_auth = ClientAuth::Optional;
    settings.client_ca_files.clear();
    assert!(matches!(Acceptor::load(&settings, false).expect_err("none")[..], [TlsError::NoAuthority]));
}

#[test]
fn a_name_finds_its_certificate_or_a_wildcard_for_it() {
    let authority = Authority::new("ca");
    let certificates =
        [authority.issue("first.test", 1), authority.issue("*.wild.test", 2), authority.issue("x.wild.test", 3)];
    let resolver = load_certificates(&certificates, &ring::default_provider(), &mut Vec::new()).expect("loads");
    let found = |name: &str| resolver.named(name).and_then(<[_]>::first).map(|key| key.cert[0].clone());
    let expected = |index: usize| Some(certificates_of(&certificates[index]));
    assert_eq!(found("first.test"), expected(0));
    assert_eq!(found("y.wild.test"), expected(1));
    assert_eq!(found("x.wild.test"), expected(2));
    assert_eq!(found("a.b.wild.test"), None);
    assert_eq!(found("unknown.test"), None);
}

fn certificates_of(settings: &CertificateSettings) -> CertificateDer<'static> {
    certificates(&settings.chain_file).expect("a certificate").remove(0)
}

#[test]
fn ticket_keys_change_with_what_clients_are_judged_by_and_not_otherwise() {
    let authority = Authority::new("ca");
    let mut settings = authority.settings(vec![authority.issue("a.test", 1)]);
    settings.client_auth = ClientAuth::Optional;
    let acceptor = Acceptor::load(&settings, false).expect("loads");
    let ticketer = |live: &Live| Arc::clone(&live.config.ticketer);
    let first = ticketer(&acceptor.live());

    settings.certificates = vec![authority.issue("a.test", 2)];
    assert!(Arc::ptr_eq(&first, &ticketer(&acceptor.prepare(&settings).expect("loads"))));
    settings.crl_files = vec![authority.revoke(&[])];
    assert!(!Arc::ptr_eq(&first, &ticketer(&acceptor.prepare(&settings).expect("loads"))));
    settings.crl_files.clear();
    settings.client_auth = ClientAuth::Required;
    assert!(!Arc::ptr_eq(&first, &ticketer(&acceptor.prepare(&settings).expect("loads"))));
}
