//! The examples of the page, each fault, and anything.

use proptest::prelude::*;

use super::*;
use crate::target::NameError;
use crate::wire::testing::{contents, firmware};
use crate::wire::{MESSAGE_BYTES_MAX, REASON_BYTES_MAX};

const SHA256: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
const MD5: &str = "25f9e794323b453885f5181f1b624d0b";

fn check(text: &str) -> Result<Check, WireError> {
    Check::read(text.as_bytes())
}

fn progress(text: &str) -> Result<(u32, Step, Option<Why>), WireError> {
    Progress::read(text.as_bytes()).map(|Progress { offer, step, why }| (offer, step, why))
}

#[test]
fn a_check_says_what_it_says() {
    let full =
        check(r#"{"id":1,"versions":{"mcu":"1.2.0","module":"3.0.1"},"hardware":"A1","zone":"+08:00","new":[]}"#);
    let full = full.expect("a check");
    assert_eq!(full.id, Some(RequestId::Number(1)));
    let versions: Vec<_> = full.versions.iter().map(|(target, version)| (target.as_str(), version.as_str())).collect();
    assert_eq!(versions, [("mcu", "1.2.0"), ("module", "3.0.1")]);
    assert_eq!(full.hardware.map(|hardware| hardware.to_string()).as_deref(), Some("A1"));
    assert_eq!(full.zone.as_deref(), Some("+08:00"));
    let least = check(r#"{"versions":{}}"#).expect("a check");
    assert_eq!((least.id, least.hardware, least.zone), (None, None, None));
}

#[test]
fn each_fault_of_a_check_has_its_name() {
    let many: Vec<_> = (0..33).map(|number| format!(r#""t{number}":"1""#)).collect();
    for (text, error) in [
        ("", WireError::Malformed),
        ("[]", WireError::Malformed),
        (r#"{"id":1}"#, WireError::Malformed),
        (r#"{"versions":{"mcu":1}}"#, WireError::Malformed),
        (r#"{"versions":{},"hardware":1}"#, WireError::Malformed),
        (r#"{"versions":{},"id":{}}"#, WireError::Malformed),
        (r#"{"versions":{"mcu":"1","mcu":"2"}}"#, WireError::Twice),
        (r#"{"versions":{"mcu":"a b"}}"#, WireError::Name { field: "versions", error: NameError::Character }),
        (r#"{"versions":{"":"1"}}"#, WireError::Name { field: "versions", error: NameError::Length }),
        (r#"{"versions":{},"hardware":"/"}"#, WireError::Name { field: "hardware", error: NameError::Character }),
        (&format!(r#"{{"versions":{{}},"zone":"{}"}}"#, "x".repeat(33)), WireError::Range { field: "zone" }),
        (&format!(r#"{{"versions":{{}},"id":"{}"}}"#, "x".repeat(65)), WireError::Range { field: "id" }),
        (&format!(r#"{{"versions":{{{}}}}}"#, many.join(",")), WireError::TooManyVersions),
        (&" ".repeat(MESSAGE_BYTES_MAX + 1), WireError::TooLong),
    ] {
        assert_eq!(check(text), Err(error), "{text}");
    }
}

#[test]
fn an_offer_has_what_applies() {
    let (patch, signed) = (firmware(Some("1.2.0")), contents(true));
    let link = Some(Link { url: "https://h/f", expires_s: 60 });
    let offer = Offer { offer: 17, firmware: &patch, contents: &signed, link, blocks: true };
    let id = Some(RequestId::Text("a".into()));
    let full = Answer { id, offer: Some(offer), failed: None }.payload();
    let head = format!(
        r#""offer":17,"target":"mcu","version":"1.2.1","size":9,"sha256":"{SHA256}","md5":"{MD5}","crc32":"cbf43926""#
    );
    let rest = r#""signature":"AQID","url":"https://h/f","expires":60,"base":"1.2.0","mqtt":{"min":256,"max":131072,"request":1048576}"#;
    assert_eq!(full, format!(r#"{{"id":"a","offer":{{{head},{rest}}}}}"#));
    let (whole, plain) = (firmware(None), contents(false));
    let offer = Offer { offer: 17, firmware: &whole, contents: &plain, link: None, blocks: false };
    let least = Answer { offer: Some(offer), ..Answer::default() }.payload();
    assert_eq!(least, format!(r#"{{"offer":{{{head}}}}}"#));
}

#[test]
fn an_answer_that_has_nothing_says_so_and_what_failed() {
    let id = Some(RequestId::Number(1));
    assert_eq!(Answer { id: id.clone(), ..Answer::default() }.payload(), r#"{"id":1,"offer":null}"#);
    let failed = Answer { id, offer: None, failed: Some((16, "old \"version\"")) }.payload();
    assert_eq!(failed, r#"{"id":1,"offer":null,"failed":{"offer":16,"reason":"old \"version\""}}"#);
}

#[test]
fn progress_has_its_steps_and_reasons() {
    let failed = |retryable, why| Ok((17, Step::Failed { retryable }, why));
    for (text, expected) in [
        (r#""state":"accepted""#, Ok((17, Step::Accepted, None))),
        (r#""state":"downloading""#, Ok((17, Step::Downloading(0), None))),
        (r#""state":"downloading","percent":100"#, Ok((17, Step::Downloading(100), None))),
        (r#""state":"downloaded","more":{}"#, Ok((17, Step::Downloaded, None))),
        (r#""state":"verified""#, Ok((17, Step::Verified, None))),
        (r#""state":"applying","reason":"""#, Ok((17, Step::Applying, None))),
        (r#""state":"failed""#, failed(true, None)),
        (r#""state":"failed","reason":"space""#, failed(true, Some(Why::Code(13)))),
        (r#""state":"failed","reason":"signature""#, failed(false, Some(Why::Code(11)))),
        (r#""state":"failed","reason":1001"#, failed(true, Some(Why::Code(1001)))),
        (r#""state":"rejected","reason":"not now""#, Ok((17, Step::Rejected, Some(Why::Text("not now".into()))))),
        (r#""state":"succeeded""#, Err(WireError::Range { field: "state" })),
        (r#""state":"downloading","percent":101"#, Err(WireError::Range { field: "percent" })),
        (r#""state":"downloading","percent":256"#, Err(WireError::Malformed)),
        (r#""state":"failed","reason":65536"#, Err(WireError::Range { field: "reason" })),
        (r#""percent":1"#, Err(WireError::Malformed)),
    ] {
        assert_eq!(progress(&format!(r#"{{"offer":17,{text}}}"#)), expected, "{text}");
    }
    assert_eq!(progress(r#"{"offer":4294967296,"state":"accepted"}"#), Err(WireError::Malformed));
    let long = format!(r#"{{"offer":17,"state":"failed","reason":"{}"}}"#, "é".repeat(100));
    let Ok((_, _, Some(Why::Text(text)))) = progress(&long) else { panic!("a text") };
    assert_eq!(text.len(), REASON_BYTES_MAX);
}

proptest! {
    #[test]
    fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..300), text in r#"\{"(offer|versions|id)":[a-z0-9"{}:,]{0,40}\}"#) {
        for payload in [&payload[..], text.as_bytes()] {
            let _ = Check::read(payload);
            let _ = Progress::read(payload);
        }
    }

    #[test]
    fn whatever_a_request_is_known_by_comes_back(id in any::<i64>(), text in ".{0,16}") {
        for id in [RequestId::Number(id), RequestId::Text(text.into())] {
            let answer = Answer { id: Some(id.clone()), ..Answer::default() }.payload();
            let again = check(&answer.replacen(r#""offer":null"#, r#""versions":{}"#, 1)).expect("a check");
            prop_assert_eq!(again.id, Some(id));
        }
    }
}
