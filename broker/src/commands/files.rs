//! Files of logs: `{number}.part` while one is written, `{number}.log` when it is whole and on disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use turnpike_ota::logs::shelf::LogId;

/// Where logs are.
#[derive(Clone, Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    /// Makes the folder.
    pub(super) fn prepare(folder: PathBuf) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    fn whole(&self, id: LogId) -> PathBuf {
        self.0.join(format!("{id}.log"))
    }

    /// Writes a log, so that all of it is there after a crash, or nothing.
    pub(super) fn write(&self, id: LogId, bytes: &[u8]) -> io::Result<()> {
        let part = self.0.join(format!("{id}.part"));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&part, self.whole(id))?;
            File::open(&self.0)?.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        written
    }

    pub(super) fn read(&self, id: LogId) -> io::Result<Vec<u8>> {
        std::fs::read(self.whole(id))
    }

    pub(super) fn remove(&self, id: LogId) {
        match std::fs::remove_file(self.whole(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(log = id.0, %error, "the file of a log can't be removed; the next start tries again");
            }
            _ => {}
        }
    }

    /// Removes files that no record has: what a crash has left between a file and its record. Gives the logs that have one.
    pub(super) fn sweep(&self, is_known: impl Fn(LogId) -> bool) -> io::Result<Vec<LogId>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((number, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            let Ok(number) = number.parse().map(LogId) else { continue };
            match ending {
                "log" if is_known(number) => found.push(number),
                "log" | "part" => std::fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_and_what_nobody_knows_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::prepare(folder.path().join("logs")).expect("made");
        files.write(LogId(1), b"one").expect("written");
        files.write(LogId(2), b"two").expect("written");
        std::fs::write(files.folder().join("3.part"), "three").expect("written");
        std::fs::write(files.folder().join("notes.txt"), "mine").expect("written");
        assert_eq!(files.read(LogId(1)).expect("there"), b"one");
        assert_eq!(files.sweep(|id| id == LogId(2)).expect("swept"), [LogId(2)]);
        assert!(files.read(LogId(1)).is_err());
        let mut left: Vec<_> =
            std::fs::read_dir(files.folder()).expect("there").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["2.log", "notes.txt"]);
        files.remove(LogId(2));
        files.remove(LogId(2));
        assert!(files.read(LogId(2)).is_err());
    }
}
