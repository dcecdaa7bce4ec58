//! Allow-lists: taken up as a stream of rows, and swept away with their package.

use std::collections::HashSet;

use super::book::{Book, Change, LISTED_MAX, PackageId};
use super::identifier::{Identifier, IdentifierError, Kind};
use crate::import::{BATCH, Faults};
use crate::names::ProductKey;

/// What is wrong with a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowError {
    /// Its identifier.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// The product has it on the list of another package.
    #[error("the identifier is on the list of another package")]
    OtherPackage,
    /// The package is gone, maybe meanwhile.
    #[error("there is no such package")]
    NoSuchPackage,
    /// [`LISTED_MAX`].
    #[error("the lists are full")]
    Full,
}

/// What became of the rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// New on the list.
    pub listed: u64,
    /// Were on it.
    pub kept: u64,
    /// Rows that were not taken.
    pub refused: Faults<RowError>,
}

/// An upload that is under way, used as [`crate::import::Import`] is.
#[derive(Debug)]
pub struct ListImport {
    product: ProductKey,
    package: PackageId,
    batch: Vec<(u64, Identifier)>,
    report: Report,
}

impl ListImport {
    /// Begins an upload to the list of a package.
    #[must_use]
    pub fn new(product: ProductKey, package: PackageId) -> Self {
        Self { product, package, batch: Vec::with_capacity(BATCH), report: Report::default() }
    }

    /// Takes a row: the number of its line, what it is and the text.
    ///
    /// # Errors
    /// What is wrong with it; it is in the report too.
    pub fn row(&mut self, line: u64, kind: Kind, text: &str) -> Result<(), RowError> {
        match Identifier::parse(kind, text) {
            Ok(identifier) => self.batch.push((line, identifier)),
            Err(error) => {
                self.report.refused.add(line, error.into());
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Whether it is time for [`Self::take`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.len() >= BATCH
    }

    /// The changes so far, to be committed and applied before the next row. The caller holds the lock of the control plane from before this call
    /// until it has applied them.
    #[must_use]
    pub fn take(&mut self, book: &Book) -> Vec<Change> {
        let rows = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let mut room = LISTED_MAX.saturating_sub(book.listed_count());
        let has_package = book.package(self.product.as_str(), self.package).is_some();
        let mut in_batch = HashSet::<Identifier, foldhash::fast::RandomState>::default();
        let mut changes = Vec::new();
        for (line, identifier) in rows {
            let known = book.listed(self.product.as_str(), &identifier);
            let is_other = known.as_ref().is_some_and(|listed| listed.package != self.package);
            if !has_package {
                self.report.refused.add(line, RowError::NoSuchPackage);
            } else if is_other {
                self.report.refused.add(line, RowError::OtherPackage);
            } else if known.is_some() || in_batch.contains(&identifier) {
                self.report.kept += 1;
            } else if room == 0 {
                self.report.refused.add(line, RowError::Full);
            } else {
                room -= 1;
                self.report.listed += 1;
                in_batch.insert(identifier.clone());
                changes.push(Change::List(self.product.clone(), identifier, self.package, None));
            }
        }
        changes
    }

    /// What became of the rows that were taken.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// Removes what a deleted package has left, in bounded steps. It can begin anew after a crash ([`Book::swept_packages`]).
#[derive(Debug)]
pub struct Sweep {
    product: ProductKey,
    package: PackageId,
    /// Of the list: kinds to be gone through yet, the last first, and the identifier that was seen last.
    kinds: Vec<Kind>,
    after: Option<Identifier>,
}

impl Sweep {
    /// Begins.
    #[must_use]
    pub fn new(product: ProductKey, package: PackageId) -> Self {
        Self { product, package, kinds: Kind::ALL.to_vec(), after: None }
    }

    /// The next step, which looks at up to `limit` records: to be committed and applied before the one after. None when all is done.
    #[must_use]
    pub fn step(&mut self, book: &Book, limit: usize) -> Option<Vec<Change>> {
        let keys = book.used_keys(self.product.as_str(), self.package, None, limit);
        if !keys.is_empty() {
            let release = |(index, _)| Change::ReleaseKey(self.product.clone(), self.package, index);
            return Some(keys.into_iter().map(release).collect());
        }
        let kind = *self.kinds.last()?;
        let page = book.list_of(self.product.as_str(), kind, self.after.as_ref(), limit);
        self.after = page.last().map(|(identifier, _)| identifier.clone());
        if self.after.is_none() {
            self.kinds.pop();
        }
        let own = page.into_iter().filter(|(_, listed)| listed.package == self.package);
        Some(own.map(|(identifier, _)| Change::Unlist(self.product.clone(), identifier)).collect())
    }
}
