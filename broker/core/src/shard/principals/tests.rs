//! The index against a plain list.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::gate::DeviceIdentity;
use crate::ids::ClientId;
use crate::session::Session;

fn who(n: u8) -> Principal {
    match n {
        0 => Principal::Anonymous,
        n => Principal::Device(Arc::new(DeviceIdentity::new(if n < 3 { "p" } else { "q" }, n.to_string()))),
    }
}

fn sorted(mut slots: Vec<u32>) -> Vec<u32> {
    slots.sort_unstable();
    slots
}

proptest! {
    #[test]
    fn a_principals_sessions_are_found(steps in prop::collection::vec((0..6_u8, any::<prop::sample::Index>()), 0..200)) {
        let (mut sessions, mut index, mut plain) = (Sessions::new(), Principals::default(), Vec::<(u32, Principal)>::new());
        for (number, (step, which)) in steps.into_iter().enumerate() {
            if step == 5 && !plain.is_empty() {
                let (slot, _) = plain.swap_remove(which.index(plain.len()));
                index.remove(slot, &mut sessions);
                prop_assert!(sessions.remove(slot).is_some());
            } else {
                let session = Session::new(ClientId::new(&number.to_string()), who(step % 5));
                let slot = sessions.insert(session);
                index.insert(slot, &mut sessions);
                plain.push((slot, who(step % 5)));
            }
            let of = |concern: &Concern| {
                let slots = plain.iter().filter(|(_, principal)| concern.covers(principal)).map(|(slot, _)| *slot);
                sorted(slots.collect())
            };
            let products = ["p", "q"].map(|product| Concern::Product(product.into()));
            for concern in (1..5).map(|n| Concern::Principal(who(n))).chain(products) {
                prop_assert_eq!(sorted(index.concerned(&concern, &sessions)), of(&concern));
            }
        }
        prop_assert!(index.first.len() < 5);
    }
}
