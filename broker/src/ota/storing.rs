//! Brings finished uploads to the bucket, and removes objects of firmware that is gone: as often as it takes, across restarts.
//!
//! ```text
//! finish ─▶ {number}.storing ─▶ bring, read back ─▶ catalog: ready ─▶ {number}.part and .storing go
//!                 ▲   └─ the bucket can't be reached, denies, …: again, after a pause that doubles
//!                 └───── a start finds it
//! delete ─▶ {number}.gone ─▶ catalog: deleted ─▶ the object goes ─▶ {number}.gone goes
//! ```
//!
//! **Invariant:** a firmware is ready only when its file has been read back out of the bucket with its size and digests, and the folder's file goes only after
//! the catalog says so on disk. So whatever ends the broker at whatever moment, the next start finds the file in the folder or in the bucket.
//!
//! **Invariant:** the note `{number}.gone` is on disk before the catalog forgets what the object is called.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, watch};
use turnpike_authz::audit::{Action, Event, Key, Outcome, Subject, Value};
use turnpike_ota::catalog::CatalogError;
use turnpike_ota::firmware::{State as Held, Whole};
use turnpike_ota::ids::FirmwareId;
use turnpike_ota::signature::Detached;

use super::OtaDesk;
use super::files::{FileError, Writing};
use super::shelf::{Remote, ShelfError, name};
use crate::audit::now_ms;

/// Pauses between tries.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// Files that are brought to the bucket at once; each holds a part of a few megabytes in memory.
const AT_ONCE: usize = 2;

/// How far a file is on its way to the bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is being brought there.
    Bringing,
    /// It couldn't be, and will be tried again.
    Waiting(ShelfError),
    /// It is there and its firmware ready, or nobody wants it any more: the catalog tells.
    Over,
}

/// Files on their way.
#[derive(Debug)]
pub(super) struct Storings {
    files: Mutex<HashMap<FirmwareId, Arc<Storing>>>,
    places: Semaphore,
}

impl Default for Storings {
    fn default() -> Self {
        Self { files: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }
}

impl Storings {
    pub(super) fn len(&self) -> usize {
        self.files.lock().len()
    }

    fn get(&self, id: FirmwareId) -> Option<Arc<Storing>> {
        self.files.lock().get(&id).cloned()
    }
}

#[derive(Debug)]
struct Storing {
    note: Note,
    stage: watch::Sender<Stage>,
    /// Somebody wants it tried at once.
    wake: Notify,
    /// Its firmware is deleted.
    gone: watch::Sender<bool>,
}

/// What a start needs to know to go on: the note's content, in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// Of the file when it was accepted, in hexadecimal.
    sha256: String,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    /// Fingerprint of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Note {
    fn new(whole: &Whole, detached: Option<&Detached>) -> Self {
        Self {
            sha256: hex::encode(whole.digests.sha256),
            signature: detached.map(|detached| STANDARD.encode(&detached.signature)),
            key: detached.and_then(|detached| detached.key.as_ref().map(ToString::to_string)),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let note: Self = serde_json::from_str(text).ok()?;
        note.digest()?;
        note.detached()?;
        Some(note)
    }

    fn digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut digest).ok().map(|()| digest)
    }

    /// None where it can't be read; within it none where there is no signature.
    fn detached(&self) -> Option<Option<Detached>> {
        let Some(signature) = &self.signature else { return Some(None) };
        let signature = STANDARD.decode(signature).ok()?.into();
        let key = self.key.as_deref().map(str::parse).transpose().ok()?;
        Some(Some(Detached { signature, key }))
    }
}

fn storing_file(folder: &Path, id: FirmwareId) -> PathBuf {
    folder.join(format!("{id}.storing"))
}

fn gone_file(folder: &Path, id: FirmwareId) -> PathBuf {
    folder.join(format!("{id}.gone"))
}

/// Writes a note: it is there whole, and on disk, or not at all.
fn write_note(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("note");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remove_note(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "a note of a firmware can't be removed");
        }
        _ => {}
    }
}

/// Waits until a flag is set, or nobody can set it any more.
async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|is_set| *is_set).await;
}

/// Does something until it is done.
async fn again_and_again<F>(mut attempt: impl FnMut() -> F, what: &'static str)
where
    F: Future<Output = Result<(), ShelfError>>,
{
    let mut pause = PAUSE_FIRST;
    while let Err(error) = attempt().await {
        tracing::warn!(%error, again_s = pause.as_secs(), "{what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

impl OtaDesk {
    /// Whether files go to a bucket.
    #[must_use]
    pub fn has_bucket(&self) -> bool {
        self.remote.is_some()
    }

    /// How far a firmware's file is on its way to the bucket; none: it isn't on its way.
    #[must_use]
    pub fn stage(&self, id: FirmwareId) -> Option<Stage> {
        Some(self.storings.get(id)?.stage.borrow().clone())
    }

    /// Takes a file that has been verified, to bring it to the bucket; once this returns, that will be done. The caller holds [`OtaDesk::changing`].
    ///
    /// # Errors
    /// The folder's; nothing is taken then.
    pub fn begin_storing(
        self: &Arc<Self>,
        (writing, whole): (Writing, Whole),
        id: FirmwareId,
        detached: Option<&Detached>,
    ) -> Result<(), FileError> {
        let note = Note::new(&whole, detached);
        let text = serde_json::to_string(&note).map_err(io::Error::other)?;
        write_note(&storing_file(&self.folder, id), &text)?;
        self.set_out(id, note, Some((writing, whole)));
        Ok(())
    }

    /// Waits until a file is in the bucket or couldn't be brought there, for a time. One that waits to be tried again is tried at once.
    pub async fn stored(&self, id: FirmwareId, time: Duration) -> Stage {
        let Some(storing) = self.storings.get(id) else { return Stage::Over };
        let mut stages = storing.stage.subscribe();
        let ended = async {
            if matches!(*stages.borrow_and_update(), Stage::Waiting(_)) {
                storing.wake.notify_one();
                // It says so when it tries.
                let _ = stages.changed().await;
            }
            let _ = stages.wait_for(|stage| *stage != Stage::Bringing).await;
        };
        let _ = tokio::time::timeout(time, ended).await;
        storing.stage.borrow().clone()
    }

    fn set_out(self: &Arc<Self>, id: FirmwareId, note: Note, held: Option<(Writing, Whole)>) {
        let (Some(remote), Some(runtime)) = (&self.remote, self.storer.get()) else { return };
        let (stage, gone) = (watch::Sender::new(Stage::Bringing), watch::Sender::new(false));
        let storing = Arc::new(Storing { note, stage, wake: Notify::new(), gone });
        self.storings.files.lock().insert(id, Arc::clone(&storing));
        let (desk, remote) = (Arc::clone(self), Arc::clone(remote));
        runtime.spawn(async move {
            desk.store(id, &storing, held, &remote).await;
            desk.storings.files.lock().remove(&id);
            storing.stage.send_replace(Stage::Over);
        });
    }

    async fn store(
        self: &Arc<Self>,
        id: FirmwareId,
        storing: &Storing,
        mut held: Option<(Writing, Whole)>,
        remote: &Remote,
    ) {
        let mut pause = PAUSE_FIRST;
        let mut gone = storing.gone.subscribe();
        loop {
            let outcome = tokio::select! {
                biased;
                () = is_set(&mut gone) => return,
                outcome = self.try_store(id, storing, &mut held, remote) => outcome,
            };
            let Err(error) = outcome else { return };
            tracing::warn!(firmware = %id, %error, again_s = pause.as_secs(), "a firmware can't be brought to the bucket");
            storing.stage.send_replace(Stage::Waiting(error));
            tokio::select! {
                () = is_set(&mut gone) => return,
                () = storing.wake.notified() => pause = PAUSE_FIRST,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MOST),
            }
            storing.stage.send_replace(Stage::Bringing);
        }
    }

    async fn try_store(
        self: &Arc<Self>,
        id: FirmwareId,
        storing: &Storing,
        held: &mut Option<(Writing, Whole)>,
        remote: &Remote,
    ) -> Result<(), ShelfError> {
        let _place = self.storings.places.acquire().await.map_err(|_| ShelfError::Failed("it is closed".to_owned()))?;
        remote.clear().await?;
        let (writing, whole) = match held {
            Some(held) => held,
            None => {
                let now_s = now_ms() / 1000;
                let read = async { self.open_spool(id, now_s).await?.finish(now_s).await };
                match read.await {
                    Ok(read) => held.insert(read),
                    // It was deleted before the start.
                    Err(FileError::NotUploading) => return Ok(()),
                    Err(error) => return Err(ShelfError::File(error.to_string())),
                }
            }
        };
        let is_the_same = Some(whole.digests.sha256) == storing.note.digest();
        if is_the_same {
            let file = Arc::new(writing.file()?);
            remote.bring(&name(id, &whole.digests.sha256), &file, whole).await?;
        }
        self.make_ready(id, storing, (&*whole, is_the_same)).await
    }

    /// The catalog follows; what the product demands may have changed on the way.
    async fn make_ready(
        self: &Arc<Self>,
        id: FirmwareId,
        storing: &Storing,
        (whole, is_the_same): (&Whole, bool),
    ) -> Result<(), ShelfError> {
        let _changing = self.changing.lock().await;
        let (product, planned) = {
            let state = self.state.lock();
            let Some(firmware) = state.catalog.get(id) else { return Ok(()) };
            let detached = storing.note.detached().flatten();
            let planned = match is_the_same {
                true => state.catalog.plan_finish(id, whole, detached.as_ref()),
                // What lies in the folder isn't what was accepted.
                false => Err(CatalogError::WrongSha256),
            };
            (firmware.product.clone(), planned)
        };
        let (change, outcome) = match planned {
            Ok(change) => (change, Outcome::Ok),
            Err(CatalogError::NoSuchFirmware | CatalogError::NotUploading) => return Ok(()),
            Err(error) => {
                tracing::warn!(firmware = %id, %error, "a firmware is refused after it was brought to the bucket");
                self.mark_gone(id)?;
                let refused = self.state.lock().catalog.plan_refuse(id, &error.to_string());
                let Ok(refused) = refused else { return Ok(()) };
                (refused, Outcome::Failed("refused"))
            }
        };
        let committed = self.commit_catalog(std::slice::from_ref(&change)).await;
        committed.map_err(|_| ShelfError::File("the store doesn't take changes at the moment".to_owned()))?;
        self.state.lock().catalog.apply(change);
        let details = [(Key::Firmware, Value::Number(id.0))];
        let target = Some(Subject::product(&product));
        let event = Event { target, outcome, ..Event::own(now_ms(), Action::FirmwareFinish, &details) };
        self.shell().audit.record(&event);
        self.discard_part(id);
        remove_note(&storing_file(&self.folder, id));
        if outcome != Outcome::Ok {
            self.remove_object(id);
        }
        Ok(())
    }

    /// Writes down that a firmware's object is to go, if it may have one. Before the catalog forgets it.
    ///
    /// # Errors
    /// The folder's.
    pub fn mark_gone(&self, id: FirmwareId) -> io::Result<()> {
        if self.remote.is_none() {
            return Ok(());
        }
        let known = match self.state.lock().catalog.get(id).map(|firmware| &firmware.state) {
            Some(Held::Ready(contents) | Held::Withdrawn(contents)) => Some(contents.whole.digests.sha256),
            Some(Held::Uploading(_)) => self.storings.get(id).and_then(|storing| storing.note.digest()),
            Some(Held::Refused { .. }) | None => None,
        };
        known.map_or(Ok(()), |sha256| write_note(&gone_file(&self.folder, id), &name(id, &sha256)))
    }

    /// Its firmware is gone: nobody brings it to the bucket any more, and what is there of it goes.
    pub(super) fn give_up(self: &Arc<Self>, id: FirmwareId) {
        if let Some(storing) = self.storings.get(id) {
            storing.gone.send_replace(true);
        }
        remove_note(&storing_file(&self.folder, id));
        self.remove_object(id);
    }

    /// Removes the object that the note `.gone` speaks of, and then the note.
    fn remove_object(self: &Arc<Self>, id: FirmwareId) {
        let path = gone_file(&self.folder, id);
        let (Some(remote), Some(runtime)) = (&self.remote, self.storer.get()) else { return };
        let Ok(object) = std::fs::read_to_string(&path) else { return };
        let (desk, remote) = (Arc::clone(self), Arc::clone(remote));
        runtime.spawn(async move {
            if let Some(storing) = desk.storings.get(id).filter(|storing| *storing.gone.borrow()) {
                // What it is at it gives up first.
                let _ = storing.stage.subscribe().wait_for(|stage| *stage == Stage::Over).await;
            }
            again_and_again(|| remote.remove(&object), "an object can't be removed from the bucket").await;
            remove_note(&path);
        });
    }

    /// What a start does with a note.
    pub(super) fn take_up(self: &Arc<Self>, id: FirmwareId, path: &Path, ending: &str) {
        let (is_there, is_uploading) = {
            let state = self.state.lock();
            let found = state.catalog.get(id).map(|firmware| &firmware.state);
            let is_there = !matches!(found, None | Some(Held::Refused { .. }));
            (is_there, matches!(found, Some(Held::Uploading(_))))
        };
        match ending {
            // What was to be deleted and wasn't.
            "gone" if is_there => remove_note(path),
            "gone" => self.remove_object(id),
            // Without a bucket its upload is as far as all of it, and is finished by whoever began it.
            _ if self.remote.is_none() || !is_uploading => remove_note(path),
            _ => match std::fs::read_to_string(path).ok().as_deref().and_then(Note::read) {
                Some(note) => self.set_out(id, note, None),
                None => remove_note(path),
            },
        }
    }

    /// Removes what an earlier process left half brought, as soon as the bucket can be reached.
    pub(super) async fn clear_bucket(self: Arc<Self>) {
        if let Some(remote) = &self.remote {
            again_and_again(|| remote.clear(), "unfinished uploads to the bucket can't be looked for").await;
        }
    }
}

#[cfg(test)]
mod tests {
    use turnpike_ota::firmware::Digester;

    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_nothing_else_is() {
        let mut digester = Digester::default();
        digester.update(b"file");
        let whole = digester.finish();
        let key = "ab".repeat(32).parse().expect("a fingerprint");
        for detached in [
            None,
            Some(Detached { signature: [1, 2, 3].into(), key: None }),
            Some(Detached { signature: [1, 2, 3].into(), key: Some(key) }),
        ] {
            let note = Note::new(&whole, detached.as_ref());
            let text = serde_json::to_string(&note).expect("JSON");
            let read = Note::read(&text).expect("a note");
            assert_eq!((read.digest(), read.detached()), (Some(whole.digests.sha256), Some(detached)));
            for end in 0..text.len() {
                assert_eq!(Note::read(&text[..end]), None);
            }
        }
        let digest = hex::encode(whole.digests.sha256);
        for wrong in [
            r#"{"sha256": "00"}"#.to_owned(),
            format!(r#"{{"sha256": "{digest}", "signature": "?"}}"#),
            format!(r#"{{"sha256": "{digest}", "signature": "AAAA", "key": "x"}}"#),
            format!(r#"{{"sha256": "{digest}", "other": 1}}"#),
        ] {
            assert_eq!(Note::read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_note_is_written_whole_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = gone_file(folder.path(), FirmwareId(7));
        for text in ["a longer text", "short"] {
            write_note(&path, text).expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
        let names: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().collect();
        assert_eq!(names.len(), 1);
    }
}
