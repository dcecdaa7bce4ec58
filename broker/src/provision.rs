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

/// Bytes of the shortest token that may administer.
const TOKEN_BYTES_MIN: usize = 16;

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
    /// Another key would open nothing, and what it seals the lost one wouldn't open either.
    #[error("{}: master-key is missing; the {what} was sealed under it", file.display())]
    KeyMissing {
        /// Where it was.
        file: PathBuf,
        /// What was sealed under it.
        what: &'static str,
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
/// [`ProvisionError`], also for a token that is easily guessed: fewer than 16 bytes.
pub fn admin_token(data: &Path) -> Result<String, ProvisionError> {
    if let Some(token) = variable(ADMIN_TOKEN)? {
        return long_enough(token, ADMIN_TOKEN.to_owned());
    }
    let file = data.join("admin-token");
    long_enough(kept_secret(&file)?, file.display().to_string())
}

fn long_enough(token: String, place: String) -> Result<String, ProvisionError> {
    if token.len() >= TOKEN_BYTES_MIN {
        return Ok(token);
    }
    let message = format!(
        "the administrator's token has {} bytes and needs {TOKEN_BYTES_MIN} at least; remove it, and one is made",
        token.len()
    );
    Err(ProvisionError::Content { place, message })
}

/// What the environment says, white space around it removed; an empty variable says nothing.
fn variable(name: &str) -> Result<Option<String>, ProvisionError> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let unreadable = |_| ProvisionError::Content { place: name.to_owned(), message: "it isn't UTF-8".to_owned() };
    let value = value.into_string().map_err(unreadable)?;
    Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
}

/// A master key, and where it is to be kept if it was made just now.
pub struct FoundKey {
    /// The key.
    pub key: MasterKey,
    /// To be kept before anything is sealed.
    pub made: MadeKey,
}

/// What is to be written of a master key: nothing, unless it was made just now.
pub struct MadeKey(Option<(PathBuf, String)>);

impl MadeKey {
    /// Refuses a key that was made just now where there is an audit already, kept under one that is lost then.
    ///
    /// # Errors
    /// [`ProvisionError::KeyMissing`].
    pub fn check(&self, audited: bool) -> Result<(), ProvisionError> {
        match &self.0 {
            Some((file, _)) if audited => Err(ProvisionError::KeyMissing { file: file.clone(), what: "audit" }),
            _ => Ok(()),
        }
    }

    /// Writes a key that was made just now, before anything is sealed under it. `sealed` says that something was sealed
    /// already, under a key that is lost then.
    ///
    /// # Errors
    /// [`ProvisionError::KeyMissing`], and nothing is written; or the file can't be written.
    pub fn keep(self, sealed: bool) -> Result<(), ProvisionError> {
        match self.0 {
            None => Ok(()),
            Some((file, _)) if sealed => Err(ProvisionError::KeyMissing { file, what: "registry" }),
            Some((file, text)) => {
                write_secret(&file, text.as_bytes()).map_err(|source| ProvisionError::File { file, source })
            }
        }
    }
}

/// The master key: of the environment, else of the file given, else of `master-key` in the data folder; if that isn't there, one is
/// made, for [`MadeKey::keep`].
///
/// # Errors
/// [`ProvisionError`].
pub fn master_key(data: &Path, file: Option<&Path>) -> Result<FoundKey, ProvisionError> {
    let kept = data.join("master-key");
    let (text, place, made) = match (variable(MASTER_KEY)?, file) {
        (Some(text), _) => (text, MASTER_KEY.to_owned(), None),
        (None, Some(file)) => (read_private(file)?, file.display().to_string(), None),
        (None, None) if is_there(&kept)? => (read_private(&kept)?, kept.display().to_string(), None),
        (None, None) => {
            let text = hex::encode(random::<32>());
            (text.clone(), kept.display().to_string(), Some((kept, text)))
        }
    };
    let key = MasterKey::from_text(&text);
    let key = key.map_err(|error| ProvisionError::Content { place, message: error.to_string() })?;
    Ok(FoundKey { key, made: MadeKey(made) })
}

/// Not being allowed to look isn't the same as there being nothing.
fn is_there(file: &Path) -> Result<bool, ProvisionError> {
    file.try_exists().map_err(|source| ProvisionError::File { file: file.to_owned(), source })
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
    if !is_there(file)? {
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
    fn a_token_that_anybody_has_is_refused() {
        for text in ["", " \n", "fifteen bytes.."] {
            let data = tempfile::tempdir().expect("a folder");
            write_secret(&data.path().join("admin-token"), text.as_bytes()).expect("written");
            let error = admin_token(data.path()).expect_err("too short").to_string();
            assert!(error.contains("admin-token") && error.contains("16"), "{error}");
        }
        let data = tempfile::tempdir().expect("a folder");
        write_secret(&data.path().join("admin-token"), b"sixteen bytes..!\n").expect("written");
        assert_eq!(admin_token(data.path()).expect("long enough"), "sixteen bytes..!");
    }

    #[test]
    fn a_master_key_is_written_only_if_nothing_was_sealed() {
        let data = tempfile::tempdir().expect("a folder");
        let file = data.path().join("master-key");
        let lost = master_key(data.path(), None).expect("made").made.keep(true).expect_err("sealed");
        assert!(lost.to_string().ends_with("master-key is missing; the registry was sealed under it"), "{lost}");
        assert_eq!(fs::read_dir(data.path()).expect("a folder").count(), 0, "nothing is written");
        let made = master_key(data.path(), None).expect("made");
        made.made.keep(false).expect("written");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let found = master_key(data.path(), None).expect("there");
        assert_eq!(found.key.id(), made.key.id());
        found.made.keep(true).expect("it isn't lost");
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
