use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0, 0x1b, 0x44, 0x11, 0x3a, 0xb7];
const ONE: (&str, &str) = ("lamp", "one");
// Of the factor `a factor`; made with `printf 'v1a\n1.2.3\n001b44113ab7' | openssl dgst -sha256 -hmac 'a factor'`.

fn key() -> MasterKey {
    MasterKey::new([7; 32])
}

fn factor() -> Secret {
    Secret::new(b"a factor").expect("long enough")
}

fn expectation(firmware: Option<&str>) -> Expectation {
    let firmware = firmware.map(|text| Firmware::parse(text).expect("a version"));
    Expectation::new(ONE, MacAddress::new(MAC), firmware, &factor(), (&key(), [1; 12]))
}

fn value(firmware: &str) -> String {
    Attestation::of(b"a factor", firmware, MAC).to_string()
}

#[test]
fn a_statement_is_met_by_the_module_and_the_firmware() {
    let (right, other) = (value("1.2.3"), value("1.2.4"));
    let upper = right.to_uppercase();
    for (expected, firmware, stated, met) in [
        (None, "1.2.3", &right, true),
        (None, "1.2.3", &upper, true),
        (None, "1.2.4", &other, true),
        (None, "1.2.4", &right, false),
        (Some("1.2.3"), "1.2.3", &right, true),
        (Some("1.2.3"), "1.2.4", &other, false),
        (None, "", &value(""), false),
        (None, "1 2", &value("1 2"), false),
        (None, "1.2.3", &String::new(), false),
        (None, "1.2.3", &"é".repeat(32), false),
    ] {
        let statement = Statement { firmware, value: stated };
        assert_eq!(expectation(expected).is_met(ONE, &statement, &key()), Ok(met), "{expected:?} {firmware}");
    }
    let statement = Statement { firmware: "1.2.3", value: &right };
    assert!(expectation(None).is_met(("lamp", "two"), &statement, &key()).is_err(), "another's factor");
    assert!(expectation(None).is_met(ONE, &statement, &MasterKey::new([8; 32])).is_err());
}

#[test]
fn a_factor_is_sealed_and_is_no_secret_of_the_device() {
    let expectation = expectation(Some("1"));
    let record = expectation.to_record();
    assert!(!record.windows(8).any(|window| window == b"a factor"));
    assert!(key().open(&crate::registry::owner("lamp", "one"), &expectation.factor).is_err());
    assert_eq!(Expectation::from_record(&record), Some(expectation));
    assert!(!format!("{:?}", Statement { firmware: "1.2.3", value: "x" }).contains("1.2.3"));
}

#[test]
fn a_statement_stands_in_properties_or_behind_the_user_name() {
    let none = UserProperties::default();
    let stated = |user_name| Statement::of(Some(user_name), &none).map(|s| (s.firmware, s.value));
    assert_eq!(stated("lamp/one?firmware=1.2.3&attestation=ab"), Some(("1.2.3", "ab")));
    assert_eq!(stated("one&lamp?firmware=1&attestation=ab"), Some(("1", "ab")));
    assert_eq!(stated("lamp/one?firmware=1"), Some(("1", "")));
    assert_eq!(stated("lamp/one?firmware="), Some(("", "")));
    for nothing in ["lamp/one", "hub/one/?api-version=2021-04-12", "", "lamp/one?attestation=ab"] {
        assert_eq!((stated(nothing), bare_user_name(nothing)), (None, nothing));
    }
    assert_eq!(bare_user_name("one&lamp?firmware=1&attestation=ab"), "one&lamp");
    let of = |pairs: &[(&str, &str)]| {
        let mut bytes = Vec::new();
        for (name, value) in pairs {
            bytes.push(0x26);
            for text in [name, value] {
                bytes.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        let properties = UserProperties::from_encoded(&bytes);
        Statement::of(Some("lamp/one?firmware=0&attestation=00"), &properties)
            .map(|s| (s.firmware.to_owned(), s.value.to_owned()))
    };
    let pair = |firmware: &str, value: &str| Some((firmware.to_owned(), value.to_owned()));
    assert_eq!(of(&[("x", "y"), (ATTESTATION_PROPERTY, "ab"), (FIRMWARE_PROPERTY, "1")]), pair("1", "ab"));
    assert_eq!(of(&[(FIRMWARE_PROPERTY, "1")]), pair("1", ""));
    assert_eq!(
        of(&[(FIRMWARE_PROPERTY, "1"), (ATTESTATION_PROPERTY, "a"), (ATTESTATION_PROPERTY, "b")]),
        pair("1", "")
    );
    assert_eq!(of(&[("x", "y")]), pair("0", "00"));
}

#[test]
fn macs_are_read_in_the_usual_ways() {
    for text in ["001b44113ab7", "00:1B:44:11:3A:B7", "00-1b-44-11-3a-b7"] {
        assert_eq!(text.parse(), Ok(MacAddress::new(MAC)));
    }
    for text in
        ["", "001b44113ab", "001b44113ab71", "00:1b:44:11:3a:b", "0:01b:44:11:3a:b7x", "gg1b44113ab7", "é1b44113ab7"]
    {
        assert_eq!(text.parse::<MacAddress>(), Err(NotMac), "{text}");
    }
    assert_eq!(MacAddress::new(MAC).to_string(), "001b44113ab7");
}

proptest! {
    #[test]
    fn no_bytes_panic(record in proptest::collection::vec(any::<u8>(), 0..40), user_name in "\\PC{0,40}", more in "[?&=a-z]{0,40}") {
        if let Some(expectation) = Expectation::from_record(&record) {
            prop_assert_eq!(expectation.to_record(), record);
        }
        for name in [&user_name, &more, &format!("{user_name}?firmware={more}&attestation={user_name}")] {
            if let Some(statement) = Statement::of(Some(name), &UserProperties::default()) {
                prop_assert_eq!(expectation(None).is_met(ONE, &statement, &key()), Ok(false));
            }
        }
    }
}
