use proptest::prelude::*;

use super::device::DeviceCipher;
use super::offer::wrapped_hash;
use super::*;

const SECOND_MS: u64 = 1000;
const UP: &str = "dev/p1/d1/up/t";
const DOWN: &str = "dev/p1/d1/down/t";

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_800_000_000_000 + mono_ms }
}

fn who() -> Arc<DeviceIdentity> {
    Arc::new(DeviceIdentity::new("p1", "d1"))
}

/// A new key each hour or 100,000 messages, a minute of grace.
fn policy() -> CipherPolicy {
    CipherPolicy::new(&Suite::ALL, 3600, 100_000, 60).expect("a policy")
}

/// Both sides after a log-in at a moment, the announcement heard.
fn logged_in(suite: Suite, policy: &CipherPolicy, mono_ms: u64, random: [u8; 20]) -> (Cipher, DeviceCipher) {
    let secret = Secret::generate([7; 16]);
    let terms = Terms { nonce: (*b"a nonce of 20 bytes.").into(), suite, wrapped: None };
    let material = Material::Secret(&secret);
    let mut broker = Cipher::begin(who(), policy, (&terms, material), (at(mono_ms), random));
    let mut device = DeviceCipher::new(who(), suite, material, &terms.nonce);
    assert_eq!(device.seal_up(UP, b""), None);
    let announcement = broker.poll(at(mono_ms)).expect("the first epoch is announced at once");
    assert_eq!(announcement.topic, "dev/p1/d1/sys/key");
    assert_eq!(device.hear(&announcement.payload), Ok(true));
    assert_eq!(device.epoch(), Some(broker.epoch()));
    (broker, device)
}

#[test]
fn messages_go_both_ways_once() {
    for suite in Suite::ALL {
        let (mut broker, mut device) = logged_in(suite, &policy(), 5, [3; 20]);
        for n in 0..3_u8 {
            let up = device.seal_up(UP, &[n; 33]).expect("announced");
            assert_eq!(broker.open_up(UP, &up, at(6)), Ok(vec![n; 33]));
            assert_eq!(broker.open_up(UP, &up, at(7)), Err(CipherError::Replayed));
            let down = broker.seal_down(DOWN, &[n; 17]);
            assert_eq!(device.open_down(DOWN, &down), Ok(vec![n; 17]));
            assert_eq!(device.open_down(DOWN, &down), Err(CipherError::Replayed));
            // Neither side takes its own.
            assert_eq!(broker.open_up(DOWN, &down, at(7)), Err(CipherError::Altered));
            assert_eq!(device.open_down(UP, &up), Err(CipherError::Altered));
        }
    }
}

#[test]
fn each_reason_for_a_drop_is_told_and_counted() {
    let drops = Drops::default();
    let (mut broker, mut device) = logged_in(Suite::Gcm, &policy(), 0, [3; 20]);
    let mut frames: Vec<Vec<u8>> = (0..300).map(|_| device.seal_up(UP, b"x").expect("announced")).collect();
    let last = frames.pop().expect("300");
    assert_eq!(broker.open_up(UP, &last, at(1)), Ok(b"x".to_vec()));
    let mut future = last.clone();
    future[5] = future[5].wrapping_add(1);
    let cases = [
        (UP, b"{\"t\":20.5}".to_vec(), CipherError::Malformed),
        (UP, [&[2], &last[1..]].concat(), CipherError::Malformed),
        (UP, [&[1, 3], &last[2..]].concat(), CipherError::Suite),
        (UP, future, CipherError::EpochUnknown),
        ("dev/p1/d1/up/u", last.clone(), CipherError::Altered),
        (UP, last, CipherError::Replayed),
        (UP, frames[43].clone(), CipherError::TooOld),
    ];
    for (topic, frame, error) in cases {
        let got = broker.open_up(topic, &frame, at(2)).expect_err("a drop");
        assert_eq!(got, error);
        drops.count(got);
    }
    assert!(broker.open_up(UP, &frames[44], at(2)).is_ok(), "still within the window");
    let counts: Vec<(&str, u64)> = drops.iter().map(|(error, count)| (error.label(), count)).collect();
    let expected = [
        ("malformed", 2),
        ("suite", 1),
        ("epoch_unknown", 1),
        ("epoch_over", 0),
        ("altered", 1),
        ("replayed", 1),
        ("too_old", 1),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn the_old_epoch_is_taken_during_its_grace_and_then_refused() {
    let (mut broker, mut device) = logged_in(Suite::Gcm, &policy(), 0, [3; 20]);
    let old: Vec<Vec<u8>> = (0..3).map(|_| device.seal_up(UP, b"old").expect("announced")).collect();
    let hour = 3600 * SECOND_MS;
    let announcement = broker.poll(at(hour)).expect("a new epoch");
    assert_eq!(broker.open_up(UP, &old[0], at(hour)), Ok(b"old".to_vec()));
    assert_eq!(broker.open_up(UP, &old[0], at(hour)), Err(CipherError::Replayed), "in the old epoch too");
    assert_eq!(device.hear(&announcement.payload), Ok(true));
    let new = device.seal_up(UP, b"new").expect("announced");
    assert_eq!(broker.open_up(UP, &new, at(hour + 1)), Ok(b"new".to_vec()));
    assert_eq!(broker.open_up(UP, &old[1], at(hour + 59_999)), Ok(b"old".to_vec()), "behind a new one");
    // Polled or not.
    assert_eq!(broker.open_up(UP, &old[2], at(hour + 60_000)), Err(CipherError::EpochOver));
    // The device seems to have missed the announcement, so there is one more.
    let again = broker.poll(at(hour + 60_000)).expect("an announcement");
    assert!(broker.previous_up.is_none(), "the old keys are gone");
    assert_eq!(device.hear(&again.payload), Ok(false));
    assert_eq!(broker.open_up(UP, &old[2], at(hour + 60_000)), Err(CipherError::EpochOver));
    assert_eq!(broker.poll(at(hour + 60_000)), None);
}

#[test]
fn an_announcement_is_the_brokers_and_not_a_former_one() {
    let (mut broker, mut device) = logged_in(Suite::Gcm, &policy(), 0, [3; 20]);
    let first = broker.announce();
    let second = broker.poll(at(3600 * SECOND_MS)).expect("a new epoch");
    assert_ne!(first.payload, second.payload);
    for position in 0..second.payload.len() {
        let mut forged = second.payload.clone();
        forged[position] ^= 1;
        assert!(device.hear(&forged).is_err(), "byte {position}");
        assert!(device.hear(&second.payload[..position]).is_err(), "cut at {position}");
    }
    assert_eq!(device.hear(&first.payload), Ok(false));
    assert_eq!(device.hear(&second.payload), Ok(true));
    assert_eq!(device.hear(&second.payload), Err(CipherError::Replayed));
    assert_eq!(device.hear(&broker.announce().payload), Ok(false));
    assert_eq!(device.hear(&first.payload), Err(CipherError::EpochOver));
    // That of another log-in, made for the same nonce of the device.
    let (mut other, _) = logged_in(Suite::Gcm, &policy(), 0, [4; 20]);
    assert_eq!(device.hear(&other.announce().payload), Err(CipherError::EpochUnknown));
}

#[test]
fn a_log_in_voids_the_keys_before_it() {
    let (mut broker, mut device) = logged_in(Suite::Gcm, &policy(), 0, [3; 20]);
    let frame = device.seal_up(UP, b"x").expect("announced");
    // The same number of an epoch, other keys; and the likely case, another number.
    let (mut same_epoch, _) =
        logged_in(Suite::Gcm, &policy(), 1, [9, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
    assert_eq!(same_epoch.epoch(), broker.epoch());
    assert_eq!(same_epoch.open_up(UP, &frame, at(1)), Err(CipherError::Altered));
    let (mut other, _) = logged_in(Suite::Gcm, &policy(), 1, [4; 20]);
    assert_eq!(other.open_up(UP, &frame, at(1)), Err(CipherError::EpochUnknown));
    assert_eq!(broker.open_up(UP, &frame, at(1)), Ok(b"x".to_vec()));
}

#[test]
fn the_terms_of_a_log_in() {
    let policy = CipherPolicy::new(&[Suite::Cfb, Suite::Gcm], 3600, 100_000, 60).expect("a policy");
    let terms = |offer: Option<&Offer>, login_nonce| Terms::new(offer, login_nonce, &policy);
    let made = |nonce: &[u8], suite| Ok(Terms { nonce: nonce.into(), suite, wrapped: None });
    assert_eq!(terms(None, Some("3f9a6c1e")), made(b"3f9a6c1e", Suite::Cfb));
    assert_eq!(terms(None, Some("3f9a6c1e~gcm")), made(b"3f9a6c1e~gcm", Suite::Gcm));
    assert_eq!(terms(None, Some("3f9a6c1e~cbc")), Err(TermsError::SuiteNotAllowed));
    assert_eq!(terms(None, Some("short")), Err(TermsError::NoNonce));
    assert_eq!(terms(None, None), Err(TermsError::NoNonce));
    let said = Offer { nonce: Some((*b"12345678").into()), suite: Some(Suite::Gcm), wrapped: None };
    assert_eq!(terms(Some(&said), Some("3f9a6c1e~cbc")), made(b"12345678", Suite::Gcm), "the offer goes first");
    assert_eq!(terms(Some(&said), None), made(b"12345678", Suite::Gcm));

    let wrapped = Offer { wrapped: Some([1; 256].into()), ..Offer::default() };
    let hash = wrapped_hash(&[1; 256]);
    let expected = Terms { nonce: hash.as_bytes().into(), suite: Suite::Cfb, wrapped: wrapped.wrapped.clone() };
    assert_eq!(terms(Some(&wrapped), Some(&hash)), Ok(expected));
    assert_eq!(terms(Some(&wrapped), Some("3f9a6c1e")), Err(TermsError::Unsigned));
    assert_eq!(terms(Some(&wrapped), None), Err(TermsError::Unsigned));
    let with_nonce = Offer { nonce: said.nonce, ..wrapped };
    assert_eq!(terms(Some(&with_nonce), None), Err(TermsError::Unsigned));
}

#[test]
fn a_key_of_the_devices_own_serves_as_its_secret() {
    let key = DeviceKey::new([5; 32]);
    let terms = Terms { nonce: (*b"12345678").into(), suite: Suite::Cbc, wrapped: Some([1; 256].into()) };
    let mut broker = Cipher::begin(who(), &policy(), (&terms, Material::Key(&key)), (at(0), [1; 20]));
    let mut device = DeviceCipher::new(who(), Suite::Cbc, Material::Key(&key), b"12345678");
    let announcement = broker.poll(at(0)).expect("the first");
    assert_eq!(device.hear(&announcement.payload), Ok(true));
    let up = device.seal_up(UP, b"x").expect("announced");
    assert_eq!(broker.open_up(UP, &up, at(0)), Ok(b"x".to_vec()));
    let mut other = DeviceCipher::new(who(), Suite::Cbc, Material::Key(&DeviceKey::new([6; 32])), b"12345678");
    assert_eq!(other.hear(&announcement.payload), Err(CipherError::Altered));
}

#[test]
fn a_session_is_small_and_says_nothing() {
    assert!(size_of::<Cipher>() <= 448, "{} bytes", size_of::<Cipher>());
    let (broker, device) = logged_in(Suite::Gcm, &policy(), 0, [0; 20]);
    assert_eq!(
        format!("{broker:?} {device:?}"),
        "Cipher(aes-128-gcm, epoch 0) DeviceCipher(aes-128-gcm, epoch Some(0))"
    );
}

/// What happens on a connection.
#[derive(Clone, Debug)]
enum Event {
    /// The device seals; what it has sealed is sent later.
    Seal(u8),
    /// One of those sealed and not sent arrives.
    Arrive(prop::sample::Index),
    /// The broker sends.
    Down(u8),
    /// Time passes.
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => any::<u8>().prop_map(Event::Seal),
        6 => any::<prop::sample::Index>().prop_map(Event::Arrive),
        2 => any::<u8>().prop_map(Event::Down),
        4 => (0_u64..500).prop_map(Event::Pass),
    ];
    proptest::collection::vec(event, 1..400)
}

proptest! {
    /// Traffic that is reordered, and delayed by less than the grace, across as many epochs as come: nothing is lost, nothing is
    /// taken twice.
    #[test]
    fn nothing_is_lost_across_epochs(events in events(), suite in proptest::sample::select(&Suite::ALL), random: [u8; 20]) {
        // Short epochs: 16 messages or 10 seconds, a second of grace.
        let policy = CipherPolicy::new(&[suite], 10, 16, 1).expect("a policy");
        let (mut broker, mut device) = logged_in(suite, &policy, 0, random);
        let first = broker.epoch();
        let (mut now, mut on_the_way, mut turns) = (0_u64, Vec::<(u64, u8, Vec<u8>)>::new(), 0);
        for event in events {
            match event {
                Event::Seal(value) => {
                    on_the_way.push((now, value, device.seal_up(UP, &[value; 5]).expect("announced")));
                }
                Event::Arrive(index) if !on_the_way.is_empty() => {
                    let (_, value, frame) = on_the_way.swap_remove(index.index(on_the_way.len()));
                    prop_assert_eq!(broker.open_up(UP, &frame, at(now)), Ok(vec![value; 5]));
                    prop_assert_eq!(broker.open_up(UP, &frame, at(now)), Err(CipherError::Replayed));
                }
                Event::Arrive(_) => {}
                Event::Down(value) => {
                    let frame = broker.seal_down(DOWN, &[value; 5]);
                    prop_assert_eq!(device.open_down(DOWN, &frame), Ok(vec![value; 5]));
                }
                Event::Pass(ms) => {
                    now += ms;
                    // What has been on the way for half the grace arrives.
                    while let Some(late) = on_the_way.iter().position(|(sent, _, _)| sent + 500 <= now) {
                        let (_, value, frame) = on_the_way.swap_remove(late);
                        prop_assert_eq!(broker.open_up(UP, &frame, at(now)), Ok(vec![value; 5]));
                    }
                }
            }
            while let Some(announcement) = broker.poll(at(now)) {
                turns += u32::from(device.hear(&announcement.payload).expect("the broker's"));
            }
            prop_assert!(broker.deadline_ms() > now);
        }
        prop_assert_eq!(broker.epoch(), first + turns);
    }

    /// The clocks go where they like, the other one backwards too: no panic, and what is sealed in the current epoch is taken.
    #[test]
    fn clocks_may_jump(jumps in proptest::collection::vec((any::<u32>(), any::<u64>(), any::<bool>()), 1..50)) {
        let (mut broker, mut device) = logged_in(Suite::Gcm, &policy(), 0, [3; 20]);
        let mut mono_ms = 0_u64;
        for (jump, unix_ms, is_polled) in jumps {
            mono_ms += u64::from(jump);
            let now = Now { mono_ms, unix_ms };
            if is_polled && let Some(announcement) = broker.poll(now) {
                prop_assert!(device.hear(&announcement.payload).is_ok());
            }
            let up = device.seal_up(UP, b"x").expect("announced");
            prop_assert_eq!(broker.open_up(UP, &up, now), Ok(b"x".to_vec()));
        }
    }
}

#[test]
fn ten_epochs_lose_nothing() {
    let policy = CipherPolicy::new(&[Suite::Gcm], 3600, 100, 60).expect("a policy");
    let (mut broker, mut device) = logged_in(Suite::Gcm, &policy, 0, [3; 20]);
    let (first, mut now, mut late) = (broker.epoch(), 0, Vec::new());
    while broker.epoch() < first + 10 {
        now += SECOND_MS;
        // Seven at a time, in reverse, and one of them 30 seconds late.
        let mut frames: Vec<Vec<u8>> = (0..7).map(|_| device.seal_up(UP, b"x").expect("announced")).collect();
        late.push((now + 30 * SECOND_MS, frames.pop().expect("seven")));
        let is_due = |(due, _): &(u64, Vec<u8>)| *due <= now;
        frames.extend(late.extract_if(.., |entry| is_due(entry)).map(|(_, frame)| frame));
        for frame in frames.iter().rev() {
            assert_eq!(broker.open_up(UP, frame, at(now)), Ok(b"x".to_vec()), "epoch {}", broker.epoch() - first);
        }
        while let Some(announcement) = broker.poll(at(now)) {
            assert!(device.hear(&announcement.payload).is_ok());
        }
    }
}
