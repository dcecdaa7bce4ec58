use super::*;

fn keys(text: &str) -> Vec<String> {
    Config::parse(text).expect_err("faults").into_iter().map(|fault| fault.key).collect()
}

#[test]
fn nothing_is_the_default() {
    assert_eq!(Config::parse(""), Ok(Config::default()));
}

#[test]
fn the_example_says_the_defaults() {
    let text = include_str!("../../../deploy/turnpike.toml");
    assert_eq!(Config::parse(text), Ok(Config { shards: Config::default().shards, ..Config::default() }));
    // Every key stands in it, in force or as a comment.
    let limits = format!("{:?}", Limits::default());
    for key in limits.split(['{', ',']).filter_map(|field| field.trim().split_once(':')).map(|(key, _)| key) {
        assert!(text.contains(&format!("{key} =")), "{key} isn't in the example");
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
