//! Sets of keys for users' tokens, fetched: by URL or from a file, when [`KeyDesk`] says so.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use turnpike_authz::people::People;
use turnpike_authz::people::apps::KeySource;
use turnpike_authz::people::jwks::{DOCUMENT_BYTES_MAX, KeySet};
#[cfg(doc)]
use turnpike_authz::people::key_desk::KeyDesk;

use turnpike_core::concern::Concern;

use crate::fetch::{FetchError, Fetcher, Target};
use crate::server::Control;

/// How long fetching a set may take.
const KEYS_TIME_MAX: Duration = Duration::from_secs(10);
/// Sets fetched at once.
const FETCHES_MAX: usize = 8;
/// How often it is looked for what is due: who has shown a new key waits no longer than this, and the fetch.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Who fetches.
///
/// # Errors
/// [`Fetcher::new`]'s.
pub(super) fn fetcher() -> anyhow::Result<Fetcher> {
    Ok(Fetcher::new(DOCUMENT_BYTES_MAX, KEYS_TIME_MAX)?)
}

/// Fetches what is due, until the process ends. The last good set stays until there is another.
pub(super) async fn keep(people: &People, control: &Control, fetcher: &Fetcher) {
    let mut fetching = JoinSet::new();
    // The last good set of each source: an app that comes to one later has it at once.
    let mut good: HashMap<KeySource, KeySet> = HashMap::new();
    loop {
        let wanted = people.key_sources();
        let there: HashSet<&KeySource> = wanted.iter().map(|(_, source)| source).collect();
        good.retain(|source, _| there.contains(source));
        for (app, source) in wanted.iter().filter(|(app, _)| !people.has_keys(app)) {
            if let Some(keys) = good.get(source) {
                people.set_keys(app.clone(), keys.clone());
            }
        }
        let sources: Vec<KeySource> = wanted.into_iter().map(|(_, source)| source).collect();
        let room = FETCHES_MAX - fetching.len();
        for source in people.key_desk().take_due(&sources, room, control.now().mono_ms) {
            let fetcher = fetcher.clone();
            fetching.spawn(async move {
                // A fault of our own is one of this source, and not the end of it.
                let found = tokio::time::timeout(KEYS_TIME_MAX * 2, keys(&source, &fetcher)).await;
                (source, found.unwrap_or(Err(KeysError::Fetch(FetchError::Time))))
            });
        }
        let fetched = tokio::select! {
            Some(fetched) = fetching.join_next(), if !fetching.is_empty() => fetched,
            () = tokio::time::sleep(LOOK_INTERVAL) => continue,
        };
        let Ok((source, found)) = fetched else { continue };
        // Before the desk hears of it: whoever is told that it isn't under way any more finds the new keys.
        let fetched = found.is_ok();
        match found {
            Ok(keys) => {
                // Apps may have gone meanwhile, or have their keys elsewhere by now.
                let of_source = people.key_sources().into_iter().filter(|(_, other)| *other == source);
                let is_other = good.get(&source).is_some_and(|before| *before != keys);
                for (app, _) in of_source {
                    let concern = Concern::App(app.as_str().into());
                    people.set_keys(app, keys.clone());
                    // Who came in by a key that is gone.
                    if is_other {
                        control.judge_again(&concern);
                    }
                }
                good.insert(source.clone(), keys);
            }
            Err(error) => {
                let apps = people.key_sources().iter().filter(|(_, other)| *other == source).count();
                tracing::warn!(apps, %error, "keys for apps' tokens can't be fetched; those they have stay");
            }
        }
        people.key_desk().done(&source, fetched, control.now().mono_ms);
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Set(String),
}

async fn keys(source: &KeySource, fetcher: &Fetcher) -> Result<KeySet, KeysError> {
    let document = match source {
        KeySource::Url(url) => fetcher.get(&Target::parse(url)?).await?,
        KeySource::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(Path::new(&*path))).await;
            read.map_err(std::io::Error::other).flatten()?
        }
        KeySource::Document(text) => text.as_bytes().to_vec(),
        KeySource::None => Vec::new(),
    };
    let text = std::str::from_utf8(&document).map_err(|_| KeysError::Set("it is no text".to_owned()))?;
    KeySet::parse(text).map_err(|error| KeysError::Set(error.to_string()))
}

/// A regular file, one byte beyond what a set may have at the most.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut document = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}
