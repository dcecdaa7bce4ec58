use turnpike_mqtt::ForwardableItem;

use super::super::device::DeviceCipher;
use super::super::offer::{KEY_PROPERTY, NONCE_PROPERTY, SUITE_PROPERTY, wrapped_hash};
use super::super::wrap::testing;
use super::super::{DeviceKey, Suite};
use super::*;

const UP: &str = "dev/p1/d1/up/t";
const NOW: Now = Now { mono_ms: 5, unix_ms: 0 };

fn secret() -> Secret {
    Secret::new(b"0123456789abcdef").expect("a secret")
}

fn login(nonce: Option<&str>) -> Login {
    Login {
        who: Arc::new(DeviceIdentity { product: "p1".into(), device: "d1".into(), means: Default::default() }),
        policy: CipherPolicy::new(&[Suite::Gcm, Suite::Cbc], 3600, 16, 60).expect("a policy"),
        secret: Some(secret()),
        nonce: nonce.map(Box::from),
        platform_key: None,
    }
}

fn new(login: &Login) -> (SessionCipher, Arc<Counts>) {
    let counts = Arc::default();
    (SessionCipher::new(login.clone(), Arc::clone(&counts)), counts)
}

fn begin(cipher: &mut SessionCipher, properties: &[(&str, &str)]) -> Result<(), ConnectReason> {
    let mut bytes = Vec::new();
    properties.iter().for_each(|(name, value)| ForwardableItem::User(name, value).encode(&mut bytes));
    cipher.begin(UserProperties::from_encoded(&bytes), NOW, &mut |bytes| bytes.fill(3))
}

fn hello(cipher: &mut SessionCipher, offer: &Offer) -> Result<(), ReasonCode> {
    cipher.hello(&offer.to_hello(), NOW, &mut |bytes| bytes.fill(3))
}

/// The other end, once it has heard what is announced.
fn device(cipher: &mut SessionCipher, suite: Suite, material: Material<'_>, nonce: &str) -> DeviceCipher {
    let mut device = DeviceCipher::new(login(None).who, suite, material, nonce.as_bytes());
    let announcement = cipher.poll(NOW).expect("the first");
    assert_eq!(device.hear(&announcement.payload), Ok(true));
    device
}

#[test]
fn a_nonce_of_connect_makes_keys() {
    let nonce = "0123456789";
    type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], Suite);
    let cases: [Case<'_>; 4] = [
        (Some(nonce), &[], Suite::Gcm),
        (Some("another nonce"), &[(NONCE_PROPERTY, nonce)], Suite::Gcm),
        (None, &[(SUITE_PROPERTY, "aes-128-cbc"), (NONCE_PROPERTY, nonce)], Suite::Cbc),
        (Some(nonce), &[(SUITE_PROPERTY, "aes-128-cbc")], Suite::Cbc),
    ];
    for (login_nonce, properties, suite) in cases {
        let (mut cipher, counts) = new(&login(login_nonce));
        assert_eq!((cipher.is_ready(), cipher.deadline_ms(), counts.epochs()), (false, None, 0));
        assert_eq!(begin(&mut cipher, properties), Ok(()));
        assert!(cipher.is_ready() && cipher.deadline_ms().is_some());
        let secret = secret();
        let mut device = device(&mut cipher, suite, Material::Secret(&secret), nonce);
        for n in 0..8_u8 {
            let up = device.seal_up(UP, &[n]).expect("announced");
            assert_eq!(cipher.open(UP, &up, NOW), Ok(vec![n]));
            let down = cipher.seal("t", &[n]).expect("keys");
            assert_eq!(device.open_down("t", &down), Ok(vec![n]));
        }
        assert_eq!(counts.epochs(), 1);
        let next = cipher.poll(NOW).expect("16 messages are enough");
        assert_eq!((device.hear(&next.payload), counts.epochs()), (Ok(true), 2));
        let again = cipher.announce().expect("keys");
        assert_eq!((device.hear(&again.payload), counts.epochs()), (Ok(false), 2), "a repetition is no epoch");
        let hello = hello(&mut cipher, &Offer { nonce: Some((*b"01234567").into()), ..Offer::default() });
        assert_eq!(hello, Err(ReasonCode::NotAuthorized), "it has keys");
    }
}

#[test]
fn without_a_nonce_a_hello_makes_keys() {
    let (mut cipher, counts) = new(&login(None));
    assert_eq!(begin(&mut cipher, &[("x", "y")]), Ok(()));
    assert!(!cipher.is_ready());
    assert_eq!(cipher.open(UP, b"plain", NOW), Err(ReasonCode::NotAuthorized));
    assert_eq!((cipher.seal(UP, b"x"), cipher.poll(NOW), cipher.announce()), (None, None, None));
    assert_eq!(cipher.hello(b"plain", NOW, &mut |_| {}), Err(ReasonCode::PayloadFormatInvalid));
    let offer = |suite| Offer { nonce: Some((*b"01234567").into()), suite, wrapped: None };
    assert_eq!(hello(&mut cipher, &Offer::default()), Err(ReasonCode::NotAuthorized), "no nonce still");
    assert_eq!(hello(&mut cipher, &offer(Some(Suite::Cfb))), Err(ReasonCode::NotAuthorized));
    assert!(!cipher.is_ready());
    assert_eq!(hello(&mut cipher, &offer(None)), Ok(()));
    device(&mut cipher, Suite::Gcm, Material::Secret(&secret()), "01234567");
    assert_eq!(counts.drops.iter().map(|(_, count)| count).sum::<u64>(), 1, "a hello isn't a payload");
}

#[test]
fn what_cannot_be_an_offer_lets_nobody_in() {
    for properties in [[(NONCE_PROPERTY, "short")], [(SUITE_PROPERTY, "aes-128-cfb")], [(KEY_PROPERTY, "AQID")]] {
        let (mut cipher, _) = new(&login(Some("0123456789")));
        assert_eq!(begin(&mut cipher, &properties), Err(ConnectReason::NotAuthorized), "{properties:?}");
    }
}

#[test]
fn each_drop_has_a_reason_and_a_repetition_is_none() {
    let (mut cipher, counts) = new(&login(Some("0123456789")));
    begin(&mut cipher, &[]).expect("a nonce");
    let mut device = device(&mut cipher, Suite::Gcm, Material::Secret(&secret()), "0123456789");
    let frame = device.seal_up(UP, b"x").expect("announced");
    assert!(cipher.open(UP, &frame, NOW).is_ok());
    assert_eq!(cipher.open(UP, &frame, NOW), Err(ReasonCode::Success));
    let mut void = frame.clone();
    void[5] ^= 1;
    assert_eq!(cipher.open(UP, &void, NOW), Err(ReasonCode::NotAuthorized));
    assert_eq!(cipher.open("dev/p1/d1/up/u", &frame, NOW), Err(ReasonCode::PayloadFormatInvalid));
    assert_eq!(cipher.open(UP, b"", NOW), Err(ReasonCode::PayloadFormatInvalid));
    assert_eq!(counts.drops.iter().map(|(_, count)| count).collect::<Vec<_>>(), [1, 0, 1, 0, 1, 1, 0]);
}

#[test]
fn the_topic_of_keys_is_known_without_being_made() {
    let (cipher, _) = new(&login(None));
    assert!(cipher.is_key_topic(&cipher.key_topic()));
    for topic in ["dev/p1/d1/sys/keys", "dev/p1/d1/sys/key/", "dev/p1/d/1/sys/key", "dev/p1/d2/sys/key", "x", ""] {
        assert!(!cipher.is_key_topic(topic), "{topic}");
    }
}

#[test]
fn a_device_without_a_secret_wraps_a_key_of_its_own() {
    let platform = testing::platform_key();
    let key = DeviceKey::new([5; 32]);
    let wrapped = platform.public().wrap(&key, [1; 32]);
    let nonce = wrapped_hash(&wrapped);
    let bare = Login { secret: None, ..login(Some(&nonce)) };
    let keyed = Login { platform_key: Some(Arc::new(platform)), ..bare.clone() };
    let offer = Offer { wrapped: Some(wrapped.into()), ..Offer::default() };
    // It has a nonce, and yet no key: it may bring one in a hello.
    let (mut cipher, _) = new(&keyed);
    assert_eq!((begin(&mut cipher, &[]), cipher.is_ready()), (Ok(()), false));
    assert_eq!(hello(&mut cipher, &offer), Ok(()));
    device(&mut cipher, Suite::Gcm, Material::Key(&key), &nonce);
    let (mut cipher, _) = new(&bare);
    assert_eq!(hello(&mut cipher, &offer), Err(ReasonCode::NotAuthorized), "there is no key of the platform");
    let (mut cipher, _) = new(&Login { nonce: Some("0123456789".into()), ..keyed });
    assert_eq!(hello(&mut cipher, &offer), Err(ReasonCode::NotAuthorized), "the log-in wasn't signed over it");
}
