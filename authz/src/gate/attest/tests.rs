use std::sync::Arc;

use turnpike_core::clock::Now;
use turnpike_core::gate::Gate;
use turnpike_mqtt::{ConnectReason, UserProperties};

use super::*;
use crate::attest::{Expectation, MacAddress};
use crate::guard::{self, Attestation, Guard, SecurityEvent};
use crate::guarded::{Guarded, claimed_by_user_name};
use crate::names::{DeviceName, ProductKey};
use crate::plan::{Change, DeviceRequest, Making};
use crate::product::ProductPolicy;
use crate::quota::{self, Quotas};
use crate::registry::Registry;
use crate::secret::{MasterKey, Secret};

const NOW: Now = Now { mono_ms: 5, unix_ms: 1_700_000_000_000 };
const MAC: [u8; 6] = [1; 6];

fn key() -> MasterKey {
    MasterKey::new([7; 32])
}

fn product() -> ProductKey {
    ProductKey::parse("lamp").expect("a name")
}

/// A gate with the devices `one`, of which something is expected, and `two`.
fn new_gate(policy: ProductPolicy) -> Gatekeeper {
    let registry = Arc::new(Registry::new());
    registry.apply(registry.plan_put_product(&product(), None, 1).expect("new").0);
    for device in ["one", "two"] {
        let device = DeviceName::parse(device).expect("a name");
        let making = Making { key: &key(), random: [1; 28], now_s: 1 };
        let made = registry.plan_put_device(&product(), &device, DeviceRequest::default(), &making);
        registry.apply(made.expect("a product").change);
    }
    let one = DeviceName::parse("one").expect("a name");
    let factor = Secret::new(b"a factor").expect("long enough");
    let expected = Expectation::new(("lamp", "one"), MacAddress::new(MAC), None, &factor, (&key(), [1; 12]));
    registry.apply(registry.plan_set_expectation(&product(), &one, Some(expected)).expect("a device"));
    registry.apply(Change::SetPolicy(product(), policy));
    Gatekeeper::new(registry, key(), 1000)
}

fn right() -> String {
    format!("lamp/one?firmware=1.2.3&attestation={}", Attestation::of(b"a factor", "1.2.3", MAC))
}

fn attest(gate: &impl Gate, device: &str, user_name: &str) -> Attested {
    let identity = DeviceIdentity::new("lamp", device);
    let principal = Principal::Device(Arc::new(identity));
    let address = [192, 0, 2, 1].into();
    let stated =
        Stated { principal: &principal, user_name: Some(user_name), properties: UserProperties::default(), address };
    gate.attest(&stated, NOW)
}

#[test]
fn what_is_wrong_is_told_and_kept_out_where_the_product_demands_a_statement() {
    const WRONG: &str = "lamp/one?firmware=1.2.3&attestation=00";
    let fine = Attested::default();
    let wrong = Attested { wrong: true, refused: None };
    let gate = new_gate(ProductPolicy::default());
    for (device, user_name, expected) in
        [("one", &*right(), fine), ("one", "lamp/one", fine), ("one", WRONG, wrong), ("two", WRONG, fine)]
    {
        assert_eq!(attest(&gate, device, user_name), expected, "{user_name}");
    }
    let gate = new_gate(ProductPolicy { require_attestation: true, ..ProductPolicy::default() });
    let refused = |wrong, cause| Attested { wrong, refused: Some((ConnectReason::NotAuthorized, cause)) };
    for (device, user_name, expected) in [
        ("one", &*right(), fine),
        ("one", "lamp/one", refused(false, "attestation_missing")),
        ("one", WRONG, refused(true, "attestation_mismatch")),
        ("two", WRONG, refused(false, "attestation_missing")),
    ] {
        assert_eq!(attest(&gate, device, user_name), expected, "{user_name}");
    }
    let counted = |refusal| gate.refusals().find(|(known, _)| *known == refusal).map(|(_, count)| count);
    assert_eq!(counted(Refusal::AttestationMissing), Some(2));
    assert_eq!(counted(Refusal::AttestationMismatch), Some(1));
}

#[test]
fn the_guard_hears_of_it_and_refuses_the_identity_where_clones_are_refused() {
    let events = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let guard = Arc::new(Guard::new(guard::Settings::default(), guard::Sizes::default()));
    let quotas = Arc::new(Quotas::new(quota::Settings::default(), quota::Sizes::default()));
    let tell = Box::new(move |event: SecurityEvent| heard.lock().push(event));
    let gate = Arc::new(new_gate(ProductPolicy::default()));
    let guarded = Guarded::new(gate, quotas, Arc::clone(&guard), claimed_by_user_name, tell);
    let wrong = "lamp/one?firmware=1.2.3&attestation=00";
    assert_eq!(attest(&guarded, "one", wrong), Attested { wrong: true, refused: None });
    guard.refuse_clones("lamp", Some(true));
    let refused = Some((ConnectReason::Banned, "attestation_mismatch"));
    assert_eq!(attest(&guarded, "one", wrong), Attested { wrong: true, refused });
    assert_eq!(attest(&guarded, "one", &right()), Attested::default());
    assert_eq!(guard.counts().attestation_mismatches, 2);
    let refusals: Vec<bool> = events
        .lock()
        .iter()
        .map(|event| match event {
            SecurityEvent::AttestationMismatch { identity, refused_ms, .. } => {
                assert_eq!(&*identity.name, "one");
                refused_ms.is_some()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(refusals, [false, true]);
    let who = guard::Who { product: "lamp", name: "one" };
    assert!(guard.suspicion(who, NOW).is_err() && guard.pardon(who, NOW));
}

#[test]
fn what_is_expected_goes_with_the_device_and_with_the_product() {
    let gate = new_gate(ProductPolicy::default());
    let (registry, one) = (gate.registry(), DeviceName::parse("one").expect("a name"));
    let changes = registry.plan_delete_device(&product(), &one).expect("a device");
    assert!(matches!(&changes[..], [Change::SetExpectation(_, _, None), Change::DeleteDevice(..)]));
    registry.apply(registry.plan_delete_product(&product()).expect("a product"));
    assert_eq!(registry.expectation("lamp", "one"), None);
    let swept = registry.plan_sweep(&product(), 100);
    assert!(swept.iter().any(|change| matches!(change, Change::SetExpectation(_, name, None) if *name == one)));
    swept.into_iter().for_each(|change| registry.apply(change));
    assert!(registry.swept_products().is_empty());
}
