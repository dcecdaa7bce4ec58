//! TLS end to end: versions, names, client certificates, resumption, reload.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::*;
use crate::tls::tests::Authority;
use crate::tls::{CertificateSettings, ClientAuth, ClientTrust, TlsSettings, TlsVersion};

type Tls = StreamOwned<ClientConnection, TcpStream>;

const V12: &SupportedProtocolVersion = &rustls::version::TLS12;
const V13: &SupportedProtocolVersion = &rustls::version::TLS13;

fn tls_listener(tls: TlsSettings) -> ListenerSettings {
    ListenerSettings { name: "tls".to_owned(), tls: Some(tls), ..tcp_listener() }
}

pub(super) fn client_config(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    certificate: Option<&CertificateSettings>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca_file()).expect("reads")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    match certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.chain_file).expect("reads")];
            let key = PrivateKeyDer::from_pem_file(&files.key_file).expect("reads");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

/// TLS and CONNECT; whatever goes wrong on the way is an error.
fn try_connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str, id: &str) -> io::Result<Client<Tls>> {
    let conn = ClientConnection::new(Arc::clone(config), name.to_owned().try_into().expect("a name"));
    let mut client = Client::new(StreamOwned::new(conn.map_err(io::Error::other)?, tcp(address)));
    client.wire.write_all(&connect_packet(id, false))?;
    client.wire.flush()?;
    let (first, body) = client.try_receive()?;
    assert_eq!((first, body[1]), (0x20, 0), "CONNACK, accepted");
    Ok(client)
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>, id: &str) -> Client<Tls> {
    try_connect(address, config, "a.test", id).expect("connects")
}

fn leaf(client: &Client<Tls>) -> CertificateDer<'static> {
    client.wire.conn.peer_certificates().expect("of the server")[0].clone()
}

#[test]
fn both_versions_work_on_every_shard() {
    let authority = Authority::new("ca");
    let (server, address) = start(vec![tls_listener(authority.settings(vec![authority.issue("a.test", 1)]))]);
    for version in [V12, V13] {
        let config = Arc::new(client_config(&authority, version, None));
        let mut subscriber = connect(address, &config, "sub");
        subscriber.subscribe("big", 0);
        let payload = vec![0x5a; 200_000];
        for shard in 0..SHARDS {
            let mut publisher = connect(address, &config, &client_of(shard, "pub"));
            publisher.publish("big", &payload);
            assert!(subscriber.expect_publish("big") == payload, "the payload changed");
            publisher.ping();
        }
    }
    assert!(server.drain(PATIENCE));
}

#[test]
fn a_client_gets_the_certificate_that_it_names() {
    let authority = Authority::new("ca");
    let certificates = vec![authority.issue("a.test", 1), authority.issue("b.test", 2)];
    let (_server, address) = start(vec![tls_listener(authority.settings(certificates))]);
    let config = Arc::new(client_config(&authority, V13, None));
    let a = try_connect(address, &config, "a.test", "a").expect("named by the first");
    let b = try_connect(address, &config, "b.test", "b").expect("named by the second");
    assert_ne!(leaf(&a), leaf(&b));
    assert!(try_connect(address, &config, "c.test", "c").is_err(), "the first certificate isn't good for that name");
}

#[test]
fn an_old_version_is_refused_where_it_is_excluded() {
    let authority = Authority::new("ca");
    let settings =
        TlsSettings { min_version: TlsVersion::V1_3, ..authority.settings(vec![authority.issue("a.test", 1)]) };
    let (_server, address) = start(vec![tls_listener(settings)]);
    let with = |version| try_connect(address, &Arc::new(client_config(&authority, version, None)), "a.test", "x");
    assert!(with(V12).is_err());
    assert!(with(V13).is_ok());
}

#[test]
fn application_protocols_are_matched_where_offered() {
    let authority = Authority::new("ca");
    let (_server, address) = start(vec![tls_listener(authority.settings(vec![authority.issue("a.test", 1)]))]);
    let with = |protocols: &[&[u8]]| {
        let mut config = client_config(&authority, V13, None);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        try_connect(address, &Arc::new(config), "a.test", "x")
    };
    assert_eq!(with(&[b"h2", b"mqtt"]).expect("matches").wire.conn.alpn_protocol(), Some(&b"mqtt"[..]));
    assert_eq!(with(&[]).expect("nothing offered").wire.conn.alpn_protocol(), None);
    assert!(with(&[b"h2"]).is_err());
}

#[test]
fn client_certificates_are_judged() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let (good, revoked, foreign) =
        (authority.issue("good", 10), authority.issue("revoked", 11), stranger.issue("foreign", 10));
    let settings = TlsSettings {
        client_auth: ClientAuth::Required,
        crl_files: vec![authority.revoke(&[11])],
        ..authority.settings(vec![authority.issue("a.test", 1)])
    };
    let optional = TlsSettings { client_auth: ClientAuth::Optional, ..settings.clone() };
    let (server, required) =
        start(vec![tls_listener(settings), ListenerSettings { name: "optional".to_owned(), ..tls_listener(optional) }]);
    let optional = server.addresses()[1].1;
    for version in [V12, V13] {
        let enters = |address, certificate| {
            let config = Arc::new(client_config(&authority, version, certificate));
            try_connect(address, &config, "a.test", "x").is_ok()
        };
        for address in [required, optional] {
            assert!(enters(address, Some(&good)));
            assert!(!enters(address, Some(&revoked)));
            assert!(!enters(address, Some(&foreign)));
        }
        assert!(!enters(required, None));
        assert!(enters(optional, None));
    }
    until(&server, |stats| stats.iter().map(|shard| shard.net.handshakes_failed).sum::<u64>() == 10);
}

#[test]
fn certificates_of_devices_are_taken_whoever_issued_them() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let foreign = stranger.issue("foreign", 10);
    let required = TlsSettings {
        client_auth: ClientAuth::Required,
        client_trust: ClientTrust::Devices,
        client_ca_files: Vec::new(),
        ..authority.settings(vec![authority.issue("a.test", 1)])
    };
    let optional = TlsSettings { client_auth: ClientAuth::Optional, ..required.clone() };
    let (server, required) =
        start(vec![tls_listener(required), ListenerSettings { name: "optional".to_owned(), ..tls_listener(optional) }]);
    let optional = server.addresses()[1].1;
    // The certificate of one and the key of another.
    let stolen = CertificateSettings { key_file: stranger.issue("thief", 11).key_file, ..foreign.clone() };
    for version in [V12, V13] {
        let enters = |address, certificate| {
            let config = Arc::new(client_config(&authority, version, certificate));
            try_connect(address, &config, "a.test", "x").is_ok()
        };
        assert!(enters(required, Some(&foreign)) && enters(optional, Some(&foreign)));
        assert!(!enters(required, None) && enters(optional, None));
    }
    let mut signer = client_config(&authority, V13, Some(&foreign));
    signer.client_auth_cert_resolver = Arc::new(Thief::new(&stolen));
    assert!(try_connect(optional, &Arc::new(signer), "a.test", "x").is_err(), "a certificate without its key");
}

/// Shows a certificate, and signs with a key that isn't its.
#[derive(Debug)]
struct Thief(Arc<rustls::sign::CertifiedKey>);

impl Thief {
    fn new(stolen: &CertificateSettings) -> Self {
        let chain = CertificateDer::pem_file_iter(&stolen.chain_file).expect("a file");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_file(&stolen.key_file).expect("a key");
        let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("supported");
        Self(Arc::new(rustls::sign::CertifiedKey::new(chain, key)))
    }
}

impl rustls::client::ResolvesClientCert for Thief {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn sessions_are_resumed_until_what_they_are_judged_by_changes() {
    for version in [V12, V13] {
        let authority = Authority::new("ca");
        let device = authority.issue("device", 10);
        let mut settings =
            TlsSettings { client_auth: ClientAuth::Required, ..authority.settings(vec![authority.issue("a.test", 1)]) };
        let (server, address) = start(vec![tls_listener(settings.clone())]);
        let config = Arc::new(client_config(&authority, version, Some(&device)));
        let kind = |client: &Client<Tls>| client.wire.conn.handshake_kind();
        assert_eq!(kind(&connect(address, &config, "x")), Some(HandshakeKind::Full));
        assert_eq!(kind(&connect(address, &config, "x")), Some(HandshakeKind::Resumed));

        let reload = |settings: &TlsSettings| {
            let listeners = [tls_listener(settings.clone())];
            server.control().reload(&listeners, Limits::default(), TransportLimits::default()).expect("reloads")
        };
        settings.certificates = vec![authority.issue("a.test", 2)];
        assert!(reload(&settings).is_empty());
        assert_eq!(
            kind(&connect(address, &config, "x")),
            Some(HandshakeKind::Resumed),
            "the certificate alone changed"
        );

        settings.crl_files = vec![authority.revoke(&[10])];
        reload(&settings);
        assert!(try_connect(address, &config, "a.test", "x").is_err(), "revoked, ticket or not");
        drop(server);
    }
}

#[test]
fn a_reload_changes_certificates_under_live_connections() {
    let (authority, successor) = (Authority::new("ca"), Authority::new("ca"));
    let mut settings = authority.settings(vec![authority.issue("a.test", 1)]);
    let (server, address) = start(vec![tls_listener(settings.clone())]);
    let (old, new) = (Arc::new(client_config(&authority, V13, None)), Arc::new(client_config(&successor, V13, None)));
    let mut before = connect(address, &old, "before");
    assert!(try_connect(address, &new, "a.test", "x").is_err());

    settings.certificates = vec![successor.issue("a.test", 2)];
    let reload = |settings: &TlsSettings| {
        server.control().reload(&[tls_listener(settings.clone())], Limits::default(), TransportLimits::default())
    };
    reload(&settings).expect("reloads");
    let mut after = connect(address, &new, "after");
    before.ping();

    settings.certificates[0].key_file = "/nowhere".into();
    let faults = reload(&settings).expect_err("a bad file");
    assert!(faults[0].to_string().starts_with("listener `tls`: /nowhere: can't be read"), "{}", faults[0]);
    connect(address, &new, "still");
    before.ping();
    after.ping();
    before.send(&[0xe0, 0]);
    before.expect_end();
}

#[test]
fn garbage_instead_of_a_handshake_is_answered_with_an_alert() {
    let authority = Authority::new("ca");
    let (server, address) = start(vec![tls_listener(authority.settings(vec![authority.issue("a.test", 1)]))]);
    let mut stream = tcp(address);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the end, not a reset");
    assert_eq!(answer.first(), Some(&21), "an alert record");
    drop(stream);
    until(&server, |stats| stats.iter().all(|shard| shard.links == 0 && shard.handshakes == 0));
}

/// A handshake that stops when the server has answered the hello.
fn half_open(address: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let name = "a.test".try_into().expect("a name");
    let mut conn = ClientConnection::new(Arc::clone(config), name).expect("a client");
    let mut stream = tcp(address);
    while conn.wants_write() {
        conn.write_tls(&mut stream).expect("sends");
    }
    conn.read_tls(&mut stream).expect("an answer");
    conn.process_new_packets().expect("a good one");
    StreamOwned::new(conn, stream)
}

/// Goes on with it: whether MQTT is spoken in the end.
fn finishes(mut half: Tls) -> bool {
    half.write_all(&connect_packet("late", false)).and_then(|()| half.read_exact(&mut [0; 4])).is_ok()
}

#[test]
fn live_connections_whose_certificate_is_not_good_any_more_are_closed_and_no_other() {
    for version in [V12, V13] {
        let (authority, other) = (Authority::new("ca"), Authority::new("other"));
        let (bad, good) = (authority.issue("bad", 10), authority.issue("good", 11));
        let mut settings = TlsSettings {
            client_auth: ClientAuth::Optional,
            crl_files: vec![authority.revoke(&[])],
            ..authority.settings(vec![authority.issue("a.test", 1)])
        };
        let (server, address) = start(vec![tls_listener(settings.clone())]);
        let config = |certificate| Arc::new(client_config(&authority, version, certificate));
        let (bad, good, bare) = (config(Some(&bad)), config(Some(&good)), config(None));
        let connect_to = |shard, config, name: &str| connect(address, config, &client_of(shard, name));
        // More than are judged in one turn.
        let mut revoked: Vec<_> = (0..20).map(|n| connect_to(n % SHARDS, &bad, &format!("bad{n}-"))).collect();
        let mut kept: Vec<_> = (0..20).map(|n| connect_to(0, &good, &format!("good{n}-"))).collect();
        let mut without = connect_to(1, &bare, "bare");
        let (late_bad, late_good) = (half_open(address, &bad), half_open(address, &good));
        let reload = |settings: &TlsSettings| {
            let listeners = [tls_listener(settings.clone())];
            server.control().reload(&listeners, Limits::default(), TransportLimits::default())
        };

        let list = authority.revoke(&[10]);
        std::fs::write(&list, "no list").expect("writes");
        assert!(reload(&settings).is_err());
        revoked.iter_mut().for_each(Client::ping);
        authority.revoke(&[10]);
        reload(&settings).expect("reloads");
        revoked.iter_mut().for_each(Client::expect_end);
        kept.iter_mut().for_each(Client::ping);
        without.ping();
        assert!(finishes(late_good) && !finishes(late_bad), "handshakes that saw the change");

        settings.client_ca_files = vec![other.ca_file()];
        settings.crl_files.clear();
        reload(&settings).expect("reloads");
        kept.iter_mut().for_each(Client::expect_end);
        without.ping();
    }
}
