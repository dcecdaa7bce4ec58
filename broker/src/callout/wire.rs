//! Question and answer of the call-out as JSON: what `authz/CALLOUT.md` says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use turnpike_authz::callout::Call;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::verifier::{Grant, Opinion};

/// Of the question's form.
const VERSION: u8 = 1;

#[derive(Serialize)]
struct Body<'a> {
    version: u8,
    product: Option<&'a str>,
    client_id: &'a str,
    user_name: Option<&'a str>,
    /// Base64: a password is any bytes.
    password: Option<String>,
    address: std::net::IpAddr,
    port: u16,
    tls: bool,
    /// Base64 of DER.
    certificate: Option<String>,
}

/// What is sent.
pub(super) fn question(call: &Call) -> Vec<u8> {
    let body = Body {
        version: VERSION,
        product: call.product.as_deref(),
        client_id: &call.client_id,
        user_name: call.user_name.as_deref(),
        password: call.password.as_ref().map(|password| STANDARD.encode(&**password)),
        address: call.peer.ip(),
        port: call.peer.port(),
        tls: call.tls,
        certificate: call.certificate.as_ref().map(|der| STANDARD.encode(der)),
    };
    serde_json::to_vec(&body).expect("texts and numbers are JSON")
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Granted,
    Refused,
    NotMine,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    result: Word,
    product: Option<String>,
    device: Option<String>,
    until_ms: Option<u64>,
    cache_s: Option<u64>,
}

/// What was answered, and for how many milliseconds it may be kept. `product`: what was asked about, if an answer names none. An error says
/// what is wrong with it, and nothing of what was sent.
pub(super) fn answer(bytes: &[u8], product: Option<&str>) -> Result<(Opinion, Option<u64>), String> {
    // serde_json's own words may quote what was sent; where it went wrong is enough.
    let said: Said = serde_json::from_slice(bytes)
        .map_err(|error| format!("no such JSON object, line {} column {}", error.line(), error.column()))?;
    let cache_ms = said.cache_s.map(|s| s.saturating_mul(1000));
    let is_bare = said.product.is_none() && said.device.is_none() && said.until_ms.is_none();
    let opinion = match said.result {
        Word::Granted => {
            let product = said.product.as_deref().or(product).ok_or("granted, and no product")?;
            let product = ProductKey::parse(product).map_err(|_| "granted, and no product's key")?;
            let device = said.device.as_deref().ok_or("granted, and no device")?;
            let device = DeviceName::parse(device).map_err(|_| "granted, and no device's name")?;
            Opinion::Granted(Grant { product, device, until_ms: said.until_ms })
        }
        Word::Refused if is_bare => Opinion::Refused,
        Word::NotMine if is_bare => Opinion::NotMine,
        Word::Refused | Word::NotMine => return Err("not granted, and a product, a device or a time".to_owned()),
    };
    Ok((opinion, cache_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn granted(product: &str, until_ms: Option<u64>) -> Opinion {
        let product = ProductKey::parse(product).expect("a name");
        Opinion::Granted(Grant { product, device: DeviceName::parse("one").expect("a name"), until_ms })
    }

    #[test]
    fn answers_are_what_the_page_says() {
        for (text, expected) in [
            (r#"{"result": "refused"}"#, (Opinion::Refused, None)),
            (r#"{"result": "not_mine", "cache_s": 5}"#, (Opinion::NotMine, Some(5000))),
            (r#"{"result": "granted", "device": "one"}"#, (granted("asked", None), None)),
            (
                r#"{"result": "granted", "product": "lamp", "device": "one", "until_ms": 7, "cache_s": 0}"#,
                (granted("lamp", Some(7)), Some(0)),
            ),
        ] {
            assert_eq!(answer(text.as_bytes(), Some("asked")), Ok(expected), "{text}");
        }
        assert!(answer(br#"{"result": "granted", "device": "one"}"#, None).is_err(), "of which product?");
    }

    #[test]
    fn anything_else_is_no_answer() {
        for text in [
            "",
            "granted",
            "{}",
            "[]",
            r#"{"result": "yes"}"#,
            r#"{"result": "granted"}"#,
            r#"{"result": "granted", "device": "a/b"}"#,
            r#"{"result": "granted", "device": "one", "product": ""}"#,
            r#"{"result": "granted", "device": 1}"#,
            r#"{"result": "granted", "device": "one", "cache": 1}"#,
            r#"{"result": "granted", "device": "one", "cache_s": -1}"#,
            r#"{"result": "refused", "device": "one"}"#,
            r#"{"result": "not_mine", "until_ms": 1}"#,
            r#"{"result": "refused"} {"result": "granted", "device": "one"}"#,
        ] {
            assert!(answer(text.as_bytes(), Some("lamp")).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[{}\":, a-z0-9_]{0,60}") {
            let _ = (answer(&bytes, None), answer(text.as_bytes(), Some("lamp")));
        }
    }
}
