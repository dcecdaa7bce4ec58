//! Clients that show a certificate: issued under the authorities of a listener's files, or whoever issued it.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::{Authority, Identity};
use turnpike_tests::client::End;
use turnpike_tests::credential::{PRODUCT, SECRET, native};
use turnpike_tests::mqtts::Mqtts;
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Version, Will};

use crate::gate::register;

/// A broker with a listener whose clients show certificates, and what is told of the listener besides.
struct Place {
    broker: Broker,
    /// Has signed the broker's certificate.
    ca: Authority,
    folder: TempDir,
}

impl Place {
    fn new(settings: impl FnOnce(&Authority) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Authority::new(folder.path(), "files");
        let identity = ca.sign("broker");
        // The listener's table of TLS is the last that `listeners` writes but for its certificates, so it can go on.
        let setup = Setup::listeners(&["mqtt", "mqtts"], &identity);
        let broker = setup.and_config(&format!("[listeners.tls]\n{}", settings(&ca))).start();
        register(&broker);
        Self { broker, ca, folder }
    }

    #[track_caller]
    fn open(&self, identity: Option<&Identity>, connect: &Connect) -> (Mqtts, Option<u8>) {
        Mqtts::open(self.broker.address("mqtts"), &self.ca.certificate, identity, connect)
    }

    /// Connects by certificate alone.
    #[track_caller]
    fn enter(&self, identity: &Identity, connect: &Connect) -> Mqtts {
        let (client, code) = self.open(Some(identity), connect);
        assert_eq!(code, Some(0));
        client
    }

    #[track_caller]
    fn put_certificate(&self, device: &str, identity: &Identity) {
        let path = format!("/api/v1/products/{PRODUCT}/devices/{device}/keys");
        let answer = self.broker.http().put(&path, &json!({ "certificates": [identity.fingerprint()] }).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    #[track_caller]
    fn put_authority(&self, pem: &Path) -> u16 {
        let pem = std::fs::read_to_string(pem).expect("a certificate");
        let path = format!("/api/v1/products/{PRODUCT}/authorities");
        self.broker.http().request("PUT", &path, "application/x-pem-file", &pem).status
    }

    /// Has everything read again, and waits until the log says that it was, or that it wasn't.
    #[track_caller]
    fn reload(&self, expected: bool) {
        let times = || {
            let log = self.broker.log();
            log.lines().filter(|line| line.contains("reloaded") && line.contains("not reloaded") != expected).count()
        };
        let before = times();
        self.broker.signal(libc::SIGHUP);
        until("it is reloaded, or not", SOON, || (times() > before).then_some(()));
    }
}

fn login(version: Version, device: &str) -> Connect {
    let connect = Connect::new(version, &format!("client-of-{device}"));
    Connect { user: Some(format!("{PRODUCT}/{device}")), ..connect }
}

#[test]
fn a_certificate_that_is_revoked_closes_its_live_session_at_the_next_reload() {
    let place = Place::new(|ca| {
        let (authority, list) = (ca.certificate.display().to_string(), ca.revoke(&[]).display().to_string());
        format!("client_auth = \"optional\"\nclient_ca_files = [{authority:?}]\ncrl_files = [{list:?}]\n")
    });
    for version in [Version::V5, Version::V311] {
        let (one, two) = (place.ca.sign_numbered("one", 1001), place.ca.sign_numbered("two", 1002));
        place.put_certificate("one", &one);
        place.put_certificate("two", &two);
        let list = place.ca.revoke(&[]);
        place.reload(true);
        let topic = format!("dev/{PRODUCT}/one/sys/gone");
        let mut watcher = {
            let login = native("watcher", "one", SECRET);
            place.broker.client(&Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password))
        };
        watcher.subscribe(&[(&topic, 0)]);
        let will = Will::new(&topic, b"gone");
        let mut revoked = place.enter(&one, &login(version, "one").will(will));
        let mut kept = place.enter(&two, &login(version, "two"));

        std::fs::write(&list, "no list").expect("written");
        place.reload(false);
        // Nobody is on it, and that its time is over closes nobody.
        place.ca.revoke_until(&[7], -1);
        place.reload(true);
        revoked.ping();
        kept.ping();

        place.ca.revoke(&[1001]);
        place.reload(true);
        let told = if version == Version::V5 { End::Disconnected(0x87) } else { End::Closed };
        assert_eq!(revoked.end(), told);
        assert_eq!(watcher.publish_in().topic, topic);
        kept.ping();
        assert_eq!(place.open(Some(&one), &login(version, "one")).1, None, "nor does it come in again");
    }
}

#[test]
fn an_authority_that_is_taken_out_of_the_files_takes_its_live_sessions_along() {
    let place = Place::new(|ca| {
        let partner = ca.certificate.with_file_name("partner-ca.pem").display().to_string();
        let files = [ca.certificate.display().to_string(), partner];
        let _ = Authority::new(ca.certificate.parent().expect("a folder"), "partner");
        format!("client_auth = \"optional\"\nclient_ca_files = {files:?}\n")
    });
    let partner = Authority::new(place.folder.path(), "partner");
    place.reload(true);
    let (one, two) = (partner.sign("one"), place.ca.sign("two"));
    place.put_certificate("one", &one);
    place.put_certificate("two", &two);
    let (mut theirs, mut ours) =
        (place.enter(&one, &login(Version::V5, "one")), place.enter(&two, &login(Version::V5, "two")));
    std::fs::copy(&place.ca.certificate, &partner.certificate).expect("copied");
    place.reload(true);
    assert_eq!(theirs.end(), End::Disconnected(0x87));
    ours.ping();
}

/// A listener that takes certificates whoever issued them.
fn of_devices() -> Place {
    Place::new(|_| "client_auth = \"optional\"\nclient_trust = \"devices\"\n".to_owned())
}

#[test]
fn a_self_signed_certificate_is_a_devices_by_its_fingerprint_and_another_is_nobodys() {
    let place = of_devices();
    // Of the same name: what it says of itself counts for nothing.
    let folders = [place.folder.path().join("a"), place.folder.path().join("b")];
    let [known, stranger] = folders.map(|folder| {
        std::fs::create_dir(&folder).expect("made");
        Identity::self_signed(&folder, "one")
    });
    place.put_certificate("one", &known);
    for version in [Version::V5, Version::V311] {
        place.enter(&known, &login(version, "one")).ping();
        // Without a user name the fingerprint says whose it is.
        place.enter(&known, &Connect::new(version, "nameless")).ping();
        let refused = if version == Version::V5 { 0x86 } else { 4 };
        for (identity, connect) in [
            (Some(&stranger), login(version, "one")),
            (Some(&stranger), Connect::new(version, "nameless")),
            (Some(&known), login(version, "two")),
            (None, login(version, "one")),
        ] {
            assert_eq!(place.open(identity, &connect).1, Some(refused), "{version:?} {connect:?}");
        }
    }
    // It is taken away, and another comes in its place.
    let mut live = place.enter(&known, &login(Version::V5, "one"));
    place.put_certificate("one", &stranger);
    assert_eq!(live.end(), End::Disconnected(0x87));
    place.enter(&stranger, &login(Version::V5, "one")).ping();
    assert_eq!(place.open(Some(&known), &login(Version::V5, "one")).1, Some(0x86));
}

#[test]
fn a_products_authority_lets_its_devices_in_by_subject_and_needs_no_file() {
    let place = of_devices();
    let maker = Authority::new(place.folder.path(), "maker");
    let (one, two) = (maker.sign("one"), maker.sign(&format!("{PRODUCT}.two")));
    let log_in = |identity, device| place.open(Some(identity), &login(Version::V5, device)).1;
    assert_eq!(log_in(&one, "one"), Some(0x86), "nobody vouches for it yet");
    assert_eq!(place.put_authority(&maker.certificate), 200);
    assert_eq!(log_in(&one, "one"), Some(0));
    assert_eq!(log_in(&one, "two"), Some(0x86), "it names another device");
    assert_eq!(log_in(&two, "two"), Some(0x86), "it names no device");
    let impostor = Authority::new(&place.ca.certificate.with_file_name(""), "impostor").sign("one");
    assert_eq!(log_in(&impostor, "one"), Some(0x86), "somebody else has issued it");
    let mut live = place.enter(&maker.sign("one"), &login(Version::V5, "one"));

    let expired = Authority::expired(place.folder.path(), "expired");
    assert_eq!(place.put_authority(&expired.certificate), 400);
    live.ping();
    let other = Authority::new(place.folder.path(), "other");
    assert_eq!(place.put_authority(&other.certificate), 200);
    assert_eq!(live.end(), End::Disconnected(0x87), "its authority is one no more");
    assert_eq!(log_in(&maker.sign("one"), "one"), Some(0x86));
}
