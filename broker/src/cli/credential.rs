//! `turnpike credential`: what a device logs in with, ready to paste.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use ring::rand::SystemRandom;
use turnpike_authz::Credentials;
use turnpike_authz::credential::{Request, SignedRequest, native_signed};
use turnpike_authz::keys::PrivateKey;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::profile::{Profile, SignMethod};
use turnpike_authz::secret::Secret;

use crate::provision;

/// Bytes of standard input that are read for a secret; more than any secret has, so that one too long is told so.
const INPUT_BYTES_MAX: u64 = 4096;

/// Options of `credential`.
#[derive(Args, Debug)]
pub struct Credential {
    /// native (good once, within ten minutes), aliyun (good until the secret is changed), tencent, huawei, tuya, azure, gizwits-legacy or gizwits.
    #[arg(long)]
    pub profile: Profile,
    /// Product key.
    #[arg(long)]
    pub product: String,
    /// Device name.
    #[arg(long)]
    pub device: String,
    /// The device's secret: for tencent and azure the base64 of a key, for gizwits `{mac},{auth key}`. Better given by the environment or on standard input, which others on the machine don't see.
    #[arg(long, env = "TURNPIKE_DEVICE_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// Client id, `{product}.{device}` if not given; for aliyun what stands before the first `|`. The other vendors' profiles have one of their own.
    #[arg(long)]
    pub client_id: Option<String>,
    /// A private key in PEM (RSA, ECDSA over P-256, Ed25519) that the device signs with; a secret is not looked at then. Of the profile native alone.
    #[arg(long)]
    pub key: Option<PathBuf>,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl Credential {
    /// The credentials. Without a secret in flag or environment it is read from `input`.
    ///
    /// # Errors
    /// Everything that is wrong with the options, a line each.
    pub fn make(&self, input: impl Read + IsTerminal) -> Result<Credentials, String> {
        let mut faults = Vec::new();
        faults.extend(ProductKey::parse(&self.product).err().map(|error| format!("--product: {error}")));
        faults.extend(DeviceName::parse(&self.device).err().map(|error| format!("--device: {error}")));
        if self.profile == Profile::Aliyun && self.client_id.as_ref().is_some_and(|id| id.contains('|')) {
            faults.push("--client-id: is what stands before the first |; the rest is added".to_owned());
        }
        if let Some(file) = &self.key {
            if self.profile != Profile::Native {
                faults.push("--key: is of the profile native alone".to_owned());
            }
            let key = private_key(file).map_err(|error| faults.push(format!("--key: {error}"))).ok();
            let (Some(key), true) = (key, faults.is_empty()) else { return Err(faults.join("\n")) };
            return self.signed(&key);
        }
        let secret = self.secret(input).map_err(|error| faults.push(error)).ok();
        let (Some(secret), true) = (secret, faults.is_empty()) else { return Err(faults.join("\n")) };
        let nonce = hex::encode(provision::random::<12>());
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let request = Request {
            product: &self.product,
            device: &self.device,
            secret: &secret,
            client_id: self.client_id.as_deref(),
            timestamp_ms: since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            nonce: &nonce,
            method: SignMethod::Sha256,
        };
        Credentials::make(self.profile, &request).map_err(|error| error.to_string())
    }

    fn signed(&self, key: &PrivateKey) -> Result<Credentials, String> {
        let nonce = hex::encode(provision::random::<12>());
        let (product, device, client_id) = (&*self.product, &*self.device, self.client_id.as_deref());
        let timestamp_ms = crate::audit::now_ms();
        let request = SignedRequest { product, device, key, client_id, timestamp_ms, nonce: &nonce };
        native_signed(&request, &SystemRandom::new()).map_err(|error| format!("--key: {error}"))
    }

    fn secret(&self, input: impl Read + IsTerminal) -> Result<Secret, String> {
        let text = match &self.secret {
            Some(text) => text.clone(),
            // Typed in, it would stand on the screen.
            None if input.is_terminal() => {
                return Err("--secret: is missing; give it here, in TURNPIKE_DEVICE_SECRET or on standard input".into());
            }
            None => {
                let mut text = String::new();
                let read = input.take(INPUT_BYTES_MAX).read_to_string(&mut text);
                read.map_err(|error| format!("the secret can't be read from standard input: {error}"))?;
                // The end of a line isn't the secret's.
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        Secret::new(text.as_bytes()).map_err(|error| format!("the secret: {error}"))
    }

    /// As the command prints them.
    #[must_use]
    pub fn text(&self, made: &Credentials) -> String {
        let Credentials { client_id, user_name, password } = made;
        let topic = format!("dev/{}/{}/up/hello", self.product, self.device);
        let [id, user, pass, topic] = [client_id, user_name, password, &topic].map(|text| quoted(text));
        let publish =
            format!("mosquitto_pub -h 127.0.0.1 -p 1883 -i {id} -u {user} -P {pass} -q 1 -t {topic} -m hello");
        if self.json {
            let fields = serde_json::json!({
                "client_id": client_id, "user_name": user_name, "password": password, "mosquitto_pub": publish,
            });
            return fields.to_string();
        }
        format!("client id: {client_id}\nuser name: {user_name}\npassword: {password}\n\n{publish}")
    }
}

fn private_key(file: &Path) -> Result<PrivateKey, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    PrivateKey::from_pem(&text, &SystemRandom::new()).map_err(|error| format!("{}: {error}", file.display()))
}

/// As a shell takes it for one word, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_it_for_one_word() {
        assert_eq!(quoted("a|b;c"), "'a|b;c'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
