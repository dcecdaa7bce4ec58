use proptest::prelude::*;
use rcgen::{DnType, DnValue, ExtendedKeyUsagePurpose, SanType, date_time_ymd};

use super::testing::{Authority, client, named, with_alternatives};
use super::*;

/// 2023-11-14.
const NOW_MS: u64 = 1_700_000_000_000;

#[test]
fn a_certificate_names_devices_letter_for_letter() {
    let ca = Authority::new("ca");
    let ia5 = |text: &str| text.try_into().expect("ASCII");
    let printable = |text: &str| {
        let mut params = client();
        params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(ia5_printable(text)));
        params
    };
    for params in [
        named("d"),
        named("p/d"),
        printable("d"),
        printable("p/d"),
        with_alternatives(vec![SanType::DnsName(ia5("x.test")), SanType::DnsName(ia5("d"))]),
        with_alternatives(vec![SanType::URI(ia5("p/d"))]),
    ] {
        let leaf = Leaf::read(&ca.issue(&params)).expect("a certificate");
        assert!(leaf.names("p", "d"), "{leaf:?}");
        for (product, device) in [("p", "e"), ("p", "D"), ("p/d", ""), ("", "p/d"), ("p", "p/d"), ("x", "test")] {
            assert!(!leaf.names(product, device), "{leaf:?} {product} {device}");
        }
    }
    let mut organization = client();
    organization.distinguished_name.push(DnType::OrganizationName, "d");
    let mail = with_alternatives(vec![SanType::Rfc822Name(ia5("d"))]);
    for params in [named("q/d"), named("p/d/"), named("d "), named(&"d".repeat(300)), client(), organization, mail] {
        assert!(!Leaf::read(&ca.issue(&params)).expect("a certificate").names("p", "d"));
    }
}

fn ia5_printable(text: &str) -> rcgen::string::PrintableString {
    text.try_into().expect("printable")
}

#[test]
fn a_certificate_may_say_whose_it_is() {
    let ca = Authority::new("ca");
    let whose = |params| {
        let leaf = Leaf::read(&ca.issue(&params)).expect("a certificate");
        leaf.whose().map(|(product, device)| format!("{product} {device}"))
    };
    assert_eq!(whose(named("p/d")).as_deref(), Some("p d"));
    let uris = ["https://a.test/x", "p/d"].map(|text| SanType::URI(text.try_into().expect("ASCII")));
    assert_eq!(whose(with_alternatives(uris.to_vec())).as_deref(), Some("p d"));
    for params in [named("d"), named("p/d/x"), named("/d"), named("p/"), named("p/a b"), client()] {
        assert_eq!(whose(params), None);
    }
}

#[test]
fn an_authority_vouches_for_what_it_has_issued_for_clients() {
    let (ca, other) = (Authority::new("ca"), Authority::new("ca"));
    let (below, beside) = (ca.below("below"), Authority::new("beside"));
    let leaf = ca.issue(&named("d"));
    let both = Authorities::new(&[beside.der(), ca.der()]).expect("two");
    assert!(ca.authorities().vouch_for(&leaf, NOW_MS) && both.vouch_for(&leaf, NOW_MS));
    assert!(!other.authorities().vouch_for(&leaf, NOW_MS), "the same name, another key");
    assert!(!beside.authorities().vouch_for(&leaf, NOW_MS));

    let deep = below.issue(&named("d"));
    assert!(below.authorities().vouch_for(&deep, NOW_MS), "an intermediate one is registered itself");
    assert!(!ca.authorities().vouch_for(&deep, NOW_MS));

    let mut server = named("d");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(!ca.authorities().vouch_for(&ca.issue(&server), NOW_MS));
    let mut any = named("d");
    any.extended_key_usages.clear();
    assert!(ca.authorities().vouch_for(&ca.issue(&any), NOW_MS), "without a purpose it is good for all");

    let day_ms = 24 * 3600 * 1000;
    let mut short = named("d");
    (short.not_before, short.not_after) = (date_time_ymd(2023, 11, 14), date_time_ymd(2023, 11, 15));
    let short = ca.issue(&short);
    for (now_ms, good) in [(NOW_MS, true), (NOW_MS + day_ms, false), (NOW_MS - day_ms, false)] {
        assert_eq!(ca.authorities().vouch_for(&short, now_ms), good);
        assert_eq!(Leaf::read(&short).map(|leaf| leaf.is_good_at(now_ms)), Some(good));
    }
    // Both it and its issuer are from 2020 to 2040.
    for (now_ms, good) in [(1_577_836_800_000, true), (1_577_836_799_000, false), (2_208_988_801_000, false)] {
        assert_eq!(ca.authorities().vouch_for(&leaf, now_ms), good);
    }
    assert!(!ca.authorities().vouch_for(b"", NOW_MS) && !ca.authorities().vouch_for(ca.der(), NOW_MS));
}

#[test]
fn an_authority_whose_time_is_over_vouches_for_nothing() {
    let ca = Authority::new("ca");
    let mut long = named("d");
    (long.not_before, long.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2100, 1, 1));
    let long = ca.issue(&long);
    for (now_ms, good) in [(NOW_MS, true), (1_500_000_000_000, false), (2_300_000_000_000, false)] {
        assert_eq!(ca.authorities().vouch_for(&long, now_ms), good);
        assert!(Leaf::read(&long).is_some_and(|leaf| leaf.is_good_at(now_ms)));
    }
}

#[test]
fn a_certificate_is_good_through_its_last_second() {
    let leaf = Leaf::read(&Authority::new("ca").issue(&named("d"))).expect("a certificate");
    assert_eq!((leaf.not_before_ms, leaf.not_after_ms), (1_577_836_800_000, 2_208_988_800_999));
    assert!(leaf.is_good_at(2_208_988_800_999) && !leaf.is_good_at(2_208_988_801_000));
    assert!(leaf.is_good_at(1_577_836_800_000) && !leaf.is_good_at(1_577_836_799_999));
}

#[test]
fn what_is_no_authority_is_told_why() {
    let ca = Authority::new("ca");
    let (leaf, der) = (ca.issue(&named("d")), ca.der());
    let others: Vec<Authority> = (0..5).map(|n| Authority::new(&format!("ca{n}"))).collect();
    let ders: Vec<&[u8]> = others.iter().map(Authority::der).collect();
    assert!(Authorities::new(&ders[..4]).is_ok());
    for (list, expected) in [
        (&[][..], AuthorityError::Count),
        (&ders, AuthorityError::Count),
        (&[der, der], AuthorityError::Twice),
        (&[&leaf], AuthorityError::NotCa),
        (&[b""], AuthorityError::Damaged),
        (&[&der[1..]], AuthorityError::Damaged),
        (&[&[0x30; 9000]], AuthorityError::TooLong),
    ] {
        assert_eq!(Authorities::new(list), Err(expected));
    }
    let pem = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
    let text = pem("CERTIFICATE", der) + &pem("CERTIFICATE", others[0].der());
    assert_eq!(Authorities::from_pem(&text), Authorities::new(&[der, others[0].der()]));
    assert_eq!(Authorities::from_pem(""), Err(AuthorityError::Count));
    assert_eq!(Authorities::from_pem(&pem("PRIVATE KEY", der)), Err(AuthorityError::Damaged));
    assert_eq!(Authorities::from_pem(&"x".repeat(100_000)), Err(AuthorityError::TooLong));
}

#[test]
fn a_fingerprint_is_read_as_tools_print_it() {
    let fingerprint = Fingerprint::of(b"x");
    let plain = fingerprint.to_string();
    let colons = plain.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    let colons = colons.collect::<Vec<_>>().join(":").to_uppercase();
    for text in [&plain, &plain.to_uppercase(), &colons] {
        assert_eq!(text.parse(), Ok(fingerprint), "{text}");
    }
    for bad in ["", "00", &plain[1..], &format!("{plain}0"), &colons[3..], &format!("{colons}:00"), &"z".repeat(64)] {
        assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
    }
    assert!(format!("{fingerprint:?}").len() < 32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in "\\PC{0,80}|[0-9a-f:]{0,100}",
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let ca = Authority::new("ca");
        let authorities = ca.authorities();
        prop_assert!(Leaf::read(&bytes).is_none() && !authorities.vouch_for(&bytes, NOW_MS));
        let _ = text.parse::<Fingerprint>();
        let _ = Authorities::from_pem(&text);
        let _ = Authorities::from_record(&bytes);
        let mut leaf = ca.issue(&named("p/d"));
        let mut record = authorities.to_record();
        prop_assert_eq!(Authorities::from_record(&record), Some(authorities.clone()));
        let before = leaf.clone();
        for (at, bits) in &flips {
            let (leaf_at, record_at) = (at.index(leaf.len()), at.index(record.len()));
            leaf[leaf_at] ^= bits;
            record[record_at] ^= bits;
        }
        let _ = Leaf::read(&leaf).map(|leaf| leaf.whose().is_some());
        prop_assert!(leaf == before || !authorities.vouch_for(&leaf, NOW_MS), "a changed certificate isn't signed");
        if let Some(authorities) = Authorities::from_record(&record) {
            prop_assert_eq!(authorities.to_record(), record);
        }
    }
}

#[test]
fn an_authority_that_has_expired_is_told() {
    let authority = Authority::new("ca");
    let authorities = authority.authorities();
    let end = x509_cert::der::Decode::from_der(authorities.iter().next().expect("one"))
        .map(|ca: x509_cert::Certificate| ca.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
        .expect("a certificate");
    assert!(!authorities.has_expired(end * 1000 + 999));
    assert!(authorities.has_expired((end + 1) * 1000));
}
