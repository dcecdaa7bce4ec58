//! What a first start makes: the administrator's token, the master key, the demo device.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use turnpike_authz::credential;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::plan::Change;
use turnpike_authz::profile::SignMethod;
use turnpike_authz::registry::{Device, Product, Registry, owner};
use turnpike_authz::secret::{MasterKey, SealError, Secret};

use crate::pki::write_secret;

/// Environment variable of the administrator's token.
pub const ADMIN_TOKEN: &str = "TURNPIKE_ADMIN_TOKEN";
/// Environment variable of the master key, as 64 hexadecimal digits.
pub const MASTER_KEY: &str = "TURNPIKE_MASTER_KEY";

/// The demo's product and device.
pub const DEMO: (&str, &str) = ("demo", "device-1");

/// Why a secret of the broker's own can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A file can't be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("{}: others can read it (mode {mode:o}); make it 600, and what it holds again", file.display())]
    Mode {
        /// Which.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It isn't what it should be.
    #[error("{place}: {message}")]
    Content {
        /// The file or variable.
        place: String,
        /// What is wrong.
        message: String,
    },
}

/// Random bytes.
///
/// # Panics
/// The kernel has none, which it never says after boot.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes
}

/// The administrator's token: of the environment, else of `admin-token` in the data folder, which is made if it isn't there.
///
/// # Errors
/// [`ProvisionError`].
pub fn admin_token(data: &Path) -> Result<String, ProvisionError> {
    match std::env::var(ADMIN_TOKEN) {
        Ok(token) if !token.is_empty() => Ok(token),
        _ => kept_secret(&data.join("admin-token")),
    }
}

/// The master key: of the environment, else of the file given, else of `master-key` in the data folder, which is made if it isn't there.
///
/// # Errors
/// [`ProvisionError`].
pub fn master_key(data: &Path, file: Option<&Path>) -> Result<MasterKey, ProvisionError> {
    let (text, place) = match (std::env::var(MASTER_KEY), file) {
        (Ok(text), _) if !text.is_empty() => (text, MASTER_KEY.to_owned()),
        (_, Some(file)) => (read_private(file)?, file.display().to_string()),
        (_, None) => {
            let file = data.join("master-key");
            (kept_secret(&file)?, file.display().to_string())
        }
    };
    MasterKey::from_text(&text).map_err(|error| ProvisionError::Content { place, message: error.to_string() })
}

/// A master key that is in a file.
///
/// # Errors
/// [`ProvisionError`].
pub fn existing_key(file: &Path) -> Result<MasterKey, ProvisionError> {
    let place = file.display().to_string();
    let content = |error: SealError| ProvisionError::Content { place, message: error.to_string() };
    MasterKey::from_text(&read_private(file)?).map_err(content)
}

/// A secret of 64 hexadecimal digits in a file of its own, made if it isn't there.
fn kept_secret(file: &Path) -> Result<String, ProvisionError> {
    if !file.exists() {
        let text = hex::encode(random::<32>());
        write_secret(file, text.as_bytes()).map_err(|source| ProvisionError::File { file: file.to_owned(), source })?;
        return Ok(text);
    }
    read_private(file)
}

/// The text of a file that nobody else may read.
fn read_private(file: &Path) -> Result<String, ProvisionError> {
    let failed = |source| ProvisionError::File { file: file.to_owned(), source };
    let mode = fs::metadata(file).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ProvisionError::Mode { file: file.to_owned(), mode });
    }
    Ok(fs::read_to_string(file).map_err(failed)?.trim().to_owned())
}

/// Changes that create the demo; none if it was made before, even if it is gone since.
#[must_use]
pub fn demo(registry: &Registry, key: &MasterKey, now_s: u64) -> Vec<Change> {
    const MARK: &str = "demo";
    let (product, device) = DEMO;
    let (Ok(product), Ok(name)) = (ProductKey::parse(product), DeviceName::parse(device)) else { return Vec::new() };
    // A registry that has products is in use: an operator's, who didn't ask for a demo.
    if registry.is_marked(MARK) || !registry.products(None, 1).is_empty() {
        return Vec::new();
    }
    let secret = Secret::generate(random());
    let sealed = key.seal(&owner(product.as_str(), name.as_str()), &secret, random());
    vec![
        Change::Mark(MARK.into()),
        Change::PutProduct(product.clone(), Product { enabled: true, created_at_s: now_s }),
        Change::PutDevice(product, name, Device { enabled: true, created_at_s: now_s, secret: sealed }),
    ]
}

/// Lines to paste into a terminal: a subscriber, a publisher over TCP, a publisher over TLS. None if there is no demo device.
#[must_use]
pub fn demo_lines(
    registry: &Registry,
    key: &MasterKey,
    mqtt: Option<std::net::SocketAddr>,
    mqtts: Option<(std::net::SocketAddr, &Path)>,
) -> Option<String> {
    let (product, device) = DEMO;
    let secret = key.open(&owner(product, device), &registry.device(product, device)?.secret).ok()?;
    // This profile's password is good more than once, so that the line can be pasted again.
    let login = |id: &str| {
        let made = credential::aliyun(product, device, &secret, id, SignMethod::Sha256, None);
        format!("-i '{}' -u '{}' -P {}", made.client_id, made.user_name, made.password)
    };
    let mut lines = String::new();
    if let Some(address) = mqtt {
        let (host, port) = (address.ip(), address.port());
        lines += &format!(
            "  mosquitto_sub -h {host} -p {port} {} -v -t 'dev/{product}/{device}/sys/#'\n",
            login("subscriber")
        );
        lines += &format!(
            "  mosquitto_pub -h {host} -p {port} {} -q 1 -t dev/{product}/{device}/sys/hello -m 'hello over TCP'\n",
            login("publisher")
        );
    }
    if let Some((address, ca)) = mqtts {
        let (host, port) = (address.ip(), address.port());
        lines += &format!(
            "  mosquitto_pub -h {host} -p {port} --cafile '{}' {} -q 1 -t dev/{product}/{device}/sys/hello -m 'hello over TLS'\n",
            ca.display(),
            login("publisher-tls")
        );
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_private() {
        let data = tempfile::tempdir().expect("a folder");
        let file = data.path().join("secret");
        let first = kept_secret(&file).expect("made");
        assert_eq!(kept_secret(&file).expect("kept"), first);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(kept_secret(&file), Err(ProvisionError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn the_demo_is_provisioned_once() {
        let (registry, key) = (Registry::new(), MasterKey::new([1; 32]));
        let changes = demo(&registry, &key, 5);
        assert_eq!(changes.len(), 3);
        changes.into_iter().for_each(|change| registry.apply(change));
        assert!(demo_lines(&registry, &key, Some(([127, 0, 0, 1], 1883).into()), None).is_some());
        registry.apply(Change::DeleteProduct(ProductKey::parse("demo").expect("a name")));
        assert!(demo(&registry, &key, 6).is_empty());
        assert_eq!(demo_lines(&registry, &key, None, None), None);
    }
}
