//! The program as a person or a script meets it: what it prints, what it exits with, which addresses it opens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sha2::Digest;
use tempfile::TempDir;

/// How long anything may take that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);
/// What usage and configuration errors exit with.
const USAGE: Option<i32> = Some(64);

fn turnpike() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
    for name in ["TURNPIKE_ADMIN_TOKEN", "TURNPIKE_MASTER_KEY", "TURNPIKE_DEVICE_SECRET", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    turnpike().args(args).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn write(folder: &TempDir, text: &str) -> String {
    let file = folder.path().join("turnpike.toml");
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("UTF-8").to_owned()
}

/// A broker on a data folder of its own, killed when dropped.
struct Broker {
    child: Child,
    lines: Receiver<String>,
    /// What it has said so far.
    said: Vec<String>,
    data: TempDir,
}

impl Broker {
    fn start(args: &[&str]) -> Self {
        let data = folder();
        let mut child = turnpike()
            .args(args)
            .arg("--data")
            .arg(data.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines, said: Vec::new(), data }
    }

    /// Reads the log up to a line with this in it, and gives the lines that came on the way, that one included.
    #[track_caller]
    fn until(&mut self, part: &str) -> Vec<String> {
        let begin = self.said.len();
        while let Ok(line) = self.lines.recv_timeout(SOON) {
            self.said.push(line);
            if self.said.last().is_some_and(|line| line.contains(part)) {
                return self.said[begin..].to_vec();
            }
        }
        panic!("it never said {part:?}:\n{}", self.said.join("\n"));
    }

    fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().expect("a shell").success());
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        // Its standard error ends when it does.
        while let Ok(line) = self.lines.recv_timeout(SOON) {
            self.said.push(line);
        }
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(begin.elapsed() < SOON, "it doesn't end:\n{}", self.said.join("\n"));
            std::thread::yield_now();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Name, kind and address of each listener, in the words of the log.
fn listeners(log: &[String]) -> Vec<(String, String, SocketAddr)> {
    let field = |line: &str, name: &str| {
        let words = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        words.unwrap_or_else(|| panic!("no {name} in {line}"))
    };
    let listening = log.iter().filter(|line| line.contains(" listening "));
    listening
        .map(|line| (field(line, "name"), field(line, "kind"), field(line, "address").parse().expect("an address")))
        .collect()
}

/// Connects with MQTT 3.1.1 and a clean session, and gives the return code.
#[track_caller]
fn connect(address: SocketAddr) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream.write_all(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03cli").expect("written");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[..3], [0x20, 2, 0], "a CONNACK");
    (stream, answer[3])
}

#[test]
fn port_0_takes_a_free_one_and_the_log_says_which() {
    let mut broker = Broker::start(&["serve", "--anonymous", "--mqtt", "127.0.0.1:0"]);
    let log = broker.until(" serving ");
    let open = listeners(&log);
    let [(name, kind, address)] = open.as_slice() else { panic!("only what the flags name: {log:?}") };
    assert_eq!((name.as_str(), kind.as_str()), ("mqtt", "mqtt"));
    assert_ne!(address.port(), 0);
    let (mut client, code) = connect(*address);
    assert_eq!(code, 0);
    broker.signal("TERM");
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.said.join("\n"));
    assert_eq!(client.read(&mut [0; 1]).expect("the end of the stream"), 0);
}

#[test]
fn no_command_is_serve_and_every_listener_has_its_flag() {
    let flags = ["--mqtt", "--mqtts", "--ws", "--wss", "--http"];
    let mut args = Vec::new();
    for flag in flags {
        args.extend([flag, "127.0.0.1:0"]);
    }
    let mut broker = Broker::start(&args);
    let open = listeners(&broker.until(" serving "));
    let names: Vec<String> = open.iter().map(|(name, ..)| format!("--{name}")).collect();
    assert_eq!(names, flags);
    for (name, kind, address) in &open {
        assert_eq!(name, kind);
        TcpStream::connect(address).expect("it listens");
    }
    // Without --anonymous nobody enters unknown.
    let (_, code) = connect(open[0].2);
    assert_ne!(code, 0);
    broker.signal("TERM");
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn anonymous_is_refused_beyond_loopback() {
    let data = folder();
    let data = data.path().to_str().expect("UTF-8");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let args = ["serve", "--anonymous", "--mqtt", "127.0.0.1:0", "--ws", address, "--data", data];
        let output = run(&args);
        assert_eq!(output.status.code(), USAGE, "{}", stderr(&output));
        assert!(stderr(&output).contains("anonymous"), "{}", stderr(&output));
    }
    assert_eq!(std::fs::read_dir(data).expect("a folder").count(), 0, "nothing was made");
}

#[test]
fn usage_errors_exit_64_and_help_doesnt() {
    for args in [
        &["no-such-command"][..],
        &["serve", "--mqtt", "nowhere"],
        &["serve", "--no-such-flag"],
        &["check"],
        &["credential", "--profile", "nobody", "--product", "p", "--device", "d", "--secret", "0123456789"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), USAGE, "{args:?}: {}", stderr(&output));
    }
    for args in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        assert_eq!(run(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn check_lists_every_fault_with_file_and_key() {
    let folder = folder();
    let bad = write(
        &folder,
        "nonsense = 1\n[limits]\nrecieve_max = 5\npacket_bytes_max = 0\n[log]\nlevel = \"inof\"\n\
         [[listeners]]\nkind = \"mqtts\"\naddress = \"127.0.0.1:0\"\n[[listeners.tls.certificates]]\n\
         chain_file = \"/no/such/chain.pem\"\nkey_file = \"/no/such/key.pem\"\n",
    );
    let checked = run(&["check", "--config", &bad]);
    assert_eq!(checked.status.code(), USAGE);
    let said = stderr(&checked);
    for key in [
        "nonsense",
        "limits.recieve_max",
        "limits.packet_bytes_max",
        "log.level",
        "listeners[0].tls.certificates[0].chain_file",
        "listeners[0].tls.certificates[0].key_file",
    ] {
        let line = format!("{bad}: {key}: ");
        assert!(said.lines().any(|told| told.starts_with(&line)), "{line}\n{said}");
    }
    assert_eq!(said.lines().count(), 6, "{said}");
    let served = run(&["serve", "--config", &bad]);
    assert_eq!((served.status.code(), stderr(&served)), (USAGE, said));
}

#[test]
fn check_is_content_with_the_example_and_with_nothing() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/turnpike.toml");
    let folder = folder();
    for file in [example.to_str().expect("UTF-8"), &write(&folder, "")] {
        let output = run(&["check", "--config", file]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let missing = run(&["check", "--config", "/no/such/file.toml"]);
    assert_eq!(missing.status.code(), USAGE);
    assert!(stderr(&missing).contains("/no/such/file.toml"));
}

#[test]
fn sighup_takes_a_good_file_and_tells_all_faults_of_a_bad_one() {
    let folder = folder();
    let config = |rest: &str| format!("{rest}\n[http]\nenabled = false\n[[listeners]]\naddress = \"127.0.0.1:0\"\n");
    let file = write(&folder, &config("anonymous = true"));
    let mut broker = Broker::start(&["serve", "--config", &file]);
    let open = listeners(&broker.until(" serving "));
    write(&folder, &config("anonymous = true\nshards = 0\nnonsense = 1"));
    broker.signal("HUP");
    let told = [broker.until("not reloaded").concat(), broker.until("not reloaded").concat()].concat();
    assert!(told.contains("shards") && told.contains("nonsense"), "{told}");
    assert_eq!(connect(open[0].2).1, 0);
    write(&folder, &config("anonymous = true\nnonces_max = 5000"));
    broker.signal("HUP");
    let told = broker.until("reloaded").concat();
    assert!(told.contains("nonces_max") && told.contains("restart"), "{told}");
    write(&folder, &config("anonymous = true"));
    broker.signal("HUP");
    assert!(!broker.until("reloaded").concat().contains("restart"));
    assert_eq!(connect(open[0].2).1, 0);
    broker.signal("INT");
    assert_eq!(broker.wait().code(), Some(0));
}

/// RFC 2104, for hashes with blocks of 64 bytes, written out so that nothing of ours judges itself.
fn hmac<D: Digest>(key: &str, text: &str) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key.as_bytes());
    let inner = D::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    let outer = D::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    hex::encode(outer)
}

const PRODUCT: &str = "a1B2c3D4e5F";
const DEVICE: &str = "dev001";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn aliyun_text(id: &str, timestamp: &str) -> String {
    format!("clientId{id}deviceName{DEVICE}productKey{PRODUCT}timestamp{timestamp}")
}

/// What the command prints for these options, as JSON.
#[track_caller]
fn credential(profile: &str, rest: &[&str]) -> serde_json::Value {
    let args = ["credential", "--profile", profile, "--product", PRODUCT, "--device", DEVICE, "--json"];
    let output = turnpike().args(args).args(rest).env("TURNPIKE_DEVICE_SECRET", SECRET).output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn aliyun_credentials_are_those_of_the_vendors_sdks() {
    // The Python SDK's, as captured: it shows that the text and the hash here are the vendor's.
    let vector = hmac::<sha1::Sha1>(SECRET, &aliyun_text(&format!("{PRODUCT}&{DEVICE}"), "1795231143"));
    assert_eq!(vector, "671d800016e8a3d3a771b54d74a4b36a32c851be");
    let id = format!("{PRODUCT}&{DEVICE}");
    let made = credential("aliyun", &["--client-id", &id]);
    assert_eq!(made["user_name"], format!("{DEVICE}&{PRODUCT}"));
    let client_id = made["client_id"].as_str().expect("text");
    let (before, list) = client_id.split_once('|').expect("a list");
    assert_eq!(before, id);
    let value = |key| list.trim_end_matches('|').split(',').find_map(|pair| pair.strip_prefix(key)).expect("a value");
    assert_eq!(value("signmethod="), "hmacsha256");
    let expected = hmac::<sha2::Sha256>(SECRET, &aliyun_text(&id, value("timestamp=")));
    assert_eq!(made["password"], expected);
}

#[test]
fn native_credentials_are_as_documented() {
    let made = credential("native", &["--client-id", "it's"]);
    assert_eq!((&made["client_id"], &made["user_name"]), (&"it's".into(), &format!("{PRODUCT}/{DEVICE}").into()));
    let password = made["password"].as_str().expect("text");
    let [version, timestamp, nonce, signature] = password.split(';').collect::<Vec<_>>()[..] else {
        panic!("four parts: {password}")
    };
    assert_eq!(version, "v1");
    let text = format!("v1\nit's\n{PRODUCT}\n{DEVICE}\n{timestamp}\n{nonce}");
    assert_eq!(signature, hmac::<sha2::Sha256>(SECRET, &text));
    // A shell makes the same words of the line to paste, whatever is in them.
    let line = made["mosquitto_pub"].as_str().expect("text").replacen("mosquitto_pub", "printf '%s\\n'", 1);
    let words = Command::new("sh").args(["-c", &line]).output().expect("a shell");
    let words = stdout(&words);
    let after = |flag| words.lines().skip_while(|word| *word != flag).nth(1).expect("a value").to_owned();
    assert_eq!([after("-i"), after("-P")], ["it's", password]);
    assert_eq!(after("-t"), format!("dev/{PRODUCT}/{DEVICE}/up/hello"));
    assert_ne!(credential("native", &[])["password"], credential("native", &[])["password"], "a nonce is used once");
}

#[test]
fn credentials_are_made_for_every_vendor() {
    let hour_key = |made: &serde_json::Value| {
        made["client_id"].as_str().expect("text")[DEVICE.len() + PRODUCT.len() + 6..].to_owned()
    };
    let huawei = credential("huawei", &[]);
    assert_eq!(huawei["user_name"], format!("{PRODUCT}_{DEVICE}"));
    // The key is the hour, the message the secret.
    assert_eq!(huawei["password"], hmac::<sha2::Sha256>(&hour_key(&huawei), SECRET));
    let tuya = credential("tuya", &[]);
    assert_eq!(tuya["client_id"], format!("tuyalink_{DEVICE}"));
    let user_name = tuya["user_name"].as_str().expect("text");
    let (device, parameters) = user_name.split_once("|signMethod=hmacSha256,").expect("parameters");
    assert_eq!(tuya["password"], hmac::<sha2::Sha256>(SECRET, &format!("deviceId={device},{parameters}")));
    let legacy = credential("gizwits-legacy", &[]);
    assert_eq!(
        legacy,
        serde_json::json!({
            "client_id": DEVICE, "user_name": DEVICE, "password": SECRET, "mosquitto_pub": legacy["mosquitto_pub"],
        })
    );
    for (profile, secret, password) in [
        ("azure", "acyv3QDJrRa0fW5UE58KnQ==", "SharedAccessSignature sr="),
        ("gizwits", "8caaaa8b11e0,b1223028af054bb1804d65f82dff26e7", ""),
    ] {
        let made = credential(profile, &["--secret", secret]);
        assert!(made["password"].as_str().expect("text").starts_with(password), "{made}");
        assert_eq!(made["client_id"], DEVICE);
    }
    for (args, part) in [
        (&["--profile", "tencent", "--secret", "acyv3QDJrRa0fW5UE58KnQ=="][..], "10 characters"),
        (&["--profile", "azure", "--secret", "no base64!"], "base64"),
        (&["--profile", "gizwits", "--secret", "without a MAC"], "MAC"),
        (&["--profile", "tuya", "--secret", SECRET, "--client-id", "x"], "client id"),
    ] {
        let output = run(&[&["credential", "--product", PRODUCT, "--device", DEVICE][..], args].concat());
        assert_eq!(output.status.code(), USAGE, "{args:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn a_secret_may_come_on_standard_input() {
    let args = ["credential", "--profile", "aliyun", "--product", PRODUCT, "--device", DEVICE];
    let mut child = turnpike().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(format!("{SECRET}\n").as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it runs");
    assert!(output.status.success());
    let said = stdout(&output);
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).expect("a line").to_owned();
    let client_id = value("client id: ");
    let timestamp = client_id.split([',', '|']).find_map(|pair| pair.strip_prefix("timestamp=")).expect("a timestamp");
    let text = aliyun_text(&format!("{PRODUCT}.{DEVICE}"), timestamp);
    assert_eq!(value("password: "), hmac::<sha2::Sha256>(SECRET, &text));
    assert!(said.lines().any(|line| line.starts_with("mosquitto_pub ")), "{said}");
    assert!(!said.contains(SECRET));
}

#[test]
fn all_that_is_wrong_with_a_credential_is_told_at_once() {
    let args = ["--profile", "aliyun", "--product", "a/b", "--device", "#", "--client-id", "a|b", "--secret", "short"];
    let output = run(&[&["credential"][..], &args].concat());
    assert_eq!(output.status.code(), USAGE);
    for part in ["--product", "--device", "--client-id", "secret"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert!(!stderr(&output).contains("short"));
}

/// A broker that somebody was on, ended; and the path of its data folder.
fn audited() -> (Broker, String) {
    let mut broker = Broker::start(&["serve", "--anonymous", "--mqtt", "127.0.0.1:0"]);
    let open = listeners(&broker.until(" serving "));
    let (client, code) = connect(open[0].2);
    assert_eq!(code, 0);
    drop(client);
    broker.signal("TERM");
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.said.join("\n"));
    let data = broker.data().to_str().expect("UTF-8").to_owned();
    (broker, data)
}

fn segment(data: &str) -> PathBuf {
    let folder = std::fs::read_dir(Path::new(data).join("audit")).expect("an audit");
    let mut files = folder.map(|entry| entry.expect("an entry").path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "jsonl")).expect("a segment")
}

#[test]
fn an_audit_that_is_whole_is_told_with_its_range_and_its_anchor() {
    let (_broker, data) = audited();
    let output = run(&["audit", "verify", "--data", &data]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let said = stdout(&output);
    assert!(said.contains("in 1 segments, 1 to ") && said.contains("nothing is changed or missing"), "{said}");
    let anchor = said.lines().find_map(|line| line.strip_prefix("anchor ")).expect("an anchor");
    let again = run(&["audit", "verify", "--data", &data, "--anchor", anchor]);
    assert_eq!(again.status.code(), Some(0), "{}", stdout(&again));
    // Who was here, without a word of JSON.
    let table = run(&["audit", "export", "--data", &data, "--format", "csv", "--from", "2020-01-01"]);
    assert_eq!(table.status.code(), Some(0));
    let actions: Vec<String> =
        stdout(&table).lines().skip(1).filter_map(|line| line.split(',').nth(4).map(str::to_owned)).collect();
    let expected =
        ["segment_start", "broker_start", "product_create", "device_create", "log_in", "log_out", "broker_stop"];
    assert_eq!(actions, expected, "the demo's product and device are made at the first start");
    let none = run(&["audit", "export", "--data", &data, "--to", "2020-01-01"]);
    assert_eq!((none.status.code(), stdout(&none)), (Some(0), String::new()));
}

#[test]
fn an_audit_that_was_tampered_with_exits_1_and_says_where() {
    let (_broker, data) = audited();
    let segment = segment(&data);
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(&segment).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let tampered = |what: &str, lines: &[&str], expected: &str| {
        std::fs::write(&segment, lines.join("\n") + "\n").expect("written");
        let output = run(&["audit", "verify", "--data", &data]);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", stdout(&output));
        assert!(stdout(&output).contains(expected), "{what}: {}", stdout(&output));
    };
    let changed = lines[4].replace("127.0.0.1", "127.0.0.9");
    assert_ne!(changed, lines[4], "the log-in is the fifth");
    let line_5 = format!("{name}, line 5: ");
    tampered(
        "changed",
        &[&lines[..4], &[&changed], &lines[5..]].concat(),
        &format!("{line_5}record 5 has been changed"),
    );
    tampered("removed", &[&lines[..4], &lines[5..]].concat(), &format!("{line_5}records 5 to 5 are missing"));
    let swapped = [&lines[..4], &[lines[5], lines[4]], &lines[6..]].concat();
    tampered("swapped", &swapped, "record 5 stands where record 7 should");
    tampered("cut off", &lines[..5], "the last records are missing: it ends with 5, and the head knows of 7");
    std::fs::write(&segment, &text).expect("written");
    assert_eq!(run(&["audit", "verify", "--data", &data]).status.code(), Some(0));
    // The broker goes on, says so, and doesn't cover it up.
    std::fs::write(&segment, lines[..5].join("\n") + "\n").expect("written");
    let mut child = turnpike();
    let child = child.args(["serve", "--anonymous", "--mqtt", "127.0.0.1:0", "--data", &data]);
    let mut child = child.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let log: Vec<String> = lines.by_ref().take_while(|line| !line.contains(" serving ")).collect();
    assert!(log.iter().any(|line| line.contains("the audit is damaged")), "{log:?}");
    let command = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &command]).status().expect("a shell").success());
    assert!(child.wait().expect("a child").success(), "{:?}", lines.collect::<Vec<_>>());
    let output = run(&["audit", "verify", "--data", &data]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("records 6 to 7 are missing"), "{}", stdout(&output));
}

#[test]
fn an_audit_that_cannot_be_read_exits_64() {
    let (_broker, data) = audited();
    let empty = folder();
    let nowhere = empty.path().to_str().expect("UTF-8");
    let key = Path::new(&data).join("master-key");
    let text = std::fs::read(&key).expect("a key");
    std::fs::remove_file(&key).expect("removed");
    for args in [
        &["audit", "verify", "--data", nowhere][..],
        &["audit", "export", "--data", nowhere],
        &["audit", "verify", "--data", &data],
        &["audit", "verify", "--data", &data, "--anchor", "5"],
        &["audit", "export", "--data", &data, "--from", "yesterday"],
        &["audit"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), USAGE, "{args:?}: {}{}", stdout(&output), stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
    assert!(!key.exists(), "looking makes no key");
    // Another key tells apart from a chain that was tampered with, in words.
    std::fs::write(&key, "ab".repeat(32)).expect("written");
    let chmod = Command::new("chmod").arg("600").arg(&key).status();
    assert!(chmod.expect("chmod").success());
    let output = run(&["audit", "verify", "--data", &data]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("another master key"), "{}", stdout(&output));
    let former = empty.path().join("former-key");
    std::fs::write(&former, text).expect("written");
    let chmod = Command::new("chmod").arg("600").arg(&former).status();
    assert!(chmod.expect("chmod").success());
    let former = former.to_str().expect("UTF-8");
    let output = run(&["audit", "verify", "--data", &data, "--former-key-file", former]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}
