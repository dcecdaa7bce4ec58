//! Changes that are committed together, and what is to be said of them.

use turnpike_authz::audit::Described;
use turnpike_authz::people::bindings::DeviceKey;
use turnpike_authz::plan::Change;
use turnpike_authz::presale;
use turnpike_core::durable::Op;

use crate::edit::{Edit, Told};

/// Changes of the registry, of people, and of packages and lists: one commit, and none of it is visible before.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) edits: Vec<Edit>,
    pub(super) book: Vec<presale::Change>,
}

impl Batch {
    pub(super) fn of_book(book: Vec<presale::Change>) -> Self {
        Self { edits: Vec::new(), book }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.book.is_empty()
    }

    pub(super) fn ops(&self) -> Vec<Op> {
        self.edits.iter().map(Edit::op).chain(self.book.iter().map(presale::Change::op)).collect()
    }
}

impl super::Api {
    /// What the audit is told of a batch: all of it, for what changes packages and lists an operator has asked for.
    pub(super) fn describe(&self, batch: &Batch) -> Vec<Told> {
        let mut told = Told::of(&self.gate, &batch.edits);
        told.extend(Described::of_book(&self.registrar.book(), &batch.book).into_iter().map(Told::Registry));
        told
    }

    /// Changes of the registry, and before the end of a device, that nobody is bound to it any more.
    pub(super) fn unbinding(&self, changes: Vec<Change>) -> Vec<Edit> {
        let mut edits = Vec::with_capacity(changes.len());
        for change in changes {
            if let Change::DeleteDevice(product, device) = &change {
                let device = DeviceKey { product: product.clone(), device: device.clone() };
                let people = self.gate.people();
                let gone = people.plan_forget_device(&device).into_iter().chain(people.plan_use_up(&device));
                edits.extend(gone.map(Edit::from));
            }
            edits.push(change.into());
        }
        edits
    }
}
