//! The section `[ota.s3]`: the bucket where firmware is kept.

use std::fmt;
use std::path::PathBuf;

use turnpike_authz::secret::Secret;

use super::read::Section;
use crate::ota::check_bucket;

/// A bucket that speaks S3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Settings {
    /// Its name: 3 to 63 lower-case letters, digits, `-` and `.`.
    pub bucket: String,
    /// As the provider calls it; it is part of signatures.
    pub region: String,
    /// Scheme, host and port, without a path; none: AWS's of the region.
    pub endpoint: Option<String>,
    /// What the names of objects begin with: this broker's alone.
    pub prefix: String,
    /// Whether the bucket is in the path of URLs and not in their host.
    pub path_style: bool,
    /// PEM file of the authorities that the endpoint's certificate is checked against; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// Whose requests are.
    pub credentials: S3Credentials,
    /// Bytes of pages of files that are kept in memory for the next devices.
    pub cache_bytes: u64,
}

/// Where the keys come from.
#[derive(Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// The configuration.
    Given {
        /// `access_key_id`.
        key_id: String,
        /// `secret_access_key`.
        secret_key: Secret,
    },
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    Environment,
    /// A file as AWS's tools have it, and the profile in it. It is read again when it has changed.
    File(PathBuf, String),
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given { .. } => f.write_str("Given"),
            Self::Environment => f.write_str("Environment"),
            Self::File(path, profile) => f.debug_tuple("File").field(path).field(profile).finish(),
        }
    }
}

/// None where it can't be one.
pub(super) fn read(section: &mut Section<'_>) -> Option<S3Settings> {
    let mut settings = S3Settings {
        bucket: String::new(),
        region: "us-east-1".to_owned(),
        endpoint: None,
        prefix: String::new(),
        path_style: false,
        ca_file: None,
        credentials: S3Credentials::Environment,
        cache_bytes: 64 << 20,
    };
    section.required("bucket");
    section.read("bucket", &mut settings.bucket, |text| {
        let is_name = (3..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
        word(text, is_name, "the name of a bucket: 3 to 63 of a-z, 0-9, - and .")
    });
    section.read("region", &mut settings.region, |text| {
        let is_region = (1..=64).contains(&text.len()) && text.bytes().all(is_of_a_name);
        word(text, is_region, "the name of a region, such as \"eu-central-1\"")
    });
    let mut allow_http = false;
    section.boolean("allow_http", &mut allow_http);
    section.read("endpoint", &mut settings.endpoint, |text| endpoint(text, allow_http));
    section.read("prefix", &mut settings.prefix, |text| {
        let is_prefix = text.len() <= 256
            && text.bytes().all(|byte| is_of_a_name(byte) || byte == b'/')
            && !text.starts_with('/')
            && !text.split('/').any(|part| matches!(part, "." | ".."))
            && !text.contains("//");
        word(text, is_prefix, "up to 256 of a-z, A-Z, 0-9, -, _, . and /, such as \"turnpike/\"")
    });
    settings.path_style = settings.endpoint.is_some();
    section.boolean("path_style", &mut settings.path_style);
    section.optional_path("ca_file", &mut settings.ca_file);
    section.integer("cache_bytes", &mut settings.cache_bytes, 1 << 20..=1 << 34);
    let is_whole = credentials(section, &mut settings.credentials);
    let faulty = ["bucket", "region", "endpoint", "prefix", "ca_file"].iter().any(|key| section.is_faulty(key));
    if !is_whole || faulty {
        return None;
    }
    if let Err((key, message)) = check_bucket(&settings) {
        section.fault(key, message);
    }
    Some(settings)
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn word(text: &str, is_good: bool, expected: &str) -> Result<String, String> {
    if is_good { Ok(text.to_owned()) } else { Err(format!("must be {expected}")) }
}

fn endpoint(text: &str, allow_http: bool) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let text = text.trim_end_matches('/');
    let host = match text.split_once("://") {
        Some(("https", host)) => host,
        Some(("http", host)) if allow_http => host,
        Some(("http", _)) => return Err("is plain HTTP, which allow_http = true would allow, for tests".to_owned()),
        _ => return Err("must begin with https://".to_owned()),
    };
    let is_host = !host.is_empty()
        && host.len() <= 256
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte));
    if is_host { Ok(Some(text.to_owned())) } else { Err("must be a host, and a port if need be, no path".to_owned()) }
}

/// Whether what there is of them is whole.
fn credentials(section: &mut Section<'_>, into: &mut S3Credentials) -> bool {
    let (mut key_id, mut file, mut profile) = (String::new(), None, "default".to_owned());
    section.text("access_key_id", &mut key_id);
    let secret = section.secret("secret_access_key");
    section.optional_path("credentials_file", &mut file);
    section.text("profile", &mut profile);
    let keys = ["access_key_id", "secret_access_key", "credentials_file", "profile"];
    if keys.iter().any(|key| section.is_faulty(key)) {
        return false;
    }
    *into = match (key_id.is_empty(), secret, file) {
        (true, None, None) => return true,
        (true, None, Some(file)) => S3Credentials::File(file, profile),
        (false, Some(secret_key), None) => S3Credentials::Given { key_id, secret_key },
        (_, _, Some(_)) => {
            section.fault("credentials_file", "excludes access_key_id and secret_access_key");
            return false;
        }
        (_, _, None) => {
            section.fault("access_key_id", "needs secret_access_key, and the other way round");
            return false;
        }
    };
    true
}
