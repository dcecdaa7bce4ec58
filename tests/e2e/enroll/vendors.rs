//! Registration over HTTP in the ways of other vendors' devices.

use turnpike_tests::certificate::Authority;

use super::*;
use crate::ota::{World, content};

fn form(broker: &Broker, path: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("content-type: application/x-www-form-urlencoded\r\n{headers}");
    device(broker).request_with("POST", path, &headers, body)
}

#[test]
fn aliyun_over_http() {
    let broker = house(&["aliyun"], 10);
    upload(&broker, "serial,SN-0001\n");
    let ask = |name: &str, secret: &str, headers: &str| {
        let sign = hmac_sha256(secret, &format!("deviceName{name}productKey{PRODUCT}random567"));
        let body = format!("productKey={PRODUCT}&deviceName={name}&random=567&sign={sign}&signMethod=hmacsha256");
        let answer = form(&broker, "/auth/register/device", headers, &body);
        (answer.status, answer.json())
    };
    let refused = |status: u16, message: &str| (status, json!({ "code": status, "message": message }));
    assert_eq!(ask("SN-0001", PRODUCT_SECRET, ""), refused(403, "tls_required"));
    assert_eq!(ask("SN-0001", "another secret", TLS), refused(403, "wrong_key"));
    assert_eq!(ask("SN-0002", PRODUCT_SECRET, TLS), refused(404, "unknown"));
    assert_eq!(form(&broker, "/auth/register/device", TLS, "productKey=lamp").status, 400);
    let (status, made) = ask("SN-0001", PRODUCT_SECRET, TLS);
    assert_eq!((status, &made["code"], &made["data"]["deviceName"]), (200, &json!(200), &json!("SN-0001")));
    assert!(logs_in(&broker, "SN-0001", made["data"]["deviceSecret"].as_str().expect("a secret")));
    assert_eq!(ask("SN-0001", PRODUCT_SECRET, TLS), refused(409, "exists"));
}

/// What a tencent device makes of the answer's payload.
fn tencent_psk(payload: &str) -> String {
    let mut bytes = STANDARD.decode(payload).expect("base64");
    let key = PRODUCT_SECRET.as_bytes()[..16].try_into().expect("16 bytes");
    let plain = cbc::Decryptor::<Aes128>::new(key, &[b'0'; 16].into()).decrypt_padded::<ZeroPadding>(&mut bytes);
    let psk: Value = serde_json::from_slice(plain.expect("zeros")).expect("JSON");
    assert_eq!(psk["encryptionType"], 2);
    psk["psk"].as_str().expect("a text").to_owned()
}

#[test]
fn tencent_in_both_ways() {
    let broker = house(&["tencent"], 10);
    upload(&broker, "serial,SN-0001\n");
    let older = |name: &str, secret: &str| {
        let text = format!("deviceName={name}&nonce=77&productId={PRODUCT}&timestamp=1551000000");
        let signature = STANDARD.encode(hmac_sha1(secret, &text));
        let body = json!({ "deviceName": name, "nonce": 77, "productId": PRODUCT, "timestamp": 1_551_000_000, "signature": signature });
        let answer = device(&broker).post("/register/dev", "application/json", &body.to_string());
        (answer.status, answer.json())
    };
    assert_eq!(older("SN-0001", "another secret"), (403, json!({ "code": 403, "message": "wrong_key" })));
    assert_eq!(older("SN-0002", PRODUCT_SECRET).0, 404);
    let (status, made) = older("SN-0001", PRODUCT_SECRET);
    assert_eq!((status, &made["code"]), (200, &json!(0)), "{made}");
    let psk = tencent_psk(made["payload"].as_str().expect("a text"));
    assert_eq!(STANDARD.decode(&psk).map(|psk| psk.len()), Ok(16));
    assert!(logs_in(&broker, "SN-0001", &psk));
    assert_eq!(older("SN-0001", PRODUCT_SECRET).0, 409);

    set_ways(&broker, &["tencent-unlisted"]);
    let newer = |name: &str| {
        let body = json!({ "ProductId": PRODUCT, "DeviceName": name }).to_string();
        let hash = hex::encode(<Sha256 as sha2::Digest>::digest(body.as_bytes()));
        let host = broker.http().address;
        let text = format!("POST\n{host}\n/device/register\n\nHmacSha256\n1551\n5456\n{hash}");
        let signature = STANDARD.encode(hex::decode(hmac_sha256(PRODUCT_SECRET, &text)).expect("hex"));
        let headers = format!(
            "x-tc-algorithm: HmacSha256\r\nx-tc-timestamp: 1551\r\nx-tc-nonce: 5456\r\nx-tc-signature: {signature}\r\n"
        );
        let answer = device(&broker).request_with("POST", "/device/register", &headers, &body);
        (answer.status, answer.json()["Response"].clone())
    };
    let (status, made) = newer("SN-0077");
    assert_eq!(status, 200, "{made}");
    assert!(logs_in(&broker, "SN-0077", &tencent_psk(made["Payload"].as_str().expect("a text"))));
    let (status, refused) = newer("SN-0077");
    assert_eq!((status, &refused["Error"]["Code"]), (409, &json!("exists")));
    assert!(refused["RequestId"].as_str().is_some_and(|id| id.len() == 32));
}

/// Block by block, as the devices have it.
fn gizwits_cipher() -> Aes128 {
    Aes128::new_from_slice(&hex::decode(PRODUCT_SECRET).expect("hex")).expect("16 bytes")
}

fn gizwits_sealed(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let padding = 16 - bytes.len() % 16;
    bytes.resize(bytes.len() + padding, u8::try_from(padding).expect("small"));
    for block in bytes.as_chunks_mut::<16>().0 {
        gizwits_cipher().encrypt_block(block.into());
    }
    hex::encode(bytes)
}

fn gizwits_opened(text: &str) -> String {
    let mut bytes = hex::decode(text).expect("hex");
    for block in bytes.as_chunks_mut::<16>().0 {
        gizwits_cipher().decrypt_block(block.into());
    }
    let padding = usize::from(*bytes.last().expect("a block"));
    bytes.truncate(bytes.len() - padding);
    String::from_utf8(bytes).expect("text")
}

#[test]
fn gizwits_in_the_clear_and_encrypted() {
    let broker = house(&["gizwits", "gizwits-sealed"], 10);
    upload(&broker, "mac,001A2B3C4D5E\nmac,001A2B3C4D5F\n");
    let profiles = r#"{"profiles": ["native", "gizwits-legacy"]}"#;
    assert_eq!(broker.http().put(&path("/profiles"), profiles).status, 200);
    let ask = |mac: &str, passcode: &str| {
        form(&broker, "/dev/devices", "", &format!("passcode={passcode}&mac={mac}&product_key={PRODUCT}"))
    };
    let made = ask("001A2B3C4D5E", "QWERTYUIOP");
    assert_eq!(made.status, 201, "{made:?}");
    let did = made.body.strip_prefix("did=").expect("an id").to_owned();
    assert_eq!(did.len(), 22);
    // It asks whenever it starts.
    assert_eq!(ask("001A2B3C4D5E", "QWERTYUIOP").body, made.body);
    assert_eq!((ask("001A2B3C4D5E", "ANOTHERONE").status, ask("001A2B3C4D5A", "QWERTYUIOP").status), (409, 404));
    assert_eq!(form(&broker, "/dev/devices", "", "mac=1").status, 400);
    let provisioned = device(&broker).get(&format!("/dev/devices/{did}"));
    assert!(provisioned.body.starts_with("host=mqtt.example.com&port=1883&server_ts="), "{provisioned:?}");
    let connect = Connect::new(Version::V31, &did).login(&did, "QWERTYUIOP");
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 0);

    let sealed = gizwits_sealed("mac=001A2B3C4D5F&passcode=ASDFGHJKLZ&type=normal");
    let sealed_path = format!("/dev/{PRODUCT}/device");
    let made = form(&broker, &sealed_path, "", &format!("data={sealed}"));
    assert_eq!(made.status, 201, "{made:?}");
    let did = gizwits_opened(&made.body).strip_prefix("did=").expect("an id").to_owned();
    let connect = Connect::new(Version::V311, &did).login(&did, "ASDFGHJKLZ");
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 0);
    let provisioned = gizwits_opened(&device(&broker).get(&format!("{sealed_path}/{did}")).body);
    assert!(provisioned.starts_with("host=mqtt.example.com&port=1883&"), "{provisioned}");
    assert_eq!(form(&broker, &sealed_path, "", &format!("data={}", "00".repeat(16))).status, 403);
}

/// A check for the MCU, as `GAgent` sends it; the answer byte by byte, since that is how it reads it.
fn gizwits_check(broker: &Broker, did: &str, passcode: &str, version: &str) -> String {
    let body = format!("passcode={passcode}&type=2&hard_version=00ESP826&soft_version={version}");
    let path = format!("/dev/ota/v4.1/update_and_check/{did}");
    let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
    String::from_utf8(device(broker).send("POST", &path, headers, &body)).expect("text")
}

/// What is between two texts, as such devices look for it.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

#[test]
fn gizwits_firmware_by_a_notice_and_a_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Authority::new(folder.path(), "servers").sign("server");
    let setup = Setup::listeners(&["mqtt"], &server).and_listener("[ota]\naddress = \"127.0.0.1:0\"\n");
    let world = World { broker: setup.and_config(CONFIG).start(), folder };
    let broker = &world.broker;
    assert_eq!(broker.http().put(&path(""), "{}").status, 201);
    assert_eq!(post(broker, "/packages", &json!({ "quota": 10 })).status, 201);
    set_ways(broker, &["gizwits"]);
    upload(broker, "mac,001A2B3C4D5E\n");
    let profiles = r#"{"profiles": ["native", "gizwits-legacy"]}"#;
    assert_eq!(broker.http().put(&path("/profiles"), profiles).status, 200);
    let passcode = "QWERTYUIOP";
    let made = form(broker, "/dev/devices", "", &format!("passcode={passcode}&mac=001A2B3C4D5E&product_key={PRODUCT}"));
    let did = made.body.strip_prefix("did=").expect("an id").to_owned();
    let connect = Connect::new(Version::V31, &did).login(&did, passcode);
    let mut agent = Client::connect(broker.mqtt(), &connect);
    let topics = [format!("ser2cli_res/{did}"), format!("ser2cli_noti/{PRODUCT}")];
    assert_eq!(agent.subscribe(&[(&topics[0], 0), (&topics[1], 0)]), [0, 0]);
    let check = |version| gizwits_check(&world.broker, &did, passcode, version);
    assert!(check("04020019").starts_with("HTTP/1.1 404 "), "there is nothing");
    for (did, passcode) in [(did.as_str(), "ANOTHERONE"), ("nobody", passcode)] {
        assert!(gizwits_check(broker, did, passcode, "04020019").starts_with("HTTP/1.1 403 "));
    }
    let malformed = form(broker, &format!("/dev/ota/v4.1/update_and_check/{did}"), "", "passcode=QWERTYUIOP&type=2");
    assert_eq!(malformed.status, 400);

    let file = content(40, 123_457);
    let body = json!({"target": "mcu", "version": "04020020", "hardware": ["00ESP826"], "size": file.len()});
    let firmware = post(broker, "/firmware", &body).json();
    assert_eq!(world.put(firmware["upload"].as_str().expect("a path"), 0, &file).status, 200);
    let firmware = firmware["firmware"].as_u64().expect("a number");
    let ready = world.finish(firmware, &json!({})).json();
    assert_eq!(ready["state"], "ready", "{ready}");
    let campaign = world.campaign(&json!({"name": "giz", "firmware": firmware, "versions": ["04020019"]}));
    let notice = agent.take();
    assert_eq!((notice.topic, notice.payload), (topics[0].clone(), vec![0, 0, 0, 3, 0x02, 0x11, 2]));

    let answer = check("04020019");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(between(&answer, "soft_ver=", "&"), Some("04020020"));
    let url = between(&answer, "download_url=", "\r\n").expect("a link that ends with a line").to_owned();
    let address = world.broker.address("ota");
    let path = url.strip_prefix(&format!("http://{address}")).expect("plain HTTP");
    let got = String::from_utf8(Http { address, token: None }.send("GET", path, "", "")).expect("text");
    let (head, taken) = got.split_once("\r\n\r\n").expect("a head");
    assert!(taken == file, "{head}");
    assert_eq!(between(head, "Content-Length: ", "\r\n"), Some("123457"), "{head}");
    assert_eq!(between(head, "Firmware-MD5: ", "\r\n"), ready["md5"].as_str(), "{head}");
    assert!(head.contains("Content-Disposition: attachment; filename=\"firmware.bin\""), "{head}");

    assert!(check("04020020").starts_with("HTTP/1.1 404 "), "it has it");
    let shown = world.reaches(campaign, "completed");
    assert_eq!(shown["groups"][0]["counts"]["succeeded"], 1, "{shown}");
}
