//! A bucket that speaks S3, by the crate `object_store`, over our own HTTP and TLS (`s3/client.rs`).

mod client;
mod credentials;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStoreExt, PutPayload, RetryConfig};
use parking_lot::Mutex;
use serde::Deserialize;

use super::shelf::{Bucket, Doing, ShelfError};
use crate::config::{S3Credentials, S3Settings};
use client::{Connector, SetupError};
use credentials::Provider;

/// Bytes of a part; a file of up to as many goes up whole. S3 wants 5 MiB at least and 10,000 parts at most.
const PART_BYTES: u64 = 8 << 20;
/// For an operation that moves a few megabytes, or that the bucket takes long for.
const LONG: Duration = Duration::from_secs(300);
/// For any other.
const SHORT: Duration = Duration::from_secs(30);
/// Pages of a list of unfinished uploads.
const LISTS_MAX: usize = 20;

/// Tries within one operation; whoever wants it done for sure tries again later.
fn retries() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: 2, retry_timeout: Duration::from_secs(10) }
}

/// Whether a bucket can be used as it is said to be: if not, which key is wrong, and what of it.
pub(crate) fn check(settings: &S3Settings) -> Result<(), (&'static str, String)> {
    S3::new(settings).map(drop).map_err(|error| {
        let key = match &error {
            SetupError::Authorities { .. } => "ca_file",
            SetupError::Credentials(_) => match &settings.credentials {
                S3Credentials::File(..) => "credentials_file",
                S3Credentials::Given { .. } | S3Credentials::Environment => "access_key_id",
            },
            SetupError::Bucket(_) => "endpoint",
            SetupError::Tls(_) => "",
        };
        (key, error.to_string())
    })
}

/// An upload in parts that has begun.
struct Begun {
    id: String,
    parts: Vec<PartId>,
}

/// The bucket.
pub(super) struct S3 {
    store: AmazonS3,
    http: HttpClient,
    region: String,
    /// The bucket's URL.
    url: String,
    prefix: String,
    begun: Mutex<HashMap<String, Begun>>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("url", &self.url).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl S3 {
    /// Reads the files that the settings name. Calls nobody yet.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn new(settings: &S3Settings) -> Result<Self, SetupError> {
        let http = client::client(settings.ca_file.as_deref())?;
        let host = settings.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", settings.region));
        let bucket = &settings.bucket;
        let url = match (settings.path_style, host.split_once("://")) {
            (false, Some((scheme, host))) => format!("{scheme}://{bucket}.{host}"),
            _ => format!("{host}/{bucket}"),
        };
        let provider = Provider::new(settings.credentials.clone()).map_err(SetupError::Credentials)?;
        // Of an address in the bucket's style it takes the bucket to be in it.
        let endpoint = if settings.path_style { &host } else { &url };
        let store = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&settings.region)
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(!settings.path_style)
            // One request an object, which every S3 knows.
            .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true")
            .with_credentials(Arc::new(provider))
            .with_http_connector(Connector(http.clone()))
            .with_retry(retries())
            .build()
            .map_err(|error| SetupError::Bucket(error.to_string()))?;
        let (region, prefix) = (settings.region.clone(), settings.prefix.clone());
        Ok(Self { store, http, region, url, prefix, begun: Mutex::default() })
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }

    async fn put_whole(&self, name: &str, file: &Arc<File>, bytes: u64) -> Result<(), ShelfError> {
        let payload = part(file, 0, bytes).await?;
        within(LONG, self.store.put(&self.path(name), payload)).await.map(drop)
    }

    async fn put_parts(&self, name: &str, file: &Arc<File>, bytes: u64) -> Result<(), ShelfError> {
        let path = self.path(name);
        let known = self.begun.lock().get(name).map(|begun| begun.id.clone());
        let id = match known {
            Some(id) => id,
            None => {
                let id = within(SHORT, self.store.create_multipart(&path)).await?;
                self.begun.lock().insert(name.to_owned(), Begun { id: id.clone(), parts: Vec::new() });
                id
            }
        };
        let outcome = self.put_rest((name, &path), &id, file, bytes).await;
        match &outcome {
            Ok(()) => drop(self.begun.lock().remove(name)),
            // It is aborted, has expired, or can't be completed with these parts: the next try begins anew.
            Err(ShelfError::Missing(_) | ShelfError::Failed(_)) => {
                self.begun.lock().remove(name);
                let _ = within(SHORT, self.store.abort_multipart(&path, &id)).await;
            }
            Err(_) => {}
        }
        outcome
    }

    async fn put_rest(
        &self,
        (name, path): (&str, &Path),
        id: &String,
        file: &Arc<File>,
        bytes: u64,
    ) -> Result<(), ShelfError> {
        let mut parts = self.begun.lock().get(name).map(|begun| begun.parts.clone()).unwrap_or_default();
        loop {
            let from = parts.len() as u64 * PART_BYTES;
            if from >= bytes {
                break;
            }
            let payload = part(file, from, PART_BYTES.min(bytes - from)).await?;
            parts.push(within(LONG, self.store.put_part(path, id, parts.len(), payload)).await?);
            if let Some(begun) = self.begun.lock().get_mut(name) {
                begun.parts.clone_from(&parts);
            }
        }
        within(LONG, self.store.complete_multipart(path, id, parts)).await.map(drop)
    }

    /// Aborts unfinished uploads of all objects that begin so. Gives how many there were.
    async fn abort_all(&self, beginning: &str) -> Result<usize, ShelfError> {
        let mut aborted = 0;
        for _ in 0..LISTS_MAX {
            let Uploads { uploads, is_truncated } = self.uploads(beginning).await?;
            for Unfinished { key, id } in &uploads {
                match within(SHORT, self.store.abort_multipart(&Path::from(key.as_str()), id)).await {
                    Ok(()) => aborted += 1,
                    Err(ShelfError::Missing(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            if !is_truncated || uploads.is_empty() {
                break;
            }
        }
        Ok(aborted)
    }

    /// The crate has no call for this one.
    async fn uploads(&self, beginning: &str) -> Result<Uploads, ShelfError> {
        let list = async {
            let credential = self.store.credentials().get_credential().await?;
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            let uri = format!("{}?prefix={}{beginning}&uploads=", self.url, self.prefix);
            *request.uri_mut() = uri.parse().map_err(generic)?;
            AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
            self.http.execute(request).await.map_err(generic)?.into_body().bytes().await.map_err(generic)
        };
        let xml = within(SHORT, list).await?;
        quick_xml::de::from_reader(&*xml).map_err(|_| ShelfError::Failed("a list that can't be read".to_owned()))
    }
}

fn generic(error: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: Box::new(error) }
}

impl Bucket for S3 {
    fn put<'a>(&'a self, name: &'a str, file: &'a Arc<File>, bytes: u64) -> Doing<'a, ()> {
        Box::pin(async move {
            if bytes <= PART_BYTES {
                self.put_whole(name, file, bytes).await
            } else {
                self.put_parts(name, file, bytes).await
            }
        })
    }

    fn size<'a>(&'a self, name: &'a str) -> Doing<'a, Option<u64>> {
        Box::pin(async move {
            match within(SHORT, self.store.head(&self.path(name))).await {
                Ok(found) => Ok(Some(found.size)),
                Err(ShelfError::Missing(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn get<'a>(&'a self, name: &'a str, from: u64, length: u64) -> Doing<'a, Bytes> {
        Box::pin(async move {
            let bytes = within(SHORT, self.store.get_range(&self.path(name), from..from + length)).await?;
            if bytes.len() as u64 == length { Ok(bytes) } else { Err(ShelfError::Damaged) }
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            let path = self.path(name);
            let begun = self.begun.lock().remove(name);
            if let Some(begun) = begun {
                // One that is gone is aborted; one that can't be reached is found by the list.
                let _ = within(SHORT, self.store.abort_multipart(&path, &begun.id)).await;
            }
            // Not every account may list them, and not every S3 can.
            if let Err(error @ ShelfError::Unreachable(_)) = self.abort_all(name).await {
                return Err(error);
            }
            match within(SHORT, self.store.delete(&path)).await {
                Ok(()) | Err(ShelfError::Missing(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn clear(&self) -> Doing<'_, usize> {
        Box::pin(self.abort_all(""))
    }
}

/// Unfinished uploads, as S3 lists them.
#[derive(Deserialize)]
struct Uploads {
    #[serde(rename = "Upload", default)]
    uploads: Vec<Unfinished>,
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
}

#[derive(Deserialize)]
struct Unfinished {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
}

/// A part of a file, read beside the runtime's thread.
async fn part(file: &Arc<File>, from: u64, length: u64) -> Result<PutPayload, ShelfError> {
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    });
    let bytes: std::io::Result<Vec<u8>> = read.await.map_err(std::io::Error::other)?;
    Ok(PutPayload::from(bytes?))
}

async fn within<T>(
    time: Duration,
    operation: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, ShelfError> {
    match tokio::time::timeout(time, operation).await {
        Ok(outcome) => outcome.map_err(|error| client::cause(&error)),
        Err(_) => Err(ShelfError::Unreachable(format!("no answer within {} s", time.as_secs()))),
    }
}
