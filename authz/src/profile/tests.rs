use proptest::prelude::*;

use super::*;
use crate::credential::{Credentials, MakeError, Request, aliyun, answer, native};

fn secret_of(text: &str) -> Secret {
    Secret::new(text.as_bytes()).expect("a secret")
}

/// Of the published vectors.
fn secret() -> Secret {
    secret_of("0123456789abcdef0123456789abcdef")
}

/// Whether a claim was made with a secret.
fn is_of(claim: &Claim<'_>, product: &str, secret: &Secret) -> bool {
    claim.is_signed_by(&Holder { product, secret })
}

fn signed(client_id: &str, password: &str) -> bool {
    Claim::parse(client_id, "dev001&a1B2c3D4e5F", password.as_bytes()).is_some_and(|claim| is_of(&claim, "", &secret()))
}

/// Whether these are credentials of that profile, made with that secret.
#[track_caller]
fn check(profile: Profile, [client_id, user_name, password]: [&str; 3], product: &str, secret: &str) -> bool {
    let claim = Claim::parse(client_id, user_name, password.as_bytes()).expect("credentials");
    assert_eq!(claim.profile(), profile);
    is_of(&claim, product, &secret_of(secret))
}

/// Seconds since 1970.
fn at(unix_s: u64) -> Now {
    Now { mono_ms: 0, unix_ms: unix_s * 1000 }
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
    // Computed with Python's hmac; the C SDK writes capitals and has this time in its code.
    let c = "a1B2c3D4e5F.dev001|timestamp=2524608000000,_v=sdk-c-4.0.0,securemode=3,signmethod=hmacsha256|";
    assert!(signed(c, "88D3CE1423C115E0425395B171E6E5FD1C9C97C349F1584AD2BAF32D5D913DCA"));
    assert!(signed(&c.replace("hmacsha256", "hmacmd5"), "935b46dafcb8835cef2e06835e305152"));
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

/// Computed with `openssl dgst -sha256 -hmac` and Python's hmac: the format is ours.
#[test]
fn native_is_what_its_document_says() {
    let signature = "e8451a3a50e461800f5ff244d826d4e220732fba5ab4d6f55909a9f1ed6a2300";
    let password = format!("v1;1795231143000;7f3a;{signature}");
    let names = ["a1B2c3D4e5F.dev001", "a1B2c3D4e5F/dev001"];
    let secret = "0123456789abcdef0123456789abcdef";
    assert!(check(Profile::Native, [names[0], names[1], &password], "", secret));
    assert!(!check(Profile::Native, [names[0], names[1], &password.replace("e845", "e855")], "", secret));
    let answer = "a4dadc4b086d20113051cf305c4d4e4e8bfee0e20dbe8bcca3df935f9ff4b984";
    assert!(answers(&secret_of(secret), "c", "p", "d", b"challenge", answer.as_bytes()));
}

#[test]
fn native_signs_every_field() {
    let made = native("p", "d", &secret(), "c", 1_700_000_000_000, "n");
    let check = |client_id: &str, user_name: &str, password: &str| {
        Claim::parse(client_id, user_name, password.as_bytes()).is_some_and(|claim| is_of(&claim, "", &secret()))
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
    assert!(!right(b"challenge", &[0xFF; 64]));
}

/// From `iotauth` of LuatOS (openLuat/LuatOS, olddemo/iotauth), which prints what it sends.
#[test]
fn tencent_is_understood() {
    let user_name = "LD8S5J1L07test;12010126;qkvrc;32472115200";
    let signature = "7f9b0fcd6eb78676f38272f7025948d8564ace5339a5b5c0e00d6339bba30c99";
    let password = format!("{signature};hmacsha256");
    let psk = "acyv3QDJrRa0fW5UE58KnQ==";
    assert!(check(Profile::Tencent, ["LD8S5J1L07test", user_name, &password], "", psk));
    let claim = Claim::parse("LD8S5J1L07", user_name, password.as_bytes()).expect("any client id");
    assert_eq!(claim.identity(), Identity { named: Some(("LD8S5J1L07", "test")), searched: None });
    assert!(is_of(&claim, "", &secret_of(&psk.replace('=', ""))), "somebody lost the padding");
    assert_eq!(claim.freshness(at(32_472_115_199)), Freshness::Enough);
    assert_eq!(claim.freshness(at(32_472_115_200)), Freshness::Stale);
    // Computed, with Python's hmac.
    assert!(check(Profile::Tencent, ["", user_name, "5ebae9078ff8c3123a61e887fc1508fc42b58ab6;hmacsha1"], "", psk));
    for (user_name, password) in [
        (&user_name[1..], &*password),
        (user_name, &password.replace('7', "8")),
        ("LD8S5J1L07test;12010126;qkvrc;32472115201", &password),
    ] {
        assert!(!check(Profile::Tencent, ["", user_name, password], "", psk), "{user_name}");
    }
    assert!(!check(Profile::Tencent, ["", user_name, &password], "", "no base64!"));
    let bad = ["", ";", "LD8S5J1L07;1;2;3", "LD8S5J1L07test;1;2", "LD8S5J1L07test;1;2;3;4", "LD8S5J1L07test;1;2;-3"];
    for user_name in
        bad.into_iter().chain(["LD8S5J1L0é;1;2;3", "short;1;2;3", "LD8S5J1L07test;1;2;99999999999999999999"])
    {
        assert_eq!(Claim::parse("", user_name, password.as_bytes()), None, "{user_name}");
    }
    assert_eq!(Claim::parse("c", user_name, format!("{signature};hmacmd5").as_bytes()), None);
}

#[test]
fn huawei_is_understood() {
    // The vendor's ("Device Connection Authentication", support.huaweicloud.com/intl/en-us/api-iothub/iot_06_v5_3009.html).
    let password = "c75150e6cb841417396819e4d2ee4358a416344a03a083e3a8567074ddec820a";
    assert!(check(Profile::Huawei, ["d_0_0_2025041401", "d", password], "", "12345678"));
    assert!(check(Profile::Huawei, ["d_0_1_2025041401", "d", password], "", "12345678"));
    assert!(!check(Profile::Huawei, ["d_0_0_2025041402", "d", password], "", "12345678"));
    assert!(!check(Profile::Huawei, ["d_0_0_2025041401", "d", password], "", "12345679"));
    // LuatOS'.
    let id = "6203cc94c7fb24029b110408_88888888";
    let password = "5888ea6f4631ce76d621f452e8823507c36dd68a61f6e08518c8935e280c3c72";
    let client_id = format!("{id}_0_0_2999010100");
    assert!(check(Profile::Huawei, [&client_id, id, password], "", "123456789"));
    let claim = Claim::parse(&client_id, id, b"").expect("a claim");
    let split = ("6203cc94c7fb24029b110408", "88888888");
    assert_eq!(claim.identity(), Identity { named: Some(split), searched: Some(id) });
    assert_eq!(claim.lasting_client_id(), Some(id));
    for bad in [
        "d_0_0",
        "d_0_0_",
        "d_0_2_2025041401",
        "d_1_0_2025041401",
        "d_0_0_202504140",
        "d_0_0_20250414011",
        "d_0_0_202504140x",
        "d_0_1_2025134101",
        "d_0_0_2025041401_",
        "e_0_0_2025041401",
    ] {
        assert_eq!(Claim::parse(bad, "d", b""), None, "{bad}");
    }
    assert_eq!(Claim::parse("_0_0_2025041401", "", b""), None);
}

#[test]
fn the_hour_of_huawei_counts_where_it_is_said_to() {
    let begins_s = 1_744_592_400;
    for (now_s, fresh) in [
        (begins_s - 601, false),
        (begins_s - 600, true),
        (begins_s, true),
        (begins_s + 4199, true),
        (begins_s + 4200, false),
    ] {
        let of = |flag| {
            let client_id = format!("d_0_{flag}_2025041401");
            Claim::parse(&client_id, "d", b"").expect("a claim").freshness(at(now_s)) == Freshness::Enough
        };
        assert_eq!((of(0), of(1)), (true, fresh), "{now_s}");
    }
}

#[test]
fn tuya_is_understood() {
    let names = |device: &str, parameters: &str| [format!("tuyalink_{device}"), format!("{device}|{parameters}")];
    // The vendor's ("MQTT Standard Protocol", developer.tuya.com/en/docs/iot/Protocol-Access?id=Kb3kq5nl2291v).
    let device = "6c828cba434ff40c074wF2";
    let parameters = "signMethod=hmacSha256,timestamp=1607635284,secureMode=1,accessType=1";
    let password = "9088f1608df4744e2a933ff905ffdde58dc7213510f25ad786a89896a5ea1104";
    let [client_id, user_name] = names(device, parameters);
    assert!(check(Profile::Tuya, [&client_id, &user_name, password], "", "ffad8eb66ae8c717"));
    assert!(!check(Profile::Tuya, [&client_id, &user_name, password], "", "ffad8eb66ae8c718"));
    let claim = Claim::parse(&client_id, &user_name, b"").expect("a claim");
    assert_eq!(claim.identity(), Identity { named: None, searched: Some(device) });
    for (now_s, fresh) in [(1_607_634_683, false), (1_607_634_684, true), (1_607_635_884, true), (1_607_635_885, false)]
    {
        assert_eq!(claim.freshness(at(now_s)) == Freshness::Enough, fresh, "{now_s}");
    }
    // LuatOS'.
    let [client_id, user_name] =
        names("6c95875d0f5ba69607nzfl", "signMethod=hmacSha256,timestamp=7258089600,secureMode=1,accessType=1");
    let password = "d4e2d498e4195db3ed213b33d662e3b7bf434dc3d5a1f2e63b602ac9248ba72c";
    assert!(check(Profile::Tuya, [&client_id, &user_name, password], "", "fb803786602df760"));
    // The vendor's Java demo has milliseconds there.
    let [client_id, user_name] = names("d", "signMethod=hmacSha256,timestamp=1607635284123,secureMode=1,accessType=1");
    let claim = Claim::parse(&client_id, &user_name, b"").expect("a claim");
    assert_eq!(claim.freshness(at(1_607_635_284)), Freshness::Enough);
    for bad in [
        "",
        "signMethod=hmacSha256,timestamp=1607635284,secureMode=1",
        "signMethod=hmacMd5,timestamp=1607635284,secureMode=1,accessType=1",
        "signMethod=hmacSha256,timestamp=x,secureMode=1,accessType=1",
        "signMethod=hmacSha256,secureMode=1,accessType=1",
        "timestamp=1607635284,secureMode=1,accessType=1",
        "signMethod=hmacSha256,timestamp=1607635284,secureMode=1,accessType=1,x",
    ] {
        assert_eq!(Claim::parse("tuyalink_d", &format!("d|{bad}"), b""), None, "{bad}");
    }
    assert_eq!(Claim::parse("tuyalink_e", &format!("d|{parameters}"), b""), None);
    assert_eq!(Claim::parse("tuyalink_", &format!("|{parameters}"), b""), None);
}

/// The vendor's (Azure/azure-iot-cli-extension, `TestSasTokenAuth`).
#[test]
fn azure_is_understood() {
    let (device, user_name) =
        ("iot-device-for-test", "iot-hub-for-test.azure-devices.net/iot-device-for-test/?api-version=2021-04-12");
    let key = "+XLy+MVZ+aTeOnVzN2kLeB16O+kSxmz6g3rS6fAf6rw=";
    let [sr, sig, se] = [
        "sr=iot-hub-for-test.azure-devices.net%2Fdevices%2Fiot-device-for-test",
        "sig=SIumZ1ACqqPJZ2okHDlW9MSYKykEpqsQY3z6FMOICd4%3D",
        "se=1471940363",
    ];
    for fields in [[sr, sig, se], [sig, se, sr], [se, sr, &sig.replace("%3D", "=")], [se, sr, &sig.replace("%3D", "")]]
    {
        let password = format!("SharedAccessSignature {}", fields.join("&"));
        assert!(check(Profile::Azure, [device, user_name, &password], "", key), "{password}");
        let with_name = format!("{password}&skn=");
        assert!(check(Profile::Azure, [device, user_name, &with_name], "", key), "{password}");
        assert!(!check(Profile::Azure, [device, user_name, &password], "", &key.replace('X', "Y")));
        assert!(!check(Profile::Azure, [device, user_name, &password], "", "no base64!"));
    }
    let password = format!("SharedAccessSignature {sr}&{sig}&{se}");
    let claim = Claim::parse(device, user_name, password.as_bytes()).expect("a claim");
    assert_eq!(claim.identity(), Identity { named: None, searched: Some(device) });
    assert_eq!(claim.freshness(at(1_471_940_362)), Freshness::Enough);
    assert_eq!(claim.freshness(at(1_471_940_363)), Freshness::Stale);
    for older in ["h/iot-device-for-test", "h/iot-device-for-test/", "h/iot-device-for-test/api-version=2016-11-14"] {
        assert!(check(Profile::Azure, [device, older, &password], "", key), "{older}");
    }
    for bad in [
        "",
        "h",
        "/iot-device-for-test/",
        "h/other/",
        "h/iot-device-for-test/module/?api-version=1",
        "h/iot-device-for-test/module",
    ] {
        assert_eq!(Claim::parse(device, bad, password.as_bytes()), None, "{bad}");
    }
    assert_eq!(Claim::parse("iot-device-for-test/module", user_name, password.as_bytes()), None);
    for bad in [
        format!("{sr}&{sig}"),
        format!("{sr}&{se}"),
        format!("{sig}&{se}"),
        format!("{sr}&{sig}&se=x"),
        format!("{sr}2&{sig}&{se}"),
        format!("{sr}%2Fmodules%2Fm&{sig}&{se}"),
        format!("{sr}%&{sig}&{se}"),
        format!("sr=iot-hub-for-test.azure-devices.net&{sig}&{se}"),
        format!("sr=devices%2Fiot-device-for-test&{sig}&{se}"),
        format!("{sr}&{sig}&{se}&"),
    ] {
        assert_eq!(Claim::parse(device, user_name, format!("SharedAccessSignature {bad}").as_bytes()), None, "{bad}");
    }
    for bad in ["sig=", "sig=%", "sig=SIum", "sig=!!!!"] {
        let password = format!("SharedAccessSignature {sr}&{bad}&{se}");
        assert!(!check(Profile::Azure, [device, user_name, &password], "", key), "{bad}");
    }
}

#[test]
fn gizwits_is_understood() {
    let did = "n721e21dabcdefghijklmn";
    // Computed with `sha256sum`; the vendor has published no vector.
    let (product, secret) = ("a54283350726462daaeab498ffee87de", "8caaaa8b11e0,b1223028af054bb1804d65f82dff26e7");
    let (nonce, password) = ("VLDXFEQONB", "0f3d18750169141f07feaecf0f72d9bebca87addfa98d87a7543f9160ee51f0c");
    let parameters = format!("{did}|signmethod=sha256,signnonce={nonce}");
    for [client_id, user_name] in [[did, &*parameters], [&parameters, did]] {
        assert!(check(Profile::Gizwits, [client_id, user_name, password], product, secret));
        assert!(check(Profile::Gizwits, [client_id, user_name, &password.to_uppercase()], product, secret));
        assert!(!check(Profile::Gizwits, [client_id, user_name, password], "other", secret));
        assert!(!check(Profile::Gizwits, [client_id, user_name, password], product, &secret.replace("8c", "8d")));
        assert!(!check(Profile::Gizwits, [client_id, user_name, ""], product, secret));
        let claim = Claim::parse(client_id, user_name, b"").expect("a claim");
        assert_eq!(claim.identity(), Identity { named: None, searched: Some(did) });
        assert_eq!(claim.lasting_client_id(), Some(did));
        assert_eq!(claim.freshness(at(7)), Freshness::Once { nonce, until_ms: 7000 + 20 * 60 * 1000 });
    }
    for bad in [
        "",
        "signmethod=sha256",
        "signnonce=A",
        "signmethod=sha1,signnonce=A",
        "signmethod=sha256,signnonce=",
        "signmethod=sha256,signnonce=A,B",
        "signmethod=sha256,signnonce=A\u{80}",
    ] {
        assert_eq!(Claim::parse(did, &format!("{did}|{bad}"), b""), None, "{bad}");
    }
    assert_eq!(Claim::parse(did, "other|signmethod=sha256,signnonce=A", b""), None);
    assert_eq!(Claim::parse("", "|signmethod=sha256,signnonce=A", b""), None);
}

#[test]
fn a_passcode_is_the_secret_itself() {
    assert!(check(Profile::GizwitsLegacy, ["did", "did", "ABCDEFGHIJ"], "", "ABCDEFGHIJ"));
    for wrong in ["ABCDEFGHIK", "ABCDEFGHI", "ABCDEFGHIJK", "abcdefghij", ""] {
        assert!(!check(Profile::GizwitsLegacy, ["did", "did", wrong], "", "ABCDEFGHIJ"), "{wrong}");
    }
    assert_eq!(Claim::parse("did", "other", b"ABCDEFGHIJ"), None);
    assert_eq!(Claim::parse("", "", b"ABCDEFGHIJ"), None);
    let claim = Claim::parse("did", "did", b"ABCDEFGHIJ");
    assert!(!format!("{claim:?}").contains("ABC"), "a secret prints itself");
}

/// A secret that a profile can have.
fn secret_for(profile: Profile) -> Secret {
    match profile {
        Profile::Tencent | Profile::Azure => secret_of("acyv3QDJrRa0fW5UE58KnQ=="),
        Profile::Gizwits => secret_of("8caaaa8b11e0,b1223028af054bb1804d65f82dff26e7"),
        _ => secret(),
    }
}

fn request<'a>(product: &'a str, device: &'a str, secret: &'a Secret) -> Request<'a> {
    let method = SignMethod::Sha256;
    Request { product, device, secret, client_id: None, timestamp_ms: 1_700_000_000_000, nonce: "n", method }
}

#[test]
fn credentials_are_made_for_every_profile() {
    for profile in Profile::ALL {
        let secret = secret_for(profile);
        for method in [SignMethod::Sha256, SignMethod::Sha1, SignMethod::Md5] {
            let request = Request { method, ..request("PRODUCT010", "d", &secret) };
            let made = Credentials::make(profile, &request).expect("all that it takes");
            let claim = Claim::parse(&made.client_id, &made.user_name, made.password.as_bytes()).expect("a claim");
            assert_eq!(claim.profile(), profile);
            assert!(is_of(&claim, "PRODUCT010", &secret));
            assert_ne!(claim.freshness(at(1_700_000_000)), Freshness::Stale, "{profile}");
            let Identity { named, searched } = claim.identity();
            assert!(named == Some(("PRODUCT010", "d")) || searched == Some("d"), "{profile}");
            assert_eq!(searched.is_some(), profile.is_searched());
        }
        let mine = Request { client_id: Some("mine"), ..request("PRODUCT010", "d", &secret) };
        match Credentials::make(profile, &mine) {
            Ok(made) => assert!(made.client_id.starts_with("mine")),
            Err(error) => assert_eq!(error, MakeError::OwnClientId(profile)),
        }
        assert_eq!(profile.as_str().parse(), Ok(profile));
    }
    assert!("azur".parse::<Profile>().is_err());
}

#[test]
fn what_credentials_take_is_said() {
    let (plain, mac) = (secret_of("no base64!"), secret());
    let made = |profile, product, secret| Credentials::make(profile, &request(product, "d", secret)).map(drop);
    assert_eq!(made(Profile::Tencent, "p", &mac), Err(MakeError::ProductLength));
    assert_eq!(made(Profile::Tencent, "PRODUCT010", &plain), Err(MakeError::NotBase64(Profile::Tencent)));
    assert_eq!(made(Profile::Azure, "p", &plain), Err(MakeError::NotBase64(Profile::Azure)));
    assert_eq!(made(Profile::Gizwits, "p", &mac), Err(MakeError::NoMac));
}

#[test]
fn a_set_of_profiles_keeps_what_is_put_in() {
    assert!(Profile::ALL.into_iter().all(|profile| ProfileSet::ALL.contains(profile)));
    assert_eq!(ProfileSet::from_iter(Profile::ALL), ProfileSet::ALL);
    let default: Vec<Profile> = ProfileSet::DEFAULT.iter().collect();
    assert_eq!(default, [Profile::Native, Profile::Aliyun], "the others are for products that say so");
    for profile in Profile::ALL {
        let one = ProfileSet::from_iter([profile]);
        assert!(Profile::ALL.into_iter().all(|other| one.contains(other) == (other == profile)));
        assert_eq!(ProfileSet::from_bits(one.bits()), Some(one));
    }
    assert_eq!(ProfileSet::from_bits(0x100), None);
}

proptest! {
    #[test]
    fn no_text_panics(
        client_id in "\\PC{0,40}|[a-z|=,]{0,40}|tuyalink_d|d(_[01_]{0,4}[0-9]{0,12})?",
        user_name in "\\PC{0,40}|[a-z&/]{0,10}|d|d\\|[a-zA-Z,=0-9]{0,60}|h/d/?|[A-Z]{8,12}(;[0-9]{0,6}){0,4}",
        password in proptest::collection::vec(any::<u8>(), 0..80),
        native in "v1;[0-9;a-f+-]{0,60}",
        other in "SharedAccessSignature (&?(s[re]|sig)=[0-9a-zA-Z%/]{0,20}){0,4}|[0-9a-f]{0,64};hmacsha(1|256)",
    ) {
        for password in [&password[..], native.as_bytes(), other.as_bytes()] {
            if let Some(claim) = Claim::parse(&client_id, &user_name, password) {
                prop_assert!(!is_of(&claim, &user_name, &secret()));
                let _ = (claim.freshness(at(1_700_000_000)), claim.identity(), claim.lasting_client_id());
            }
            prop_assert!(!answers(&secret(), &client_id, &user_name, &user_name, b"x", password));
        }
    }

    /// Whatever the names, the credentials of one profile are never taken for another's.
    #[test]
    fn formats_are_told_apart(
        product in "[A-Za-z0-9_.:@-]{10}",
        device in "[A-Za-z0-9_.:@-]{1,64}|tuyalink_[a-z]{1,5}|d_0_0_2025041401|v1|azure",
        client_id in "[ -~]{0,20}",
    ) {
        for profile in Profile::ALL {
            let secret = secret_for(profile);
            let free = matches!(profile, Profile::Native | Profile::Aliyun) && !(profile == Profile::Aliyun && client_id.contains('|'));
            let request = Request { client_id: free.then_some(&*client_id), ..request(&product, &device, &secret) };
            let made = Credentials::make(profile, &request).expect("all that it takes");
            let claim = Claim::parse(&made.client_id, &made.user_name, made.password.as_bytes()).expect("a claim");
            prop_assert_eq!(claim.profile(), profile);
            prop_assert!(is_of(&claim, &product, &secret));
        }
    }
}
