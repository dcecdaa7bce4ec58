use std::sync::Arc;

use turnpike_authz::credential::{self, Credentials};
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::nonce::Restored;
use turnpike_authz::plan::{DeviceRequest, Making};
use turnpike_authz::registry::Registry;
use turnpike_authz::secret::{MasterKey, Secret};
use turnpike_authz::{Gatekeeper, Refusal};
use turnpike_core::clock::Now;
use turnpike_core::gate::{Attempt, Gate, Verdict};

use super::*;

const NOW_MS: u64 = 1_700_000_000_000;

/// A record that counts until then.
fn record(n: u8, until_ms: u64) -> [u8; RECORD_BYTES] {
    let mut record = [n; RECORD_BYTES];
    record[16..].copy_from_slice(&until_ms.to_be_bytes());
    record
}

/// Keeps the records of one turn.
fn keep<const N: usize>(files: &NonceFiles, records: [[u8; RECORD_BYTES]; N]) {
    records.into_iter().for_each(|record| files.take(record));
    files.keep();
}

/// What a start finds.
fn found(folder: &Path, unix_ms: u64) -> Vec<[u8; RECORD_BYTES]> {
    NonceFiles::open(folder, unix_ms).expect("a folder").1
}

#[test]
fn what_is_kept_is_found_until_its_time_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, records) = NonceFiles::open(folder.path(), NOW_MS).expect("a folder");
    assert!(records.is_empty());
    let records = [record(1, NOW_MS + 10), record(2, NOW_MS + 20), record(3, NOW_MS + 20)];
    keep(&files, records);
    // The process is killed: nobody closes anything.
    std::mem::forget(files);
    // However often it starts.
    for _ in 0..3 {
        assert_eq!(found(folder.path(), NOW_MS), records);
    }
    assert_eq!(found(folder.path(), NOW_MS + 11), records[1..]);
    assert_eq!(found(folder.path(), NOW_MS), records[1..], "what was over is gone");
    assert!(found(folder.path(), NOW_MS + 21).is_empty());
    let bytes: u64 = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|file| file.expect("a file").metadata().expect("a file").len())
        .sum();
    assert_eq!(bytes, 2 * HEADER.len() as u64);
}

#[test]
fn a_generation_follows_another_and_the_one_before_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, _) = NonceFiles::open(folder.path(), NOW_MS).expect("a folder");
    let age = || files.current.lock().due = Instant::now();
    keep(&files, [record(1, u64::MAX)]);
    age();
    keep(&files, [record(2, u64::MAX)]);
    let mut records = Vec::new();
    read(&previous(folder.path()), &mut records).expect("a file");
    read(&current(folder.path()), &mut records).expect("a file");
    assert_eq!(records, [record(1, u64::MAX), record(2, u64::MAX)]);
    age();
    keep(&files, [record(3, u64::MAX)]);
    assert_eq!(found(folder.path(), NOW_MS), [record(2, u64::MAX), record(3, u64::MAX)]);
}

#[test]
fn a_torn_end_costs_its_record_alone_and_a_damaged_file_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let records = [record(1, NOW_MS), record(2, NOW_MS)];
    for cut in 0..=RECORD_BYTES {
        let (files, _) = NonceFiles::open(folder.path(), NOW_MS + 1).expect("a folder");
        keep(&files, records);
        let length = HEADER.len() + 2 * RECORD_BYTES - cut;
        files.current.lock().file.set_len(length as u64).expect("cut");
        drop(files);
        assert_eq!(found(folder.path(), NOW_MS), records[..if cut == 0 { 2 } else { 1 }], "{cut}");
    }
    for content in [&b""[..], b"turnpike", b"turnpike nonce 2", b"something else altogether, and longer than a header"]
    {
        fs::write(current(folder.path()), content).expect("written");
        fs::write(previous(folder.path()), [&HEADER[..], &record(9, NOW_MS)].concat()).expect("written");
        assert_eq!(found(folder.path(), NOW_MS), [record(9, NOW_MS)], "the other file counts");
    }
    fs::remove_file(previous(folder.path())).expect("there");
    fs::create_dir(previous(folder.path())).expect("made");
    assert!(NonceFiles::open(folder.path(), NOW_MS).is_err(), "what can't be read is no empty file");
}

#[test]
fn others_on_the_machine_read_nothing() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let _files = NonceFiles::open(folder.path(), NOW_MS).expect("a folder");
    for file in [current(folder.path()), previous(folder.path())] {
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }
}

/// A broker's gate over these files, as of a start.
fn start(registry: &Arc<Registry>, folder: &Path, now: Now) -> (Gatekeeper, Restored) {
    let (files, records) = NonceFiles::open(folder, now.unix_ms).expect("a folder");
    let gate = Gatekeeper::new(Arc::clone(registry), MasterKey::new([7; 32]), 1000).keeping_nonces(Box::new(files));
    let restored = gate.restore_nonces(records, now);
    (gate, restored)
}

fn is_let_in(gate: &Gatekeeper, made: &Credentials, now: Now) -> bool {
    let attempt = Attempt {
        client_id: &made.client_id,
        user_name: Some(&made.user_name),
        password: Some(made.password.as_bytes()),
        peer: ([127, 0, 0, 1], 1).into(),
        tls: false,
        certificate: None,
        enhanced: None,
    };
    let is_in = matches!(gate.authenticate(&attempt, now, [0; 32]), Verdict::Granted(_));
    gate.keep_judged();
    is_in
}

#[test]
fn a_captured_password_opens_nothing_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Arc::new(Registry::new());
    let (product, name) = (ProductKey::parse("p").expect("a name"), DeviceName::parse("d").expect("a name"));
    registry.apply(registry.plan_put_product(&product, None, 1).expect("new").0);
    let key = MasterKey::new([7; 32]);
    let making = Making { key: &key, random: crate::provision::random(), now_s: 1 };
    let made = registry.plan_put_device(&product, &name, DeviceRequest::default(), &making).expect("a product");
    let secret: Secret = made.secret.expect("it was made");
    registry.apply(made.change);
    let credentials = |n: u64| credential::native("p", "d", &secret, "c", NOW_MS, &n.to_string());

    let mut used = Vec::new();
    for start_number in 0..4 {
        // The clock that never goes back begins anew, the other one goes on.
        let now = Now { mono_ms: 5, unix_ms: NOW_MS + start_number * 60_000 };
        let (gate, restored) = start(&registry, folder.path(), now);
        assert_eq!(restored, Restored { kept: start_number * 2, ..Restored::default() });
        for captured in &used {
            assert!(!is_let_in(&gate, captured, now));
        }
        let reused = gate.refusals().find(|(refusal, _)| *refusal == Refusal::NonceReused);
        assert_eq!(reused, Some((Refusal::NonceReused, start_number * 2)));
        for n in 0..2 {
            let fresh = credentials(start_number * 2 + n);
            assert!(is_let_in(&gate, &fresh, now));
            used.push(fresh);
        }
        std::mem::forget(gate);
    }
    let over = Now { mono_ms: 5, unix_ms: NOW_MS + 11 * 60_000 };
    let (gate, restored) = start(&registry, folder.path(), over);
    assert_eq!(restored, Restored::default(), "what is stale need not be remembered");
    assert!(used.iter().all(|captured| !is_let_in(&gate, captured, over)));
}
