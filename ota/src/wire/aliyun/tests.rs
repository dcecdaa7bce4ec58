//! What the SDKs send, and what they look for.

use proptest::prelude::*;

use super::*;
use crate::target::NameError;
use crate::wire::testing::{contents, firmware};

const SHA256: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
const MD5: &str = "25f9e794323b453885f5181f1b624d0b";

fn progress(step: &str, desc: &str) -> Result<(Step, Option<Why>), WireError> {
    let text = format!(r#"{{"id":"1","params":{{"step":{step},"desc":"{desc}","module":"MCU"}}}}"#);
    Progress::read(text.as_bytes()).map(|progress| (progress.step, progress.why))
}

#[test]
fn a_version_with_and_without_a_module() {
    let inform = Inform::read(br#"{"id":"123","params":{"version":"1.0.1","module":"MCU"}}"#).expect("an inform");
    assert_eq!((inform.target.as_str(), inform.version.as_str()), ("MCU", "1.0.1"));
    assert_eq!(inform.id, Some(RequestId::Text("123".into())));
    // As the C SDK writes it.
    let inform = Inform::read(br#"{"id":7, "params":{"version":"app-1.0.0"}}"#).expect("an inform");
    assert_eq!(inform.target.as_str(), Target::DEFAULT);
    for (text, error) in [
        (r#"{"id":"1"}"#, WireError::Malformed),
        (r#"{"id":"1","params":{}}"#, WireError::Malformed),
        (r#"{"id":"1","params":{"version":1}}"#, WireError::Malformed),
        (r#"{"id":"1","params":{"version":"a/b"}}"#, WireError::Name { field: "version", error: NameError::Character }),
        (
            r#"{"id":"1","params":{"version":"1","module":"a b"}}"#,
            WireError::Name { field: "module", error: NameError::Character },
        ),
    ] {
        assert_eq!(Inform::read(text.as_bytes()), Err(error), "{text}");
    }
}

#[test]
fn a_question_is_answered_with_its_id() {
    let text = br#"{"id":"123","version":"1.0","params":{"module":"MCU"},"method":"thing.ota.firmware.get"}"#;
    let query = Query::read(text).expect("a question");
    assert_eq!(query.target.as_str(), "MCU");
    assert_eq!(nothing(query.id.as_ref()), r#"{"code":200,"data":{},"id":"123","message":"success"}"#);
    assert_eq!(
        Query::read(br#"{"id":"1","params":{}}"#).map(|query| query.target.to_string()),
        Ok("default".to_owned())
    );
    let (firmware, contents) = (firmware(None), contents(true));
    let upgrade = Upgrade { firmware: &firmware, contents: &contents, url: "https://h/f", method: SignMethod::Sha256 };
    let data = format!(
        r#"{{"size":9,"version":"1.2.1","url":"https://h/f","md5":"{MD5}","sign":"{SHA256}","signMethod":"Sha256","module":"mcu"}}"#
    );
    let expected = format!(r#"{{"code":200,"data":{data},"id":"123","message":"success"}}"#);
    assert_eq!(upgrade.reply(query.id.as_ref()), expected);
}

#[test]
fn a_push_is_what_the_sdk_looks_for() {
    let (firmware, contents) = (firmware(Some("1.2.0")), contents(false));
    let upgrade = Upgrade { firmware: &firmware, contents: &contents, url: "https://h/f", method: SignMethod::Md5 };
    let data = format!(
        r#"{{"size":9,"version":"1.2.1","url":"https://h/f","md5":"{MD5}","sign":"{MD5}","signMethod":"Md5","module":"mcu","isDiff":1}}"#
    );
    assert_eq!(upgrade.pushed(17), format!(r#"{{"code":"1000","data":{data},"id":17,"message":"success"}}"#));
}

#[test]
fn steps_are_percents_and_failures() {
    let failed = |retryable, why| Ok((Step::Failed { retryable }, why));
    for (step, expected) in [
        ("0", Ok((Step::Downloading(0), None))),
        (r#""50""#, Ok((Step::Downloading(50), None))),
        ("100", Ok((Step::Downloaded, None))),
        (r#""-1""#, failed(true, Some(Why::Text("battery".into())))),
        ("-2", failed(true, Some(Why::Code(12)))),
        ("-3", failed(true, Some(Why::Code(10)))),
        (r#""-4""#, failed(false, Some(Why::Code(14)))),
        ("-5", Err(WireError::Range { field: "step" })),
        ("101", Err(WireError::Range { field: "step" })),
        (r#""half""#, Err(WireError::Range { field: "step" })),
        ("1.5", Err(WireError::Malformed)),
        ("null", Err(WireError::Malformed)),
    ] {
        assert_eq!(progress(step, "battery"), expected, "{step}");
    }
    assert_eq!(progress("-1", ""), failed(true, None));
}

proptest! {
    #[test]
    fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..300), text in r#"\{"params":\{"(step|version|module)":[a-z0-9"{}:,-]{0,40}\}\}"#) {
        for payload in [&payload[..], text.as_bytes()] {
            let _ = Inform::read(payload);
            let _ = Query::read(payload);
            let _ = Progress::read(payload);
        }
    }
}
