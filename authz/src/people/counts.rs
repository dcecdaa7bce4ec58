//! Changes of bindings, counted for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::bindings::{Bindings, Role};
use super::change::Change;

/// Since the start.
#[derive(Debug, Default)]
pub(super) struct BindingCounts {
    bound: AtomicU64,
    shared: AtomicU64,
    changed: AtomicU64,
    ended: AtomicU64,
}

impl BindingCounts {
    /// Counts a change that is about to be applied.
    pub(super) fn count(&self, bindings: &Bindings, change: &Change) {
        let counter = match change {
            Change::Bind(device, user, _) if bindings.binding(device, user).is_some() => &self.changed,
            Change::Bind(_, _, binding) if binding.role == Role::Owner => &self.bound,
            Change::Bind(..) => &self.shared,
            Change::Unbind(..) => &self.ended,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn all(&self) -> [(&'static str, u64); 4] {
        [("bound", &self.bound), ("shared", &self.shared), ("changed", &self.changed), ("ended", &self.ended)]
            .map(|(change, count)| (change, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::tests::{World, device, user};

    #[test]
    fn changes_count_by_what_they_were_and_loading_does_not() {
        let mut world = World::new();
        let (d, o, c) = (device("p", "d"), user("a", "o"), user("a", "c"));
        world.bind(&d, &o);
        world.share(&d, &c, Role::View, None);
        world.share(&d, &c, Role::Control, None);
        let ended = world.people.plan_unbind(&d, &o).expect("bound");
        world.run_all(ended);
        let counts = |people: &crate::people::People| people.binding_changes().map(|(_, count)| count);
        assert_eq!(counts(&world.people), [1, 1, 1, 2]);
        world.bind(&d, &o);
        assert_eq!(counts(&world.reloaded()), [0; 4]);
    }
}
