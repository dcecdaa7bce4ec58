use proptest::prelude::*;

use super::*;
use crate::credential::{Credentials, Request, aliyun, answer, native};

/// Of the published vectors.
fn secret() -> Secret {
    Secret::new(b"0123456789abcdef0123456789abcdef").expect("a secret")
}

fn signed(client_id: &str, password: &str) -> bool {
    Claim::parse(client_id, "dev001&a1B2c3D4e5F", password.as_bytes())
        .is_some_and(|claim| claim.is_signed_by(&secret()))
}

#[test]
fn aliyun_sdks_are_understood() {
    let python =
        "a1B2c3D4e5F&dev001|securemode=3,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,timestamp=1795231143|";
    assert!(signed(python, "671d800016e8a3d3a771b54d74a4b36a32c851be"));
    assert!(signed(python, "671D800016E8A3D3A771B54D74A4B36A32C851BE"));
    assert!(!signed(python, "671d800016e8a3d3a771b54d74a4b36a32c851bf"));
    let node = "a1B2c3D4e5F&dev001|securemode=3,signmethod=hmacsha1,timestamp=1795231053661,lan=NodeJS,_v=1.2.8|";
    assert!(signed(node, "dfd8b31201ad990d814e44a83eeb40d554390ad6"));
    let sorted_otherwise =
        "a1B2c3D4e5F&dev001|timestamp=1795231053661,_v=1.2.8,lan=NodeJS,signmethod=HmacSha1,securemode=2";
    assert!(signed(sorted_otherwise, "dfd8b31201ad990d814e44a83eeb40d554390ad6"));
}

#[test]
fn aliyun_is_tolerant_of_what_sdks_vary() {
    let (product, device, secret) = ("a1B2c3D4e5F", "dev001", &secret());
    // The C SDK.
    let c = aliyun(product, device, secret, "a1B2c3D4e5F.dev001", SignMethod::Sha256, Some("2524608000000"));
    assert!(signed(&c.client_id, &c.password.to_uppercase()));
    for method in [SignMethod::Sha256, SignMethod::Sha1, SignMethod::Md5] {
        let made = aliyun(product, device, secret, "x", method, None);
        assert!(signed(&made.client_id, &made.password), "{method:?} without a timestamp");
    }
    let md5 = aliyun(product, device, secret, "x", SignMethod::Md5, None);
    assert!(signed("x|securemode=3|", &md5.password), "hmacmd5 is the default");
    for client_id in ["x", "", "x|signmethod=hmacsha512|", "y|securemode=3|"] {
        assert!(!signed(client_id, &md5.password), "{client_id}");
    }
}

#[test]
fn no_part_of_a_signature_is_one() {
    let made = aliyun("a1B2c3D4e5F", "dev001", &secret(), "x", SignMethod::Sha256, None);
    assert!(signed(&made.client_id, &made.password));
    for len in 0..made.password.len() {
        assert!(!signed(&made.client_id, &made.password[..len]), "{len}");
    }
    for wrong in ["zz".repeat(32), format!("{}00", made.password), "0".repeat(60_000)] {
        assert!(!signed(&made.client_id, &wrong));
    }
}

#[test]
fn native_signs_every_field() {
    let made = native("p", "d", &secret(), "c", 1_700_000_000_000, "n");
    let check = |client_id: &str, user_name: &str, password: &str| {
        Claim::parse(client_id, user_name, password.as_bytes()).is_some_and(|claim| claim.is_signed_by(&secret()))
    };
    assert!(check("c", "p/d", &made.password));
    assert!(!check("c2", "p/d", &made.password));
    assert!(!check("c", "p/d2", &made.password));
    assert!(!check("c", "q/d", &made.password));
    assert!(!check("c", "p/d", &made.password.replace(";n;", ";m;")));
    assert!(!check("c", "p/d", &made.password.replace("1700000000000", "1700000000001")));
    let long = format!("v1;1;{};00", "n".repeat(65));
    for bad in ["v1;", "v1;1;n", "v1;x;n;00", "v1;+1;n;00", "v1;;n;00", "v1;1;;00", "v1;1;n\n;00", &long] {
        assert_eq!(Claim::parse("c", "p/d", bad.as_bytes()), None, "{bad}");
    }
    for bad in ["v1;1;n;00;x", "v2;1;n;00", "v1;99999999999999999999;n;00"] {
        assert_eq!(Claim::parse("c", "p/d", bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_challenge_is_answered_raw_or_in_hex() {
    let text = answer(&secret(), "c", "p", "d", b"challenge");
    let right = |challenge: &[u8], given: &[u8]| answers(&secret(), "c", "p", "d", challenge, given);
    assert!(right(b"challenge", text.as_bytes()));
    assert!(right(b"challenge", text.to_uppercase().as_bytes()));
    assert!(right(b"challenge", &hex::decode(&text).expect("hex")));
    assert!(!right(b"other", text.as_bytes()));
    assert!(!right(b"challenge", b""));
    assert!(!right(b"challenge", &[0; 64]));
}

#[test]
fn credentials_are_made_for_every_profile() {
    let secret = secret();
    let request = Request {
        product: "p",
        device: "d",
        secret: &secret,
        client_id: None,
        timestamp_ms: 1_700_000_000_000,
        nonce: "n",
        method: SignMethod::Sha256,
    };
    for profile in Profile::ALL {
        for client_id in [None, Some("mine")] {
            let made = Credentials::make(profile, &Request { client_id, ..request });
            let claim = Claim::parse(&made.client_id, &made.user_name, made.password.as_bytes()).expect("a claim");
            assert_eq!((claim.profile(), claim.identity()), (profile, ("p", "d")));
            assert!(claim.is_signed_by(&secret));
            assert!(made.client_id.starts_with(client_id.unwrap_or("p.d")));
        }
        assert_eq!(profile.as_str().parse(), Ok(profile));
    }
    assert!("azure".parse::<Profile>().is_err());
}

#[test]
fn a_set_of_profiles_keeps_what_is_put_in() {
    assert!(Profile::ALL.into_iter().all(|profile| ProfileSet::ALL.contains(profile)));
    let one = ProfileSet::from_iter([Profile::Aliyun]);
    assert!(one.contains(Profile::Aliyun) && !one.contains(Profile::Native));
    assert_eq!(ProfileSet::from_bits(one.bits()), Some(one));
    assert_eq!(ProfileSet::from_bits(0x80), None);
}

proptest! {
    #[test]
    fn no_text_panics(
        client_id in "\\PC{0,40}|[a-z|=,]{0,40}",
        user_name in "\\PC{0,40}|[a-z&/]{0,10}",
        password in proptest::collection::vec(any::<u8>(), 0..80),
        native in "v1;[0-9;a-f+-]{0,60}",
    ) {
        for password in [&password[..], native.as_bytes()] {
            if let Some(claim) = Claim::parse(&client_id, &user_name, password) {
                prop_assert!(!claim.is_signed_by(&secret()));
            }
            prop_assert!(!answers(&secret(), &client_id, &user_name, &user_name, b"x", password));
        }
    }
}
