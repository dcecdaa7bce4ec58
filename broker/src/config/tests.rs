use turnpike_authz::quota::Windows;
use turnpike_core::meter::{FlowRate, Rate};

use super::*;

fn keys(text: &str) -> Vec<String> {
    Config::parse(text).expect_err("faults").into_iter().map(|fault| fault.key).collect()
}

#[test]
fn nothing_is_the_default() {
    assert_eq!(Config::parse(""), Ok(Config::default()));
}

/// The example, as it stands in the repository.
const EXAMPLE: &str = include_str!("../../../deploy/turnpike.toml");

#[test]
fn the_example_says_the_defaults() {
    let config = Config::parse(EXAMPLE).expect("valid");
    assert_eq!(config, Config { shards: Config::default().shards, ..Config::default() });
    // Every key stands in it, in force or as a comment.
    let limits = format!("{:?} {:?}", Limits::default(), TransportLimits::default());
    for key in limits.split(['{', ',']).filter_map(|field| field.trim().split_once(':')).map(|(key, _)| key) {
        assert!(EXAMPLE.contains(&format!("\n{key} = ")), "{key} isn't in the example");
    }
}

#[test]
fn what_the_example_has_as_a_comment_is_good_too() {
    let is_setting =
        |line: &&str| line.starts_with("[") || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let uncommented = |line| str::strip_prefix(line, "# ").filter(is_setting).unwrap_or(line);
    let text: Vec<&str> = EXAMPLE.lines().map(uncommented).collect();
    assert_ne!(text, EXAMPLE.lines().collect::<Vec<_>>());
    // The files that it names are not on this machine; nothing else may be wrong.
    for fault in Config::parse(&text.join("\n")).expect_err("no such files") {
        assert!(fault.message.contains("No such file"), "{fault:?}");
    }
}

#[test]
fn whoever_has_a_rate_has_it_from_its_own_table() {
    let flow = |messages: &str| format!("messages = \"{messages}\"\nbytes = \"1000{messages}\"\n");
    let [device, product, user, app] = ["1/1s", "2/1s", "3/1s", "4/1s"].map(flow);
    let requests = "requests = \"5/1s, 50/60s\"";
    let text = format!(
        "[limits.device]\n{device}[limits.product]\n{product}[limits.user]\n{user}[limits.app]\n{app}[limits.platform]\n{requests}\n"
    );
    let rates = Config::parse(&text).expect("valid").rates;
    let flow = |n: u64| FlowRate {
        messages: Rate::per_second(n).expect("a rate"),
        bytes: Rate::per_second(10_000 + n).expect("a rate"),
    };
    assert_eq!([rates.each_device, rates.product, rates.each_user, rates.app], [1, 2, 3, 4].map(flow));
    assert_eq!(rates.requests.platform, "5/1s, 50/60s".parse().expect("windows"));
    assert_eq!((rates.requests.address, rates.requests.service), Default::default());
    assert_ne!(Config::default().rates.requests.platform, Windows::default(), "none is without a bound");
    for table in ["device", "user", "app", "platform"] {
        let key = if table == "platform" { "requests" } else { "messages" };
        assert_eq!(keys(&format!("[limits.{table}]\n{key} = \"often\"\n")), [format!("limits.{table}.{key}")]);
    }
}

#[test]
fn all_faults_are_listed_at_once() {
    let text = "
        nonsense = 1
        shards = 0
        sys_interval_s = \"often\"
        [limits]
        receive_max = 0
        packet_bytes_max = -1
        no_such_limit = 5
        [log]
        format = \"xml\"
        [[listeners]]
        kind = \"mqtt\"
        address = \"nowhere\"
        [[listeners]]
        kind = \"mqtt\"
        tls = {}
        [http]
        address = 5
    ";
    let mut found = keys(text);
    found.sort();
    let mut expected = vec![
        "nonsense",
        "shards",
        "sys_interval_s",
        "limits.receive_max",
        "limits.packet_bytes_max",
        "limits.no_such_limit",
        "log.format",
        "listeners[0].address",
        "listeners[1].address",
        "listeners[1].name",
        "listeners[1].tls",
        "listeners[1].tls.certificates",
        "http.address",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn an_audit_that_standards_would_not_accept_is_warned_of() {
    let warned = |text: &str| {
        let warnings = Config::parse(text).expect("valid").warnings();
        warnings.into_iter().map(|warning| warning.key).collect::<Vec<_>>()
    };
    assert_eq!(warned("[audit]\nretention_days = 184\nsync_interval_ms = 50\nfolder = \"/a\""), [""; 0]);
    assert_eq!(warned("[audit]\nretention_days = 183"), ["audit.retention_days"]);
    assert_eq!(warned("[audit]\nenabled = false"), ["audit.enabled"]);
    let bad = "[audit]\nretention_days = 0\nsegment_bytes_max = 5\nsync_interval_ms = 0\nrequired = 1\nretention = 5";
    let expected = ["retention_days", "segment_bytes_max", "sync_interval_ms", "required", "retention"];
    assert_eq!(keys(bad), expected.map(|key| format!("audit.{key}")));
}

#[test]
fn a_certificate_that_is_not_there_is_a_fault() {
    let text = "
        [[listeners]]
        kind = \"mqtts\"
        address = \"127.0.0.1:0\"
        [[listeners.tls.certificates]]
        chain_file = \"/no/such/file.pem\"
        key_file = \"/no/such/file.key\"
    ";
    assert_eq!(
        keys(text),
        ["listeners[0].tls.certificates[0].chain_file", "listeners[0].tls.certificates[0].key_file"]
    );
}

#[test]
fn anonymous_stays_on_loopback() {
    let text = "anonymous = true\n[[listeners]]\naddress = \"0.0.0.0:1883\"\n";
    assert_eq!(keys(text), ["anonymous"]);
    assert!(Config::parse("anonymous = true").is_ok());
}

#[test]
fn broken_toml_is_one_fault_with_its_line() {
    let faults = Config::parse("a = [").expect_err("a fault");
    assert_eq!(faults.len(), 1);
    assert!(faults.iter().all(|fault| fault.message.contains("line 1")), "{faults:?}");
}

#[test]
fn a_misspelt_key_is_told_the_right_one() {
    let faults = Config::parse("[limits]\nrecieve_max = 5\n[log]\ncolour = 1\n").expect_err("faults");
    let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    assert!(messages.iter().any(|message| message.contains("is it receive_max?")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("format, level")), "{messages:?}");
}

#[test]
fn listeners_that_could_not_start_are_faults() {
    let text = "
        [log]
        level = \"inof\"
        [[listeners]]
        name = \"front door\"
        address = \"127.0.0.1:1883\"
        paths = [\"/mqtt\"]
        [[listeners]]
        kind = \"ws\"
        address = \"127.0.0.1:1883\"
        paths = []
        [[listeners]]
        kind = \"wss\"
        address = \"127.0.0.1:18083\"
        paths = [\"mqtt\"]
    ";
    let mut found = keys(text);
    found.sort();
    let mut expected = [
        "log.level",
        "listeners[0].name",
        "listeners[0].paths",
        "listeners[1].paths",
        "listeners[1].address",
        "listeners[2].paths",
        "listeners[2].address",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn files_of_tls_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = crate::pki::development(folder.path()).expect("made");
    let (chain, key, ca) = (&made.server.chain_file, &made.server.key_file, &made.ca);
    let listener = |chain: &Path, key: &Path, rest: &str| {
        format!(
            "[[listeners]]\nkind = \"mqtts\"\naddress = \"127.0.0.1:0\"\n[listeners.tls]\n{rest}\n\
             [[listeners.tls.certificates]]\nchain_file = {chain:?}\nkey_file = {key:?}\n"
        )
    };
    let config = Config::parse(&listener(chain, key, "")).expect("valid");
    assert_eq!(config.warnings(), []);
    let open = folder.path().join("open.key");
    std::fs::copy(key, &open).expect("copied");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("changed");
    let config = Config::parse(&listener(chain, &open, "")).expect("valid");
    assert_eq!(config.warnings().len(), 1);
    // Another certificate's key; no certificate at all; authorities that are none.
    let rest = format!("client_auth = \"required\"\nclient_ca_files = [{open:?}]");
    assert_eq!(keys(&listener(ca, key, "")), ["listeners[0].tls.certificates[0].key_file"]);
    assert_eq!(keys(&listener(key, key, "")), ["listeners[0].tls.certificates[0].chain_file"]);
    assert_eq!(keys(&listener(chain, key, &rest)), ["listeners[0].tls.client_ca_files"]);
    // Certificates of devices: nothing else says which are good.
    let devices = "client_trust = \"devices\"\n";
    let optional = format!("{devices}client_auth = \"optional\"\n");
    assert!(Config::parse(&listener(chain, key, &optional)).is_ok());
    assert_eq!(keys(&listener(chain, key, devices)), ["listeners[0].tls.client_trust"]);
    let vain = format!("{optional}client_ca_files = [{ca:?}]");
    assert_eq!(keys(&listener(chain, key, &vain)), ["listeners[0].tls.client_ca_files"]);
}

#[test]
fn a_master_key_that_others_can_read_is_a_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("master-key");
    let text = format!("master_key_file = {file:?}\n");
    assert_eq!(keys(&text), ["master_key_file"]);
    crate::pki::write_secret(&file, "ab".repeat(32).as_bytes()).expect("written");
    assert!(Config::parse(&text).is_ok());
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("changed");
    assert_eq!(keys(&text), ["master_key_file"]);
}

#[test]
fn platforms_show_a_certificate_or_there_is_no_listener() {
    assert_eq!(Config::default().platform, None);
    assert_eq!(keys("[platform]\n"), ["platform.address", "platform.tls"]);
    let text = "[platform]\naddress = \"127.0.0.1:18083\"\n[platform.tls]\nclient_auth = \"optional\"\n";
    let found = keys(text);
    for key in
        ["platform.address", "platform.tls.certificates", "platform.tls.client_ca_files", "platform.tls.client_auth"]
    {
        assert!(found.iter().any(|found| found == key), "{key} in {found:?}");
    }
}

#[test]
fn a_call_out_is_checked_when_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (token, nothing) = (folder.path().join("token"), folder.path().join("nothing"));
    std::fs::write(&token, "Bearer x\n").expect("written");
    std::fs::write(&nothing, "\n").expect("written");
    let good = format!("[callout]\nurl = \"http://127.0.0.1:1/judge\"\nheader_file = {token:?}\ncache_s = 5\n");
    let callout = Config::parse(&good).expect("good").callout.expect("one");
    assert_eq!(
        (callout.url.path(), callout.bounds.cache_ms, callout.bounds.breaker.probe_ms),
        ("/judge", 5_000, 4_000)
    );
    assert_eq!(callout.header.as_ref().map(|(name, _)| name.as_str()), Some("authorization"));
    let other = Config::parse(&good.replace("cache_s = 5", "cache_s = 6")).expect("good");
    assert_eq!(other.restart_needed(&Config::parse(&good).expect("good")), ["callout"]);
    for (text, key) in [
        ("", "callout.url"),
        ("url = 5", "callout.url"),
        ("url = \"http://auth.example/\"", "callout.url"),
        ("url = \"/judge\"", "callout.url"),
        ("url = \"https://auth.example/\"", "callout.ca_file"),
        ("url = \"https://auth.example/\"\nca_file = \"/nowhere\"", "callout.ca_file"),
        ("url = \"http://127.0.0.1/\"\nheader_file = \"/nowhere\"", "callout.header_file"),
        (&format!("url = \"http://127.0.0.1/\"\nheader_file = {nothing:?}"), "callout.header_file"),
        ("url = \"http://127.0.0.1/\"\nheader = \"a b\"", "callout.header"),
        ("url = \"http://127.0.0.1/\"\ntimeout_ms = 0", "callout.timeout_ms"),
        ("url = \"http://127.0.0.1/\"\nbreaker_failures = 0", "callout.breaker_failures"),
        ("url = \"http://127.0.0.1/\"\ncalls = 1", "callout.calls"),
    ] {
        assert_eq!(keys(&format!("[callout]\n{text}")), [key], "{text}");
    }
}

#[test]
fn what_follows_from_a_kind_that_is_wrong_isnt_said() {
    let text = "[[listeners]]\nkind = \"mqtt\"\naddress = \"127.0.0.1:0\"\n\
                [[listeners]]\nkind = \"mqqt\"\naddress = \"127.0.0.1:0\"\npaths = [\"/mqtt\"]\n\
                [[listeners]]\nname = 5\naddress = \"127.0.0.1:0\"\n";
    let faults = Config::parse(text).expect_err("a kind and a name");
    let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["listeners[1].kind", "listeners[2].name"], "{faults:?}");
}

#[cfg(feature = "s3")]
#[test]
fn a_bucket_is_checked_when_it_is_read_and_its_key_never_repeated() {
    let keys_of = |id: &str, key: &str| format!("access_key_id = \"{id}\"\nsecret_access_key = \"{key}\"\n");
    let section = |rest: &str| format!("[ota.s3]\nbucket = \"firmware\"\n{rest}");
    let good = section(&keys_of("AKIA", "a-secret-key"));
    let settings = |text: &str| Config::parse(text).expect("valid").ota.expect("on").s3.expect("a bucket");
    let plain = settings(&good);
    assert_eq!((&*plain.region, plain.endpoint.is_none(), plain.path_style), ("us-east-1", true, false));
    assert!(!format!("{plain:?}").contains("a-secret-key") && !format!("{plain:?}").contains("AKIA"));
    let own = settings(&format!("{good}endpoint = \"https://s3.example:9000/\"\nprefix = \"plant/a-\"\n"));
    assert_eq!((own.endpoint.as_deref(), own.path_style), (Some("https://s3.example:9000"), true));
    assert!(Config::parse(&format!("{good}endpoint = \"http://127.0.0.1:1\"\nallow_http = true\n")).is_ok());

    let faulty = |rest: &str, key: &str| {
        let found = keys(&format!("{good}{rest}\n"));
        assert_eq!(found, [format!("ota.s3.{key}")], "{rest}");
    };
    for endpoint in ["http://127.0.0.1:1", "s3.example", "https://", "https://a/b", "https://a@b"] {
        faulty(&format!("endpoint = \"{endpoint}\""), "endpoint");
    }
    for prefix in ["/a", "a//b", "../a", "a b", "a?"] {
        faulty(&format!("prefix = \"{prefix}\""), "prefix");
    }
    faulty("region = \"\"", "region");
    faulty("ca_file = \"/nowhere.pem\"", "ca_file");
    faulty("credentials_file = \"/nowhere\"", "credentials_file");
    faulty("cache_bytes = 5", "cache_bytes");
    faulty("bukcet = 5", "bukcet");
    assert_eq!(keys("[ota.s3]\n"), ["ota.s3.bucket"]);
    assert_eq!(keys("[ota.s3]\nbucket = \"A\"\n"), ["ota.s3.bucket"]);
    assert_eq!(keys(&section("access_key_id = \"AKIA\"")), ["ota.s3.access_key_id"]);
    assert_eq!(keys(&section("credentials_file = \"/nowhere\"")), ["ota.s3.credentials_file"]);
    let number =
        Config::parse(&section("access_key_id = \"AKIA\"\nsecret_access_key = 1234567890")).expect_err("a fault");
    assert!(number.iter().all(|fault| !fault.message.contains("1234567890")), "{number:?}");
}

#[test]
fn new_certificates_for_downloads_need_no_restart_and_new_addresses_do() {
    let with = |change: fn(&mut OtaSettings)| {
        let mut ota = OtaSettings { tls: Some(tests_tls("one")), ..OtaSettings::default() };
        change(&mut ota);
        Config { ota: Some(ota), ..Config::default() }
    };
    let running = with(|_| {});
    assert_eq!(with(|ota| ota.tls = Some(tests_tls("two"))).restart_needed(&running), [""; 0]);
    assert_eq!(with(|ota| ota.tls = None).restart_needed(&running), ["ota"]);
    assert_eq!(with(|ota| ota.token_s = 77).restart_needed(&running), ["ota"]);
    assert_eq!(Config { ota: None, ..Config::default() }.restart_needed(&running), ["ota"]);
    assert_eq!(Config::default().restart_needed(&with(|ota| ota.tls = None)), [""; 0]);
}

fn tests_tls(name: &str) -> TlsSettings {
    let certificate = CertificateSettings { chain_file: name.into(), key_file: name.into() };
    TlsSettings {
        certificates: vec![certificate],
        client_auth: ClientAuth::None,
        client_trust: ClientTrust::Files,
        client_ca_files: Vec::new(),
        crl_files: Vec::new(),
        min_version: TlsVersion::V1_2,
    }
}
