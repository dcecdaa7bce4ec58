use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::people::jwks::KeySetError;
use crate::signed::sign;

const NOW_S: u64 = 1_700_000_000;

// RFC 7515, A.2.
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-\
    SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2\
    CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4F\
    RWyuXpoQ";
const RSA_SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9p\
    c19yb290Ijp0cnVlfQ";
const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5ju\
    jGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383Lc\
    OLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN\
    _IoypGlUPQGe77Rw";

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn secret() -> Secret {
    Secret::new(b"0123456789abcdef0123456789abcdef").expect("long enough")
}

fn claims() -> Value {
    json!({ "iss": "issuer", "sub": "alice", "aud": "app", "exp": NOW_S + 60, "iat": NOW_S })
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()))
}

fn hs256(header: &Value, claims: &Value) -> String {
    let signed = unsigned(header, claims);
    let signature = sign(SignMethod::Sha256, secret().expose(), &signed);
    format!("{signed}.{}", base64(&signature))
}

fn expected<'a>(secret: Option<&'a Secret>, keys: Option<&'a KeySet>) -> Expected<'a> {
    Expected { secret, keys, issuer: Some("issuer"), audience: "app", leeway_s: 30, now_s: NOW_S }
}

fn judge(token: &str) -> Result<u64, TokenFault> {
    let secret = secret();
    verify(token, &expected(Some(&secret), None)).map(|token| {
        assert_eq!(token.subject, "alice");
        token.until_s
    })
}

/// A change of the claims that hold.
fn with(name: &str, value: Value) -> Result<u64, TokenFault> {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
        value => claims[name] = value,
    }
    judge(&hs256(&json!({ "alg": "HS256" }), &claims))
}

#[test]
fn a_token_holds_for_its_audience_from_its_issuer_in_its_time() {
    assert_eq!(with("x", json!(1)), Ok(NOW_S + 90));
    for (name, value, outcome) in [
        ("sub", Value::Null, Err(TokenFault::Malformed)),
        ("sub", json!(1), Err(TokenFault::Malformed)),
        ("iss", Value::Null, Err(TokenFault::Foreign)),
        ("iss", json!("issuer2"), Err(TokenFault::Foreign)),
        ("aud", Value::Null, Err(TokenFault::Malformed)),
        ("aud", json!("other"), Err(TokenFault::Foreign)),
        ("aud", json!([]), Err(TokenFault::Foreign)),
        ("aud", json!(["other", "app"]), Ok(NOW_S + 90)),
        ("aud", json!({ "app": 1 }), Err(TokenFault::Malformed)),
        ("exp", Value::Null, Err(TokenFault::Malformed)),
        ("exp", json!("1700000060"), Err(TokenFault::Malformed)),
        ("exp", json!(NOW_S - 29), Ok(NOW_S + 1)),
        ("exp", json!(NOW_S - 30), Err(TokenFault::Time)),
        ("exp", json!(NOW_S as f64 + 10.5), Ok(NOW_S + 40)),
        ("exp", json!(-5), Err(TokenFault::Time)),
        ("exp", json!(1e300), Ok(u64::MAX)),
        ("exp", json!(u64::MAX), Ok(u64::MAX)),
        ("nbf", json!(NOW_S + 30), Ok(NOW_S + 90)),
        ("nbf", json!(NOW_S + 31), Err(TokenFault::Time)),
        ("iat", json!(NOW_S + 31), Err(TokenFault::Time)),
        ("iat", Value::Null, Ok(NOW_S + 90)),
    ] {
        assert_eq!(with(name, value.clone()), outcome, "{name} {value}");
    }
}

#[test]
fn no_algorithm_but_the_key_s_own_is_taken() {
    let token = |header: Value| judge(&hs256(&header, &claims()));
    assert!(token(json!({ "alg": "HS256", "typ": "JWT", "kid": "any", "jwk": {} })).is_ok());
    for alg in ["none", "None", "HS384", "HS512", "hs256", "", "RS256", "ES256", "EdDSA", "PS256"] {
        assert_eq!(token(json!({ "alg": alg })), Err(TokenFault::NoKey), "{alg}");
    }
    for header in [
        json!({}),
        json!({ "alg": 1 }),
        json!({ "alg": "HS256", "crit": ["exp"] }),
        json!({ "alg": "HS256", "crit": null }),
        json!([]),
        json!("x"),
    ] {
        assert_eq!(token(header.clone()), Err(TokenFault::Malformed), "{header}");
    }
    let unsigned = unsigned(&json!({ "alg": "none" }), &claims());
    assert_eq!(judge(&format!("{unsigned}.")), Err(TokenFault::NoKey));
    assert_eq!(judge(&unsigned), Err(TokenFault::Malformed));
    // A member that is there twice may be read in two ways.
    let twice = base64(br#"{"alg":"HS256","alg":"none"}"#);
    let token = format!("{twice}.{}.AAAA", base64(claims().to_string().as_bytes()));
    assert_eq!(judge(&token), Err(TokenFault::Malformed));
}

#[test]
fn a_public_key_is_no_secret() {
    // The one trick: sign by HMAC with what everybody may know.
    let set = format!(r#"{{"keys":[{{"kty":"RSA","n":"{RSA_N}","e":"AQAB"}}]}}"#);
    let keys = KeySet::parse(&set).expect("a key");
    let token = hs256(&json!({ "alg": "HS256" }), &claims());
    assert_eq!(verify(&token, &expected(None, Some(&keys))), Err(TokenFault::NoKey));
    let other = Secret::new(RSA_N.as_bytes().first_chunk::<256>().expect("long")).expect("a secret");
    assert_eq!(verify(&token, &expected(Some(&other), Some(&keys))), Err(TokenFault::Signature));
}

#[test]
fn whatever_is_changed_isnt_signed() {
    let token = hs256(&json!({ "alg": "HS256" }), &claims());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(judge(&changed).is_err(), "{at}");
        assert!(judge(&token[..at]).is_err(), "cut at {at}");
    }
    assert!(judge(&format!("{token}=")).is_err() && judge(&format!("{token}.")).is_err());
    assert_eq!(judge(&"a".repeat(TOKEN_BYTES_MAX + 1)), Err(TokenFault::Malformed));
}

#[test]
fn published_vectors_are_signed() {
    for (jwk, algorithm, signed, signature) in [
        (format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB"}}"#), Algorithm::Rs256, RSA_SIGNED, RSA_SIGNATURE),
        (
            // RFC 7515, A.3.
            r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#
                .to_owned(),
            Algorithm::Es256,
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            // RFC 8037, A.4.
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#.to_owned(),
            Algorithm::EdDsa,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let keys = KeySet::parse(&format!(r#"{{"keys":[{jwk}]}}"#)).expect("a key");
        let key = keys.find(None, algorithm).expect("its algorithm");
        let mut signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        assert!(key.is_signed(signed.as_bytes(), &signature), "{algorithm:?}");
        assert!(!key.is_signed(&signed.as_bytes()[1..], &signature));
        signature[9] ^= 1;
        assert!(!key.is_signed(signed.as_bytes(), &signature));
        for other in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
            assert_eq!(keys.find(None, other).is_some(), other == algorithm);
        }
    }
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key that is made, its JWK, and how it signs.
fn made_keys() -> Vec<(&'static str, Value, Sign)> {
    let random = SystemRandom::new();
    let document = Ed25519KeyPair::generate_pkcs8(&random).expect("randomness");
    let ed25519 = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("just made");
    let point = base64(ed25519.public_key().as_ref());
    let ed25519_jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": point, "kid": "1", "use": "sig", "alg": "EdDSA" });
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("randomness");
    let p256 = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("just made");
    let point = p256.public_key().as_ref().to_vec();
    let p256_jwk =
        json!({ "kty": "EC", "crv": "P-256", "x": base64(&point[1..33]), "y": base64(&point[33..]), "kid": "2" });
    vec![
        ("EdDSA", ed25519_jwk, Box::new(move |text| ed25519.sign(text).as_ref().to_vec())),
        (
            "ES256",
            p256_jwk,
            Box::new(move |text| p256.sign(&SystemRandom::new(), text).expect("signed").as_ref().to_vec()),
        ),
    ]
}

#[test]
fn keys_of_a_set_sign_tokens() {
    let made = made_keys();
    let set = json!({ "keys": made.iter().map(|(_, jwk, _)| jwk).collect::<Vec<_>>() }).to_string();
    let keys = KeySet::parse(&set).expect("keys");
    let foreign = KeySet::parse(&json!({ "keys": [made_keys()[0].1.clone()] }).to_string()).expect("a key");
    for (alg, jwk, sign) in &made {
        let token = |header: Value| {
            let signed = unsigned(&header, &claims());
            let signature = base64(&sign(signed.as_bytes()));
            verify(&format!("{signed}.{signature}"), &expected(None, Some(&keys))).map(|token| token.until_s)
        };
        assert_eq!(token(json!({ "alg": alg })), Ok(NOW_S + 90));
        assert_eq!(token(json!({ "alg": alg, "kid": jwk["kid"] })), Ok(NOW_S + 90));
        assert_eq!(token(json!({ "alg": alg, "kid": "3" })), Err(TokenFault::UnknownKey));
        assert_eq!(token(json!({ "alg": "RS256" })), Err(TokenFault::NoKey));
        assert_eq!(token(json!({ "alg": "HS256" })), Err(TokenFault::NoKey), "its secret isn't taken");
        let other = if *alg == "EdDSA" { "ES256" } else { "EdDSA" };
        assert_eq!(token(json!({ "alg": other })), Err(TokenFault::Signature));
        let signed = unsigned(&json!({ "alg": alg, "kid": "1" }), &claims());
        let token = format!("{signed}.{}", base64(&sign(signed.as_bytes())));
        assert!(verify(&token, &expected(None, Some(&foreign))).is_err(), "another's key of the same id");
    }
}

#[test]
fn a_set_without_a_key_that_can_be_used_is_none() {
    let jwk = &made_keys()[0].1;
    let set = |change: Value| {
        let mut jwk = jwk.clone();
        jwk.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        KeySet::parse(&json!({ "keys": [jwk] }).to_string()).map(|keys| keys.len())
    };
    assert_eq!(set(json!({})), Ok(1));
    assert_eq!(set(json!({ "use": null, "key_ops": ["verify"], "x5c": [] })), Ok(1));
    let short_rsa = json!({ "kty": "RSA", "alg": "RS256", "n": base64(&[255; 255]), "e": "AQAB" });
    for change in [
        json!({ "use": "enc" }),
        json!({ "key_ops": ["sign"] }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "RS256" }),
        json!({ "kty": "oct", "k": "AAAA" }),
        json!({ "crv": "X25519" }),
        json!({ "x": "AAAA" }),
        json!({ "x": "?" }),
        json!({ "x": null }),
        short_rsa,
    ] {
        assert_eq!(set(change.clone()), Err(KeySetError::NoKey), "{change}");
    }
    let rsa = |n: &[u8]| {
        let jwk = json!({ "kty": "RSA", "n": base64(n), "e": "AQAB" });
        KeySet::parse(&json!({ "keys": [jwk] }).to_string()).is_ok()
    };
    assert!(rsa(&[255; 256]) && rsa(&[&[0][..], &[255; 256]].concat()) && rsa(&[255; 1024]));
    assert!(!rsa(&[255; 1025]) && !rsa(&[0; 256]) && !rsa(&[&[127][..], &[255; 255]].concat()) && !rsa(&[]));
    for bad in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[1]}"#] {
        assert_eq!(KeySet::parse(bad), Err(KeySetError::Malformed), "{bad}");
    }
    assert_eq!(KeySet::parse(r#"{"keys":[]}"#), Err(KeySetError::NoKey));
    let many = json!({ "keys": vec![jwk; 65] }).to_string();
    assert_eq!(KeySet::parse(&many), Err(KeySetError::TooLarge));
    assert_eq!(KeySet::parse(&" ".repeat((64 << 10) + 1)), Err(KeySetError::TooLarge));
}

#[test]
fn without_an_id_a_key_must_be_the_only_one() {
    let (one, other) = (made_keys(), made_keys());
    let mut second = other[0].1.clone();
    second["kid"] = json!("9");
    let keys = KeySet::parse(&json!({ "keys": [one[0].1, second] }).to_string()).expect("keys");
    assert!(keys.find(None, Algorithm::EdDsa).is_none());
    assert!(keys.find(Some("9"), Algorithm::EdDsa).is_some_and(|key| key.is_signed(b"x", &other[0].2(b"x"))));
}

proptest! {
    #[test]
    fn no_text_panics(
        text in "\\PC{0,40}|ey[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,44}",
        header in "\\PC{0,20}|\\{\"alg\":\"(HS256|RS256|ES256|EdDSA)\"(,\"kid\":\"1\")?\\}",
        body in "\\PC{0,30}|\\{(\"[a-z]{3}\":[0-9\"a-z\\[\\]]{1,9},?){0,4}\\}",
        signature in proptest::collection::vec(any::<u8>(), 0..70),
    ) {
        let secret = secret();
        let keys = KeySet::parse(&json!({ "keys": made_keys().iter().map(|key| &key.1).collect::<Vec<_>>() }).to_string());
        let keys = keys.expect("keys");
        let token = format!("{}.{}.{}", base64(header.as_bytes()), base64(body.as_bytes()), base64(&signature));
        for text in [text.as_str(), token.as_str()] {
            let _ = looks_like_one(text);
            prop_assert!(verify(text, &expected(Some(&secret), Some(&keys))).is_err());
        }
        let _ = KeySet::parse(&text);
        let _ = KeySet::parse(&format!("{{\"keys\":[{body}]}}"));
    }
}
