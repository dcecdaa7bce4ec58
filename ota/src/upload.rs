//! An upload that can be broken and resumed: how far it is, until when it may go on, and the digests of what has come.
//!
//! The shell asks [`Upload::accept`] before it writes, and tells [`Upload::written`] what has been written. After a restart it makes an [`Upload`] anew and
//! tells it what the file holds, by the same function.

use crate::firmware::{BYTES_MAX, Digester, Whole};

/// Seconds without a byte after which an upload is given up.
pub const IDLE_S: u64 = 24 * 3600;

/// Why bytes aren't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UploadError {
    /// It begins behind what has come.
    #[error("bytes from {have} on are missing; go on from there")]
    Gap {
        /// How far the upload is.
        have: u64,
    },
    /// It begins before the end of what has come.
    #[error("the first {have} bytes are here already; go on from there")]
    Overlap {
        /// How far the upload is.
        have: u64,
    },
    /// More than was declared, or than a firmware has.
    #[error("a firmware of {size} bytes can't have these; nothing of them is taken")]
    Beyond {
        /// What was declared, or [`BYTES_MAX`].
        size: u64,
    },
    /// Nothing came for [`IDLE_S`].
    #[error("the upload has expired; begin a new one")]
    Expired,
    /// It has been finished.
    #[error("the upload is finished")]
    Finished,
    /// It can't be finished yet.
    #[error("{have} of {size} bytes are here; go on from there")]
    Incomplete {
        /// How far the upload is.
        have: u64,
        /// What was declared.
        size: u64,
    },
    /// A firmware has at least one byte.
    #[error("nothing has been uploaded")]
    Empty,
}

/// The state of an upload.
#[derive(Clone, Debug)]
pub struct Upload {
    declared: Option<u64>,
    digester: Option<Digester>,
    have: u64,
    expires_at_s: u64,
}

impl Upload {
    /// One that nothing has come of. `declared` is the size, if it is known.
    #[must_use]
    pub fn new(declared: Option<u64>, now_s: u64) -> Self {
        Self { declared, digester: Some(Digester::default()), have: 0, expires_at_s: now_s.saturating_add(IDLE_S) }
    }

    /// How far it is: the offset at which to go on.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.have
    }

    /// The declared size.
    #[must_use]
    pub fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// Seconds since 1970 UTC from which on it is given up.
    #[must_use]
    pub fn expires_at_s(&self) -> u64 {
        self.expires_at_s
    }

    /// Whether so many bytes from an offset on are the ones to come next. Nothing is changed.
    ///
    /// # Errors
    /// [`UploadError`], with how far it is.
    pub fn accept(&self, offset: u64, length: u64, now_s: u64) -> Result<(), UploadError> {
        self.live(now_s)?;
        let have = self.have;
        match offset.cmp(&have) {
            std::cmp::Ordering::Greater => return Err(UploadError::Gap { have }),
            std::cmp::Ordering::Less => return Err(UploadError::Overlap { have }),
            std::cmp::Ordering::Equal => {}
        }
        let size = self.declared.map_or(BYTES_MAX, |size| size.min(BYTES_MAX));
        if have.checked_add(length).is_none_or(|end| end > size) { Err(UploadError::Beyond { size }) } else { Ok(()) }
    }

    /// The next bytes are in the file.
    ///
    /// # Errors
    /// [`UploadError::Finished`], [`UploadError::Expired`], [`UploadError::Beyond`]: as [`Self::accept`] has said already, if it was asked.
    pub fn written(&mut self, bytes: &[u8], now_s: u64) -> Result<(), UploadError> {
        self.accept(self.have, bytes.len() as u64, now_s)?;
        if let Some(digester) = &mut self.digester {
            digester.update(bytes);
            self.have = digester.bytes();
            self.expires_at_s = now_s.saturating_add(IDLE_S);
        }
        Ok(())
    }

    /// All has come. Whether it is what it should be, the catalog says.
    ///
    /// # Errors
    /// [`UploadError::Incomplete`], [`UploadError::Empty`], [`UploadError::Finished`], [`UploadError::Expired`].
    pub fn finish(&mut self, now_s: u64) -> Result<Whole, UploadError> {
        self.live(now_s)?;
        let have = self.have;
        if let Some(size) = self.declared.filter(|size| have < *size) {
            return Err(UploadError::Incomplete { have, size });
        }
        if have == 0 {
            return Err(UploadError::Empty);
        }
        self.digester.take().map(Digester::finish).ok_or(UploadError::Finished)
    }

    fn live(&self, now_s: u64) -> Result<(), UploadError> {
        match self.digester {
            None => Err(UploadError::Finished),
            Some(_) if now_s >= self.expires_at_s => Err(UploadError::Expired),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_fault_says_where_to_go_on() {
        let mut upload = Upload::new(Some(10), 0);
        assert_eq!(upload.finish(1), Err(UploadError::Incomplete { have: 0, size: 10 }));
        assert_eq!(upload.accept(0, 11, 1), Err(UploadError::Beyond { size: 10 }));
        assert_eq!(upload.accept(1, 1, 1), Err(UploadError::Gap { have: 0 }));
        assert_eq!(upload.written(b"12345", 1), Ok(()));
        assert_eq!(upload.accept(0, 5, 1), Err(UploadError::Overlap { have: 5 }));
        assert_eq!(upload.accept(6, 1, 1), Err(UploadError::Gap { have: 5 }));
        assert_eq!(upload.accept(5, u64::MAX, 1), Err(UploadError::Beyond { size: 10 }));
        assert_eq!(upload.written(b"678901", 1), Err(UploadError::Beyond { size: 10 }));
        assert_eq!(upload.written(b"67890", 1), Ok(()));
        assert_eq!(upload.finish(1).map(|whole| whole.bytes), Ok(10));
        assert_eq!(upload.finish(1), Err(UploadError::Finished));
        assert_eq!(upload.accept(10, 0, 1), Err(UploadError::Finished));
        assert_eq!(Upload::new(None, 0).finish(1), Err(UploadError::Empty));
        assert_eq!(Upload::new(None, 0).accept(0, BYTES_MAX + 1, 1), Err(UploadError::Beyond { size: BYTES_MAX }));
    }

    #[test]
    fn it_expires_a_day_after_the_last_byte() {
        let mut upload = Upload::new(None, 0);
        assert_eq!(upload.written(b"1", IDLE_S - 1), Ok(()));
        assert_eq!(upload.accept(1, 1, 2 * IDLE_S - 2), Ok(()));
        assert_eq!(upload.accept(1, 1, 2 * IDLE_S - 1), Err(UploadError::Expired));
        assert_eq!(upload.finish(2 * IDLE_S - 1), Err(UploadError::Expired));
    }

    proptest! {
        #[test]
        fn however_it_is_broken_the_digests_are_the_files(
            file in proptest::collection::vec(any::<u8>(), 1..300),
            tries in proptest::collection::vec((any::<u16>(), 1..80_usize), 0..40),
        ) {
            let mut upload = Upload::new(Some(file.len() as u64), 0);
            for (at, length) in tries {
                let at = usize::from(at) % (file.len() + 1);
                let part = &file[at..file.len().min(at + length)];
                let is_next = at as u64 == upload.have();
                prop_assert_eq!(upload.accept(at as u64, part.len() as u64, 1).is_ok(), is_next);
                if is_next {
                    prop_assert!(upload.written(part, 1).is_ok());
                }
            }
            let rest = usize::try_from(upload.have()).expect("small");
            prop_assert!(upload.written(&file[rest..], 1).is_ok());
            let mut digester = Digester::default();
            digester.update(&file);
            prop_assert_eq!(upload.finish(1), Ok(digester.finish()));
        }
    }
}
