//! Whose requests to a bucket are: keys from the configuration, the environment or a file, which is read again when it has changed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use parking_lot::Mutex;

use crate::config::S3Credentials;

/// Bytes of a file of credentials.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The file that the keys are in has become one that they can't be read from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(String);

/// Gives the keys for a request.
pub(super) struct Provider {
    from: S3Credentials,
    known: Mutex<(Option<SystemTime>, Arc<AwsCredential>)>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Provider {
    /// Reads the keys.
    pub(super) fn new(from: S3Credentials) -> Result<Self, String> {
        let known = read(&from)?;
        Ok(Self { from, known: Mutex::new(known) })
    }

    fn current(&self) -> Result<Arc<AwsCredential>, String> {
        let mut known = self.known.lock();
        if let S3Credentials::File(path, _) = &self.from
            && changed(path)? != known.0
        {
            *known = read(&self.from)?;
            tracing::info!(file = %path.display(), "credentials for the bucket have been read again");
        }
        Ok(Arc::clone(&known.1))
    }
}

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.current()
            .map_err(|reason| object_store::Error::Generic { store: "S3", source: Box::new(Unusable(reason)) })
    }
}

fn changed(path: &Path) -> Result<Option<SystemTime>, String> {
    let found = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    found.map(Some).map_err(|error| format!("{} can't be read: {error}", path.display()))
}

fn read(from: &S3Credentials) -> Result<(Option<SystemTime>, Arc<AwsCredential>), String> {
    match from {
        S3Credentials::Given { key_id, secret_key } => {
            let secret_key = String::from_utf8_lossy(secret_key.expose()).into_owned();
            Ok((None, Arc::new(AwsCredential { key_id: key_id.clone(), secret_key, token: None })))
        }
        S3Credentials::Environment => {
            let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            let found = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
            let (key_id, secret_key) = found.ok_or(
                "there are no credentials: set access_key_id and secret_access_key, credentials_file, or \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            )?;
            Ok((None, Arc::new(AwsCredential { key_id, secret_key, token: variable("AWS_SESSION_TOKEN") })))
        }
        S3Credentials::File(path, profile) => {
            // Before the file: what is written in between is read again.
            let at = changed(path)?;
            Ok((at, Arc::new(in_file(path, profile)?)))
        }
    }
}

fn in_file(path: &Path, profile: &str) -> Result<AwsCredential, String> {
    let fault = |reason: &dyn fmt::Display| format!("{} can't be read: {reason}", path.display());
    let length = std::fs::metadata(path).map_err(|error| fault(&error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(fault(&"it is too long to be a file of credentials"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fault(&error))?;
    parse(&text, profile).ok_or_else(|| {
        format!("{}: [{profile}] must have aws_access_key_id and aws_secret_access_key, a line each", path.display())
    })
}

/// Reads a profile of a file of credentials as AWS's tools share it; lines before the first profile are of `default`.
fn parse(text: &str, profile: &str) -> Option<AwsCredential> {
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    let mut section = "default";
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| section == profile) else { continue };
        let into = match key.trim() {
            "aws_access_key_id" => &mut key_id,
            "aws_secret_access_key" => &mut secret_key,
            "aws_session_token" => &mut token,
            _ => continue,
        };
        *into = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
    }
    Some(AwsCredential { key_id: key_id?, secret_key: secret_key?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read() {
        let text = "# keys\naws_access_key_id = A\naws_secret_access_key=b=c\n[other]\naws_access_key_id=D\n\
                    aws_secret_access_key=e\naws_session_token = t\nregion = x\n[half]\naws_access_key_id=F\n";
        let of = |profile: &str| parse(text, profile).map(|found| (found.key_id, found.secret_key, found.token));
        let texts = |key: &str, secret: &str, token: Option<&str>| {
            Some((key.to_owned(), secret.to_owned(), token.map(str::to_owned)))
        };
        assert_eq!(of("default"), texts("A", "b=c", None));
        assert_eq!(of("other"), texts("D", "e", Some("t")));
        assert_eq!((of("half"), of("none")), (None, None));
    }

    #[test]
    fn a_file_that_has_changed_is_read_again_and_never_printed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credentials");
        let write = |key: &str, at_s: u64| {
            let text = format!("[default]\naws_access_key_id={key}\naws_secret_access_key=very-secret\n");
            std::fs::write(&path, text).expect("written");
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at_s);
            std::fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(at)).expect("a time");
        };
        write("one", 1_000);
        let provider = Provider::new(S3Credentials::File(path.clone(), "default".to_owned())).expect("keys");
        assert_eq!(provider.current().expect("keys").key_id, "one");
        write("two", 2_000);
        assert_eq!(provider.current().expect("keys").key_id, "two");
        assert!(!format!("{provider:?}").contains("very-secret"));
        std::fs::remove_file(&path).expect("removed");
        assert!(provider.current().is_err_and(|reason| reason.contains("can't be read")));
    }
}
