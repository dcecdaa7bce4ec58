//! The HTTP API as a caller meets it: who gets in, what errors look like, what stays as it was.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
    for name in ["TURNPIKE_MASTER_KEY", "TURNPIKE_DEVICE_SECRET", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.args(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(data);
    // An empty one counts as none.
    command.env("TURNPIKE_ADMIN_TOKEN", "").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// What a broker says that doesn't start.
#[track_caller]
fn refused(data: &Path) -> String {
    let mut child = command(data).spawn().expect("it starts");
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok) {
        said += &line;
        if line.contains(" serving ") {
            let _ = child.kill();
        }
    }
    assert!(!child.wait().expect("a child").success(), "{said}");
    assert!(!said.contains(" serving "), "{said}");
    said
}

/// A broker, killed when dropped.
struct Broker {
    child: Child,
    http: SocketAddr,
    token: String,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    #[track_caller]
    fn start(data: &Path) -> Self {
        let mut child = command(data).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let log: Vec<String> = lines.by_ref().take_while(|line| !line.contains(" serving ")).collect();
        std::thread::spawn(move || lines.for_each(drop));
        let line = log.iter().find(|line| line.contains("name=http")).unwrap_or_else(|| panic!("{log:?}"));
        let address = line.split(' ').find_map(|word| word.strip_prefix("address=")).expect("an address");
        let token = std::fs::read_to_string(data.join("admin-token")).expect("a token");
        Self { http: address.parse().expect("an address"), token, child }
    }

    /// Status, head, body.
    #[track_caller]
    fn raw(&self, method: &str, path: &str, authorization: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.http).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {authorization}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        // An answer may come before the body is read.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head.to_lowercase(), body.to_owned())
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = self.raw(method, path, &format!("Bearer {}", self.token), body);
        (status, if body.is_empty() { Value::Null } else { serde_json::from_str(&body).expect("JSON") })
    }
}

#[test]
fn only_a_token_lets_in_and_the_schemes_case_doesnt_matter() {
    let data = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(data.path());
    for scheme in ["Bearer", "bearer", "BEARER"] {
        assert_eq!(broker.raw("GET", "/api/v1/products", &format!("{scheme} {}", broker.token), "").0, 200, "{scheme}");
    }
    for header in ["", "Bearer", "Bearer ", "Bearer wrong", &format!("Basic {}", broker.token)] {
        assert_eq!(broker.raw("GET", "/api/v1/products", header, "").0, 401, "{header:?}");
    }
    drop(broker);
    for text in ["", "\n", "short"] {
        std::fs::write(data.path().join("admin-token"), text).expect("written");
        let said = refused(data.path());
        assert!(said.contains("admin-token") && said.contains("16"), "{said}");
    }
}

#[test]
fn a_lost_master_key_is_told_and_not_replaced() {
    let data = tempfile::tempdir().expect("a folder");
    drop(Broker::start(data.path()));
    std::fs::remove_file(data.path().join("master-key")).expect("there");
    for _ in 0..2 {
        let said = refused(data.path());
        assert!(said.contains("master-key is missing; the registry was sealed under it"), "{said}");
        assert!(!data.path().join("master-key").exists(), "nothing is written");
    }
}

#[test]
fn an_address_in_use_is_told_once() {
    let data = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = taken.local_addr().expect("bound").to_string();
    for flag in ["--mqtt", "--http"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
        command.args(["serve", flag, &address, "--data"]).arg(data.path()).env_remove("TURNPIKE_ADMIN_TOKEN");
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert_eq!(said.matches("in use").count(), 1, "{said}");
    }
}

#[test]
fn a_put_without_a_secret_keeps_it() {
    let data = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(data.path());
    let device = "/api/v1/products/p/devices/d";
    assert_eq!(broker.ask("PUT", "/api/v1/products/p", "").0, 201);
    let (status, made) = broker.ask("PUT", device, "");
    assert!(status == 201 && made["secret"].is_string(), "{made}");
    for body in ["", "{}", r#"{"enabled": false}"#, r#"{"secret": "0123456789abcdef"}"#] {
        let (status, put) = broker.ask("PUT", device, body);
        assert!(status == 200 && put.get("secret").is_none(), "{body}: {put}");
    }
    let (status, renewed) = broker.ask("POST", &format!("{device}/secret"), "");
    assert!(status == 200 && renewed["secret"].is_string() && renewed["secret"] != made["secret"], "{renewed}");
    assert_eq!(renewed["enabled"], false);
    assert_eq!(broker.ask("POST", "/api/v1/products/p/devices/e/secret", "").0, 404);
}

#[test]
fn a_device_may_be_called_import() {
    let data = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(data.path());
    let import = "/api/v1/products/p/devices/import";
    assert_eq!(broker.ask("PUT", "/api/v1/products/p", "").0, 201);
    let (status, report) = broker.ask("POST", import, "import,0123456789abcdef\n");
    assert_eq!((status, &report["created"]), (200, &1.into()), "{report}");
    assert_eq!(broker.ask("PUT", import, "").0, 200);
    assert_eq!(broker.ask("GET", import, "").1["device"], "import");
    assert_eq!(broker.ask("POST", &format!("{import}/disable"), "").1["enabled"], false);
    assert_eq!(broker.ask("DELETE", import, "").0, 204);
    assert_eq!(broker.ask("GET", import, "").0, 404);
}

#[test]
fn a_header_makes_no_device() {
    let data = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(data.path());
    let import = "/api/v1/products/p/devices/import";
    assert_eq!(broker.ask("PUT", "/api/v1/products/p", "").0, 201);
    for header in ["device,secret", "DeviceName,DeviceSecret", "\u{feff}device_name,device_secret", "name,secret"] {
        let (status, report) = broker.ask("POST", import, &format!("{header}\r\nd,0123456789abcdef\r\n"));
        assert_eq!(status, 200, "{header}: {report}");
        assert_eq!(
            report["created"].as_u64().zip(report["replaced"].as_u64()).map(|(a, b)| a + b),
            Some(1),
            "{report}"
        );
    }
    for header in
        ["device,secret,mac", "device,secret,region,tags", "secret,device", "serial,The-Password", "imei,api_key"]
    {
        let (status, problem) = broker.ask("POST", import, &format!("{header}\ne,0123456789abcdef\n"));
        assert_eq!((status, &problem["error"]["code"]), (400, &"unknown_header".into()), "{header}");
        assert!(problem["error"]["message"].as_str().is_some_and(|text| text.contains("line 1")), "{problem}");
    }
    assert_eq!(broker.ask("GET", "/api/v1/products/p", "").1["devices"], 1);
}

#[test]
fn every_error_is_json_with_a_code_and_repeats_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(data.path());
    assert_eq!(broker.ask("PUT", "/api/v1/products/p", "").0, 201);
    let large = format!("{{\"secret\": \"{}\"}}", "s3nt".repeat(16_400));
    for (method, path, body, status, code) in [
        ("GET", "/api/v1/products?limit=-1", "", 400, "invalid"),
        ("GET", "/api/v1/products?limit=0", "", 400, "invalid"),
        ("GET", "/api/v1/products?s3nt=1", "", 400, "invalid"),
        ("GET", "/api/v1/products/p/devices?limit=s3nt", "", 400, "invalid"),
        ("GET", "/api/v1/products/s3nt%ff", "", 400, "invalid"),
        ("PUT", "/api/v1/products/p/devices/s3nt%zz", "", 400, "invalid"),
        ("PUT", "/api/v1/products/p/devices/d", "{\"s3nt\": 1}", 400, "invalid"),
        ("PUT", "/api/v1/products/p/devices/d", &large, 413, "too_large"),
        ("DELETE", "/api/v1/products", "", 405, "method_not_allowed"),
        ("POST", "/api/v1/products/p/devices/s3nt", "", 405, "method_not_allowed"),
        ("POST", "/healthz", "", 405, "method_not_allowed"),
        ("GET", "/api/v1/s3nt", "", 404, "not_found"),
        ("GET", "/s3nt", "", 404, "not_found"),
        ("GET", "/api/v1/products/s3nt", "", 404, "not_found"),
    ] {
        let (got, head, text) = broker.raw(method, path, &format!("Bearer {}", broker.token), body);
        let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text:?}"));
        assert_eq!((got, &problem["error"]["code"]), (status, &code.into()), "{method} {path}");
        assert!(problem["error"]["message"].is_string() && !text.contains("s3nt"), "{method} {path}: {text}");
        assert!(head.contains("content-type: application/json"), "{method} {path}: {head}");
        assert_eq!(got == 405, head.contains("\r\nallow: "), "{method} {path}: {head}");
    }
}

#[test]
fn the_document_lists_the_errors() {
    let data = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(data.path());
    let document = broker.ask("GET", "/api/openapi.json", "").1;
    let statuses = |path: &str, method: &str| {
        let responses = document["paths"][path][method]["responses"].as_object().expect("an operation");
        responses.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let device = "/api/v1/products/{product}/devices/{device}";
    assert_eq!(statuses("/api/v1/products", "get"), "200 400 401 429");
    assert_eq!(statuses(device, "put"), "200 201 400 401 404 413 429 503");
    assert_eq!(statuses(&format!("{device}/secret"), "post"), "200 400 401 404 429 503");
    assert_eq!(statuses("/api/v1/products/{product}/devices/import", "post"), "200 400 401 404 405 429 503");
    assert_ne!(document["paths"][device]["put"]["requestBody"]["required"], true);
    assert!(document["components"]["schemas"]["Failure"].is_object());
}
