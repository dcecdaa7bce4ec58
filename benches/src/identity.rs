//! Who the clients are: nobody, devices of a profile with a secret, or lines of a file.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use turnpike_authz::credential::{self, Credentials, MakeError, Request};
use turnpike_authz::profile::{Profile, SignMethod};
use turnpike_authz::secret::Secret;

use crate::spec::Fault;

/// Who the clients are. Goes to the workers over a pipe, secrets included; never into a report.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// No user name, no password.
    Anonymous,
    /// The same user name and password for all.
    Fixed {
        /// User name.
        user_name: String,
        /// Password.
        password: String,
    },
    /// Devices that sign.
    Devices {
        /// How.
        profile: String,
        /// Whom, in turn.
        devices: Vec<Device>,
    },
    /// A numbered family of devices that share a secret.
    Family {
        /// How they sign.
        profile: String,
        /// Its name has {i}, from 0; without that it is one device.
        device: Device,
        /// How many there are.
        count: usize,
    },
    /// Ready-made credentials, good for as many clients as there are.
    Lines(Vec<Login>),
}

/// A device to log in as.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Product key.
    pub product: String,
    /// Device name.
    pub name: String,
    /// Its secret.
    pub secret: String,
}

/// What a client's CONNECT says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Client id.
    pub client_id: String,
    /// User name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<String>,
}

/// Secrets stay out of debug output.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Identity {
    /// For people: what kind, never a secret.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".to_owned(),
            Self::Fixed { .. } => "one user name and password".to_owned(),
            Self::Devices { profile, devices } => format!("{} devices, {profile}", devices.len()),
            Self::Family { profile, count: 1, .. } => format!("one device, {profile}"),
            Self::Family { profile, count, .. } => format!("{count} devices, {profile}"),
            Self::Lines(lines) => format!("{} ready-made credentials", lines.len()),
        }
    }

    /// Reads credentials from CSV: columns `client_id,username,password`, or `product,device,secret` for devices of
    /// `profile`. The header says which.
    ///
    /// # Errors
    /// The file, its header, or a line.
    pub fn read_csv(path: &Path, profile: Profile) -> Result<Self, Fault> {
        let fault = |error: &dyn fmt::Display| Fault(format!("{}: {error}", path.display()));
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(|e| fault(&e))?;
        let header: Vec<String> = reader.headers().map_err(|e| fault(&e))?.iter().map(str::to_lowercase).collect();
        let column = |names: &[&str]| header.iter().position(|column| names.contains(&column.as_str()));
        let mut rows = Vec::new();
        for row in reader.records() {
            rows.push(row.map_err(|e| fault(&e))?);
        }
        if rows.is_empty() {
            return Err(fault(&"no credentials"));
        }
        let field = |row: &csv::StringRecord, at: usize| row.get(at).unwrap_or_default().to_owned();
        if let (Some(product), Some(device), Some(secret)) =
            (column(&["product"]), column(&["device"]), column(&["secret"]))
        {
            let device =
                |row| Device { product: field(row, product), name: field(row, device), secret: field(row, secret) };
            return Self::Devices { profile: profile.as_str().to_owned(), devices: rows.iter().map(device).collect() }
                .check()
                .map_err(|error| fault(&error));
        }
        let id = column(&["client_id", "clientid", "client id"]);
        let Some(id) = id else {
            return Err(fault(&"the header must name client_id, username, password, or product, device, secret"));
        };
        let (user, password) = (column(&["username", "user_name", "user name"]), column(&["password"]));
        let login = |row| Login {
            client_id: field(row, id),
            user_name: user.map(|at| field(row, at)),
            password: password.map(|at| field(row, at)),
        };
        Ok(Self::Lines(rows.iter().map(login).collect()))
    }

    /// Refuses profiles that aren't known and secrets that can't be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(self) -> Result<Self, Fault> {
        let (profile, devices) = match &self {
            Self::Devices { profile, devices } => (profile, devices.as_slice()),
            Self::Family { profile, device, .. } => (profile, std::slice::from_ref(device)),
            Self::Anonymous | Self::Fixed { .. } | Self::Lines(_) => return Ok(self),
        };
        let profile = profile.parse::<Profile>().map_err(Fault)?;
        for (row, device) in devices.iter().enumerate() {
            let faulty = |what: &dyn fmt::Display| Fault(format!("device {} ({:?}): {what}", row + 1, device.name));
            if device.product.is_empty() || device.name.is_empty() {
                return Err(faulty(&"product and device name must not be empty"));
            }
            let secret = Secret::new(device.secret.as_bytes()).map_err(|error| faulty(&error))?;
            sign(profile, (&device.product, &device.name), &secret, "client", 0).map_err(|error| faulty(&error))?;
        }
        Ok(self)
    }

    /// Product and device name of the identity with this number, if it is a device.
    #[must_use]
    pub fn device(&self, number: usize) -> Option<(String, String)> {
        match self {
            Self::Devices { devices, .. } => {
                let device = devices.get(number % devices.len().max(1))?;
                Some((device.product.clone(), device.name.clone()))
            }
            Self::Family { device, count, .. } => {
                let name = device.name.replace("{i}", &(number % count.max(&1)).to_string());
                Some((device.product.clone(), name))
            }
            Self::Anonymous | Self::Fixed { .. } | Self::Lines(_) => None,
        }
    }

    /// What client `client_id` says as the identity with this number. `unique` is never the same twice in a run.
    #[must_use]
    pub fn login(&self, number: usize, client_id: String, unique: u64) -> Login {
        let (profile, secret) = match self {
            Self::Anonymous => return Login { client_id, user_name: None, password: None },
            Self::Fixed { user_name, password } => {
                return Login { client_id, user_name: Some(user_name.clone()), password: Some(password.clone()) };
            }
            Self::Lines(lines) => return lines[number % lines.len()].clone(),
            Self::Devices { profile, devices } => (profile, &devices[number % devices.len()].secret),
            Self::Family { profile, device, .. } => (profile, &device.secret),
        };
        let secret = Secret::new(secret.as_bytes()).expect("checked");
        let (product, device) = self.device(number).expect("these are devices");
        let profile = profile.parse::<Profile>().expect("checked");
        let made = sign(profile, (&product, &device), &secret, &client_id, unique).expect("checked");
        Login { client_id: made.client_id, user_name: Some(made.user_name), password: Some(made.password) }
    }
}

/// What a device of a profile sends. The vendors' profiles have a client id of their own.
fn sign(
    profile: Profile,
    (product, device): (&str, &str),
    secret: &Secret,
    client_id: &str,
    unique: u64,
) -> Result<Credentials, MakeError> {
    let nonce = format!("{client_id}.{unique}");
    match profile {
        // Without a timestamp, so that it costs the harness the same each time.
        Profile::Aliyun => Ok(credential::aliyun(product, device, secret, client_id, SignMethod::Sha256, None)),
        _ => {
            let client_id = (profile == Profile::Native).then_some(client_id);
            let (timestamp_ms, method) = (now_ms(), SignMethod::Sha256);
            let request = Request { product, device, secret, client_id, timestamp_ms, nonce: &nonce, method };
            Credentials::make(profile, &request)
        }
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Identity, Fault> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Identity::read_csv(file.path(), Profile::Aliyun)
    }

    #[test]
    fn a_file_of_credentials() {
        let identity = read("client_id,username,password\na,ua,pa\nb, ub ,pb\n").expect("read");
        let login = identity.login(3, "ignored".to_owned(), 0);
        assert_eq!((login.client_id.as_str(), login.user_name.as_deref()), ("b", Some("ub")));
        assert_eq!(login.password.as_deref(), Some("pb"));
        assert_eq!(identity.device(0), None);
    }

    #[test]
    fn a_file_of_devices() {
        let identity = read("product,device,secret\np,d1,0123456789abcdef\np,d2,0123456789abcdef\n").expect("read");
        assert_eq!(identity.device(1), Some(("p".to_owned(), "d2".to_owned())));
        let login = identity.login(1, "me".to_owned(), 0);
        assert_eq!(login.user_name.as_deref(), Some("d2&p"));
        assert!(login.client_id.starts_with("me|"), "{}", login.client_id);
    }

    #[test]
    fn files_that_are_none() {
        assert!(read("client_id,username\n").is_err(), "no lines");
        assert!(read("a,b\n1,2\n").is_err(), "no known column");
        assert!(read("product,device,secret\np,d,short\n").is_err(), "a short secret");
        assert!(read("client_id,username\na\n").is_err(), "a line that is too short");
    }

    #[test]
    fn a_family_has_numbers_and_nonces_differ() {
        let device = Device { product: "p".into(), name: "d{i}".into(), secret: "0123456789abcdef".into() };
        let family = Identity::Family { profile: "native".into(), device, count: 3 }.check().expect("valid");
        assert_eq!(family.device(4), Some(("p".to_owned(), "d1".to_owned())));
        let login = |unique| family.login(4, "c".to_owned(), unique).password.expect("one");
        assert!(login(1).starts_with("v1;"));
        assert_ne!(login(1).split(';').nth(2), login(2).split(';').nth(2));
        assert!(!format!("{family:?}").contains("0123456789abcdef"));
    }
}
