use turnpike_core::gate::Gate;
use turnpike_mqtt::ConnectReason;

use super::*;
use crate::callout::{BreakerTerms, Outcome, Settings};
use crate::credential;
use crate::names::{DeviceName, ProductKey};
use crate::people::Change as PeopleChange;
use crate::people::apps::{App, Products, TokenRules};
use crate::people::ids::{AppId, TenantId};
use crate::plan::{Change, DeviceRequest, Making};
use crate::product::ProductPolicy;
use crate::profile::ProfileSet;
use crate::registry::Registry;
use crate::secret::{MasterKey, Sealed, Secret};

const NOW: Now = Now { mono_ms: 5, unix_ms: 1_700_000_000_000 };

/// Devices whose user name is `own:{product}:{device}` and whose password is `open`; of any other user name the password says what it says.
#[derive(Debug)]
struct Own(VerifierName);

impl Verifier for Own {
    fn name(&self) -> &VerifierName {
        &self.0
    }

    fn judge(&self, attempt: &Attempt<'_>, _: Now) -> Opinion {
        let user_name = attempt.user_name.unwrap_or_default();
        let said = user_name.strip_prefix("own:").and_then(|rest| rest.split_once(':'));
        let named = said.or_else(|| user_name.split_once('/'));
        match (attempt.password, named) {
            (Some(b"open"), Some((product, device))) => Opinion::Granted(grant(product, device)),
            (Some(b"shut"), Some(_)) => Opinion::Refused,
            _ => Opinion::NotMine,
        }
    }
}

fn grant(product: &str, device: &str) -> Grant {
    Grant::new(ProductKey::parse(product).expect("a name"), DeviceName::parse(device).expect("a name"))
}

fn secret() -> Secret {
    Secret::new(b"a secret of the test").expect("long enough")
}

fn name(text: &str) -> VerifierName {
    VerifierName::parse(text).expect("a name")
}

/// Device `d` of the products `own`, which names the verifier `own`; `far`, which names the call-out; `lost`, which names one
/// that isn't there; and `plain`.
fn new_gate(strangers: bool) -> Gatekeeper {
    let key = MasterKey::new([7; 32]);
    let registry = Arc::new(Registry::new());
    for (product, verifier) in
        [("own", Some(name("own"))), ("far", Some(VerifierName::callout())), ("lost", Some(name("x"))), ("plain", None)]
    {
        let product = ProductKey::parse(product).expect("a name");
        registry.apply(registry.plan_put_product(&product, None, 1).expect("new").0);
        for (device, enabled) in [("d", true), ("off", false)] {
            let device = DeviceName::parse(device).expect("a name");
            let request = DeviceRequest { secret: Some(secret()), enabled: Some(enabled) };
            let making = Making { key: &key, random: [1; 28], now_s: 1 };
            registry.apply(registry.plan_put_device(&product, &device, request, &making).expect("a product").change);
        }
        registry.apply(registry.plan_set_verifier(&product, verifier).expect("a product"));
    }
    let breaker = BreakerTerms { failures: 1, open_ms: 100, open_most_ms: 100, probe_ms: 100 };
    let settings = Settings {
        calls_max: 1,
        waiting_max: 0,
        breaker,
        cache_ms: 0,
        cache_most_ms: 1000,
        cache_entries_max: 10,
        strangers,
    };
    let gate = Gatekeeper::new(registry, key, 1000).judged_by(Box::new(Own(name("own"))));
    gate.calling_out(Arc::new(Callout::new(settings, [1; 32])))
}

fn attempt<'a>(user_name: &'a str, password: &'a str) -> Attempt<'a> {
    Attempt {
        client_id: "c",
        user_name: Some(user_name),
        password: Some(password.as_bytes()),
        peer: ([127, 0, 0, 1], 1).into(),
        tls: false,
        certificate: None,
        enhanced: None,
    }
}

/// What was said: whose device, or why not.
fn said(verdict: Verdict) -> Result<String, &'static str> {
    match verdict {
        Verdict::Granted(Admission { principal: Principal::Device(identity), .. }) => {
            Ok(format!("{}/{}", identity.product, identity.device))
        }
        Verdict::Refused(_, cause) => Err(cause),
        other => panic!("{other:?}"),
    }
}

fn judge(gate: &Gatekeeper, attempt: &Attempt<'_>) -> Result<String, &'static str> {
    said(gate.authenticate(attempt, NOW, [9; 32]))
}

/// The call that is to be made.
#[track_caller]
fn call(gate: &Gatekeeper, attempt: &Attempt<'_>) -> Call {
    match gate.authenticate(attempt, NOW, [9; 32]) {
        Verdict::Pending(question) => question.into_inner::<Asked>().expect("a call").0,
        other => panic!("{other:?}"),
    }
}

/// Asks, has that answered, and concludes.
#[track_caller]
fn called(gate: &Gatekeeper, attempt: &Attempt<'_>, outcome: Outcome) -> Result<String, &'static str> {
    let call = call(gate, attempt);
    let (answer, _) = gate.callout().expect("one").settle(&call, outcome, NOW);
    said(gate.conclude(attempt, Answer::new(answer), NOW))
}

fn answered(opinion: Opinion) -> Outcome {
    Outcome::Answered { opinion, cache_ms: None }
}

fn native(product: &str) -> credential::Credentials {
    credential::native(product, "d", &secret(), "c", NOW.unix_ms, "nonce")
}

#[test]
fn a_product_s_verifier_judges_its_devices_and_passes_on_what_is_not_its() {
    let gate = new_gate(false);
    assert_eq!(judge(&gate, &attempt("own/d", "open")), Ok("own/d".to_owned()));
    assert_eq!(judge(&gate, &attempt("d&own", "x")), Err("malformed"), "not its, and nobody else's");
    assert_eq!(judge(&gate, &attempt("own/d", "shut")), Err("verifier_refused"));
    assert_eq!(judge(&gate, &attempt("own/x", "open")), Err("unknown_device"));
    assert_eq!(judge(&gate, &attempt("own/off", "open")), Err("disabled"));
    assert_eq!(judge(&gate, &attempt("plain/d", "open")), Err("malformed"), "of a product that doesn't name it");
    assert_eq!(judge(&gate, &attempt("lost/d", "open")), Err("verifier_missing"));
    for (product, expected) in [("own", Ok("own/d".to_owned())), ("plain", Ok("plain/d".to_owned()))] {
        let made = native(product);
        assert_eq!(judge(&gate, &attempt(&made.user_name, &made.password)), expected, "by its secret");
    }
}

#[test]
fn strangers_are_shown_around() {
    let gate = new_gate(false);
    assert_eq!(judge(&gate, &attempt("own:own:d", "open")), Ok("own/d".to_owned()));
    assert_eq!(judge(&gate, &attempt("own:far:d", "open")), Err("unknown_product"), "it names another");
    assert_eq!(judge(&gate, &attempt("somebody", "x")), Err("malformed"));
    let gate = new_gate(true);
    assert_eq!(called(&gate, &attempt("somebody", "x"), answered(Opinion::NotMine)), Err("malformed"));
    let far = answered(Opinion::Granted(grant("far", "d")));
    assert_eq!(called(&gate, &attempt("somebody", "x"), far), Ok("far/d".to_owned()));
    let own = answered(Opinion::Granted(grant("own", "d")));
    assert_eq!(called(&gate, &attempt("somebody", "x"), own), Err("unknown_product"), "not the call-out's");
}

#[test]
fn right_credentials_do_not_lead_around_the_verifier() {
    let gate = new_gate(false);
    // A name that two products have, one of them with a verifier; and a format that names no product.
    let registry = gate.registry();
    let product = ProductKey::parse("own").expect("a name");
    let profiles = [Profile::GizwitsLegacy, Profile::Native];
    registry.apply(registry.plan_allow_profiles(&product, profiles.into_iter().collect()).expect("a product"));
    let made = credential::gizwits_legacy("d", &secret());
    let attempt = Attempt { client_id: &made.client_id, ..attempt(&made.user_name, &made.password) };
    assert_eq!(judge(&gate, &attempt), Err("profile_not_allowed"));
    registry.apply(registry.plan_set_verifier(&product, None).expect("a product"));
    assert_eq!(judge(&gate, &attempt), Ok("own/d".to_owned()));
}

#[test]
fn enhanced_authentication_is_none_of_a_verifier_s() {
    let gate = new_gate(false);
    let enhanced =
        |user_name| Attempt { password: None, enhanced: Some((crate::gate::METHOD, b"")), ..attempt(user_name, "") };
    for product in ["own/d", "far/d"] {
        assert_eq!(judge(&gate, &enhanced(product)), Err("bad_method"));
    }
    assert!(matches!(gate.authenticate(&enhanced("plain/d"), NOW, [9; 32]), Verdict::Challenge { .. }));
}

#[test]
fn the_call_out_is_asked_and_its_word_is_held_against_the_registry() {
    let gate = new_gate(false);
    let d = attempt("far/d", "secret");
    let asked = call(&gate, &d);
    assert_eq!((asked.product.as_deref(), asked.user_name.as_deref()), (Some("far"), Some("far/d")));
    assert_eq!(asked.password.as_ref().map(|password| password.as_slice()), Some(&b"secret"[..]));
    drop(asked);
    for (opinion, expected) in [
        (Opinion::Granted(grant("far", "d")), Ok("far/d".to_owned())),
        (Opinion::Granted(grant("far", "x")), Err("unknown_device")),
        (Opinion::Granted(grant("far", "off")), Err("disabled")),
        (Opinion::Granted(grant("own", "d")), Err("unknown_product")),
        (Opinion::Granted(grant("plain", "d")), Err("unknown_product")),
        (Opinion::Refused, Err("verifier_refused")),
        (Opinion::NotMine, Err("malformed")),
    ] {
        assert_eq!(called(&gate, &d, answered(opinion.clone())), expected, "{opinion:?}");
    }
    let made = native("far");
    let by_secret = attempt(&made.user_name, &made.password);
    assert_eq!(called(&gate, &by_secret, answered(Opinion::NotMine)), Ok("far/d".to_owned()), "by its secret");
}

#[test]
fn what_a_product_demands_besides_holds_whoever_judges() {
    let gate = new_gate(false);
    let registry = gate.registry();
    let policy = ProductPolicy { require_tls: true, ..ProductPolicy::default() };
    registry.apply(Change::SetPolicy(ProductKey::parse("far").expect("a name"), policy));
    let (plain, tls) = (attempt("far/d", "x"), Attempt { tls: true, ..attempt("far/d", "x") });
    let granted = || answered(Opinion::Granted(grant("far", "d")));
    assert_eq!(called(&gate, &plain, granted()), Err("tls_required"));
    assert_eq!(called(&gate, &tls, granted()), Ok("far/d".to_owned()));
}

#[test]
fn a_grant_ends_when_it_says() {
    let gate = new_gate(false);
    let d = attempt("far/d", "x");
    let call = call(&gate, &d);
    let opinion = Opinion::Granted(Grant { until_ms: Some(NOW.unix_ms + 7), ..grant("far", "d") });
    let (answer, _) = gate.callout().expect("one").settle(&call, answered(opinion), NOW);
    let Verdict::Granted(admission) = gate.conclude(&d, Answer::new(answer), NOW) else { panic!("granted") };
    assert_eq!(admission.until_ms, Some(NOW.unix_ms + 7));
}

#[test]
fn nobody_gets_in_when_nobody_answers() {
    for (outcome, cause) in [
        (Outcome::Failed, "callout_failed"),
        (Outcome::TimedOut, "callout_timed_out"),
        (Outcome::Garbage, "callout_garbage"),
        (Outcome::NotMade, "callout_busy"),
    ] {
        let gate = new_gate(false);
        let opens = outcome != Outcome::NotMade;
        assert_eq!(called(&gate, &attempt("far/d", "x"), outcome), Err(cause));
        if opens {
            assert_eq!(judge(&gate, &attempt("far/d", "x")), Err("callout_broken"));
        }
    }
    let gate = new_gate(false);
    let held = call(&gate, &attempt("far/d", "x"));
    assert_eq!(judge(&gate, &attempt("far/d", "x")), Err("callout_busy"));
    drop(held);
    let nonsense = gate.conclude(&attempt("far/d", "x"), Answer::new(()), NOW);
    assert!(matches!(nonsense, Verdict::Refused(ConnectReason::ServerUnavailable, "callout_failed")));
    let refused: u64 =
        gate.refusals().filter(|(refusal, _)| refusal.label().starts_with("callout_")).map(|(_, n)| n).sum();
    assert_eq!(refused, 2);
}

#[test]
fn a_product_that_is_deleted_takes_its_verifier_with_it() {
    let gate = new_gate(false);
    let registry = gate.registry();
    let product = ProductKey::parse("far").expect("a name");
    registry.apply(registry.plan_delete_product(&product).expect("a product"));
    assert_eq!(registry.verifier("far"), None);
    assert_eq!(judge(&gate, &attempt("far/d", "x")), Err("malformed"), "nobody is asked");
    let swept = registry.plan_sweep(&product, 100);
    assert!(swept.contains(&Change::SetVerifier(product.clone(), None)));
    swept.into_iter().for_each(|change| registry.apply(change));
    assert!(registry.swept_products().is_empty() && registry.has_verifiers());
    for product in ["own", "lost"] {
        registry.apply(Change::SetVerifier(ProductKey::parse(product).expect("a name"), None));
    }
    assert!(!registry.has_verifiers());
}

#[test]
fn who_came_in_by_a_verifier_s_word_stays_as_long_as_it_is_that_verifier_s_to_say() {
    let gate = new_gate(false);
    let Verdict::Granted(Admission { principal, .. }) = gate.authenticate(&attempt("own/d", "open"), NOW, [9; 32])
    else {
        panic!("it comes in");
    };
    let (registry, product) = (gate.registry(), ProductKey::parse("own").expect("a name"));
    // Formats of log-ins are the broker's affair alone.
    registry.apply(registry.plan_allow_profiles(&product, ProfileSet::from_iter([])).expect("a product"));
    for (verifier, stays) in [(Some("own"), true), (Some("x"), false), (None, false), (Some("own"), true)] {
        registry.apply(registry.plan_set_verifier(&product, verifier.map(name)).expect("a product"));
        assert_eq!(gate.still_welcome(&principal), stays, "{verifier:?}");
    }
    let demands = ProductPolicy { require_certificate: true, ..ProductPolicy::default() };
    registry.apply(registry.plan_set_policy(&product, demands).expect("a product"));
    assert!(!gate.still_welcome(&principal), "what the product demands besides holds for it too");
}

#[test]
fn users_of_an_application_are_no_verifier_s_even_if_a_product_goes_by_its_name() {
    let gate = new_gate(true);
    let people = Arc::clone(gate.people());
    let code = attempt("far/somebody", "c1;code");
    drop(call(&gate, &code));
    let app = App {
        tenant: TenantId::parse("t").expect("a name"),
        secret: Sealed::none(),
        enabled: true,
        created_at_s: 1,
        products: Products::All,
        tokens: TokenRules::default(),
        users_max: 1,
    };
    people.apply(PeopleChange::PutApp(AppId::parse("far").expect("a name"), app));
    assert_ne!(judge(&gate, &code), Err("callout_busy"));
    assert_eq!(judge(&gate, &attempt("$svc/nobody", "x")).map_err(|cause| cause.starts_with("callout")), Err(false));
}
