//! Changes that are committed together, and what is to be said of them.

use turnpike_authz::audit::Described;
use turnpike_authz::plan::Change;
use turnpike_authz::presale;
use turnpike_core::durable::Op;

/// Changes of the registry and of packages and lists: one commit, and none of it is visible before.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) registry: Vec<Change>,
    pub(super) book: Vec<presale::Change>,
}

impl Batch {
    pub(super) fn of_registry(registry: Vec<Change>) -> Self {
        Self { registry, book: Vec::new() }
    }

    pub(super) fn of_book(book: Vec<presale::Change>) -> Self {
        Self { registry: Vec::new(), book }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.registry.is_empty() && self.book.is_empty()
    }

    pub(super) fn ops(&self) -> Vec<Op> {
        self.registry.iter().map(Change::op).chain(self.book.iter().map(presale::Change::op)).collect()
    }
}

impl super::Api {
    /// What the audit is told of a batch: all of it, for what changes packages and lists an operator has asked for.
    pub(super) fn describe(&self, batch: &Batch) -> Vec<Described> {
        let mut described = turnpike_authz::audit::describe(self.gate.registry(), &batch.registry);
        described.extend(Described::of_book(&self.registrar.book(), &batch.book));
        described
    }
}
