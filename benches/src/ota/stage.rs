//! A broker with a product, its devices, and a firmware.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use turnpike_authz::credential::{self, Credentials};
use turnpike_authz::secret::Secret;

use crate::compare::brokers::Broker;
use crate::http::Http;

pub(super) const PRODUCT: &str = "bench";
/// The device whose live messages are watched; no part of a campaign.
pub(super) const LIVE: &str = "live";
/// Its product.
pub(super) const LIVE_PRODUCT: &str = "live";
pub(super) const TARGET: &str = "mcu";
pub(super) const OLD: &str = "1.0";
pub(super) const NEW: &str = "2.0";
const SERVICE: &str = "back-end";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Devices of one request.
const IMPORT: u32 = 20_000;
/// Bytes of one request.
const UPLOAD: usize = 8 << 20;
/// Nothing here is to be slowed by what isn't measured.
const UNHINDERED: &str = "nonces_max = 10_000_000\n";
/// The desk's own bound on all blocks is far beyond what is to be reached.
const BLOCKS: &str = "blocks_bytes_s = 10_000_000_000\n";

/// A running broker; dropping it ends it.
pub(super) struct Stage {
    broker: Broker,
    /// Where devices download.
    pub(super) ota: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// `more`: of its configuration.
    pub(super) fn start(program: &Path, devices: u32, with_tls: bool, more: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let ota = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut config = format!("{UNHINDERED}[ota]\naddress = \"{ota}\"\n{BLOCKS}");
        let tls = with_tls.then(|| certify(folder.path(), &mut config)).transpose()?;
        let broker = Broker::turnpike(program, false, None, &format!("{config}{more}\n"))?;
        let stage = Self { broker, ota, tls, _folder: folder };
        stage.furnish(devices)?;
        Ok(stage)
    }

    fn furnish(&self, devices: u32) -> anyhow::Result<()> {
        let mut http = self.http()?;
        for product in [PRODUCT, LIVE_PRODUCT] {
            http.ask("PUT", &format!("/api/v1/products/{product}"), "{}")?;
        }
        let service = json!({ "secret": SECRET, "grants": [{ "product": LIVE_PRODUCT, "rights": ["read_up"] }] });
        http.ask("PUT", &format!("/api/v1/services/{SERVICE}"), &service.to_string())?;
        let secret = json!({ "secret": SECRET }).to_string();
        http.ask("PUT", &format!("/api/v1/products/{LIVE_PRODUCT}/devices/{LIVE}"), &secret)?;
        for first in (0..devices).step_by(IMPORT as usize) {
            let mut rows = String::from("device,secret\n");
            (first..devices.min(first + IMPORT)).for_each(|n| rows.push_str(&format!("{},{SECRET}\n", device(n))));
            http.ask("POST", &format!("/api/v1/products/{PRODUCT}/devices/import"), &rows)?;
        }
        Ok(())
    }

    /// Uploads a firmware; its number.
    pub(super) fn firmware(&self, content: &str) -> anyhow::Result<u64> {
        let mut http = self.http()?;
        let path = format!("/api/v1/products/{PRODUCT}/firmware");
        let wanted = json!({ "target": TARGET, "version": NEW, "any_hardware": true, "size": content.len() });
        let made: Value = serde_json::from_str(&http.ask("POST", &path, &wanted.to_string())?)?;
        let number = made["firmware"].as_u64().context("no number of a firmware")?;
        let upload = made["upload"].as_str().context("no place for the file")?;
        let mut at = 0;
        while at < content.len() {
            let part = &content[at..content.len().min(at + UPLOAD)];
            http.ask_with("PUT", upload, &format!("upload-offset: {at}\r\n"), part)?;
            at += part.len();
        }
        http.ask("POST", &format!("{path}/{number}/finish"), "{}")?;
        Ok(number)
    }

    /// A campaign for all devices; its number.
    pub(super) fn campaign(&self, firmware: u64) -> anyhow::Result<u64> {
        let wanted = json!({ "name": "bench", "firmware": firmware }).to_string();
        let made: Value = serde_json::from_str(&self.http()?.ask("POST", "/api/v1/campaigns", &wanted)?)?;
        made["campaign"].as_u64().context("no number of a campaign")
    }

    pub(super) fn http(&self) -> anyhow::Result<Http> {
        self.broker.http()
    }

    pub(super) fn pid(&self) -> u32 {
        self.broker.pid()
    }

    /// Where MQTT is spoken.
    pub(super) fn mqtt(&self) -> SocketAddr {
        self.broker.address
    }

    /// What clients need for downloads over TLS; none: they are plain.
    pub(super) fn tls(&self) -> anyhow::Result<Option<(Arc<ClientConfig>, ServerName<'static>)>> {
        let Some(tls) = &self.tls else { return Ok(None) };
        Ok(Some((Arc::clone(tls), ServerName::try_from("localhost")?)))
    }
}

pub(super) fn device(n: u32) -> String {
    format!("d{n}")
}

/// What a device logs in with, once.
pub(super) fn device_login(n: u32) -> anyhow::Result<Credentials> {
    let name = device(n);
    login(PRODUCT, &name, &format!("{PRODUCT}.{name}"))
}

pub(super) fn live_login() -> anyhow::Result<Credentials> {
    login(LIVE_PRODUCT, LIVE, &format!("{LIVE_PRODUCT}.{LIVE}"))
}

pub(super) fn service_login() -> anyhow::Result<Credentials> {
    login("$svc", SERVICE, "bench-service")
}

fn login(product: &str, name: &str, client_id: &str) -> anyhow::Result<Credentials> {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let now_ms = u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
    let nonce = format!("{now_ms}-{}", NONCE.fetch_add(1, Relaxed));
    let secret = Secret::new(SECRET.as_bytes())?;
    Ok(credential::native(product, name, &secret, client_id, now_ms, &nonce))
}

/// A file that is a text, no two parts of which are the same.
pub(super) fn content(bytes: usize) -> String {
    use std::fmt::Write;

    let mut text = String::with_capacity(bytes + 16);
    let mut line = 0_u64;
    while text.len() < bytes {
        // The product of an odd number and a line's is another for each line.
        let _ = writeln!(text, "{:015x}", line.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 4);
        line += 1;
    }
    text.truncate(bytes);
    text
}

/// A certificate for localhost; the broker's configuration for it, and what clients trust.
fn certify(folder: &Path, config: &mut String) -> anyhow::Result<Arc<ClientConfig>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (chain, key) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&chain, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    *config += &format!("[[ota.tls.certificates]]\nchain_file = {chain:?}\nkey_file = {key:?}\n");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&chain)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_length_and_doesnt_repeat() {
        let file = content(100_003);
        assert_eq!(file.len(), 100_003);
        let mut lines: Vec<_> = file.lines().collect();
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), count);
    }
}
