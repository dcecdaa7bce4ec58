//! The data folder is the broker's alone: messages of devices are in it, in clear.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Mode;

/// What group and others may do with a folder or file.
const OTHERS: u32 = 0o077;
/// Set on a folder in which everybody has files, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// Whatever this process makes from now on, libraries included, nobody else may read.
pub(super) fn keep_to_ourselves() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// Makes the data folder, or closes the one that is there to others: so are the files in it that an earlier version left readable.
///
/// # Errors
/// It isn't there, and can't be made; or it can't be looked at.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = std::fs::metadata(folder)?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let (data, found_mode) = (folder.display(), format!("{mode:04o}"));
    // What is shared on purpose isn't ours to close.
    if mode & STICKY != 0 {
        tracing::warn!(%data, mode = %found_mode, "others share the data folder; give the broker one of its own, with mode 0700");
        return Ok(());
    }
    match std::fs::set_permissions(folder, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => {
            tracing::warn!(%data, mode = %found_mode, "others could read the data folder; it is closed to them now");
        }
        // A volume that belongs to somebody else, and that works all the same.
        Err(error) => {
            tracing::warn!(%data, mode = %found_mode, %error, "others can read the data folder, and it can't be closed to them");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(folder: &Path) -> u32 {
        std::fs::metadata(folder).expect("there").mode() & 0o7777
    }

    #[test]
    fn a_folder_that_is_made_and_one_that_was_open_are_closed() {
        let parent = tempfile::tempdir().expect("a folder");
        let data = parent.path().join("a/b");
        prepare(&data).expect("made");
        assert_eq!(mode(&data), 0o700);
        std::fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("ours");
        prepare(&data).expect("closed");
        assert_eq!(mode(&data), 0o700);
    }

    #[test]
    fn a_folder_that_is_shared_on_purpose_stays_so() {
        let parent = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o1777)).expect("ours");
        prepare(parent.path()).expect("left alone");
        assert_eq!(mode(parent.path()), 0o1777);
    }
}
