//! Who may do what.

use std::net::IpAddr;

use super::*;
use crate::people::plan::{AppRequest, ServiceRequest};
use crate::people::services::Grant;
use crate::people::tests::{NOW_S, World, app_id, device, product, user};
use crate::people::{Change, TenantId, UserIdentity};
use turnpike_core::gate::ServiceIdentity;

const FAR_S: u32 = 1_800_000_000;

/// Owner `o`, `c` with control, `v` with view, `x` a stranger, of `p/d`; the app `b` with the owner of `p/e`.
fn world() -> World {
    let mut world = World::new();
    let d = device("p", "d");
    world.bind(&d, &user("a", "o"));
    world.share(&d, &user("a", "c"), Role::Control, Some(FAR_S));
    world.share(&d, &user("a", "v"), Role::View, None);
    world.put_app("b", AppRequest::default());
    world.put_user("b", "o");
    world.bind(&device("p", "e"), &user("b", "o"));
    world
}

/// Reads, controls, and has in its feed what `p/d` publishes.
fn rights(people: &People, app: &str, name: &str) -> (bool, bool, bool) {
    let identity = UserIdentity { app: app.into(), user: name.into(), by: None };
    let read = people.user_may_subscribe(&identity, "dev/p/d/up/#");
    assert_eq!(people.user_may_subscribe(&identity, "dev/p/d/down/x"), read, "up and down are read alike");
    let mut feed = false;
    people.feed("p", "d", "dev/p/d/up/x", |of, user| feed |= (of, user) == (app, name));
    // What came to the feed while that held is handed out while it does.
    let own = format!("user/{app}:{name}/dev/p/d/up/x");
    assert_eq!(people.user_may_receive(&identity, &own), feed);
    assert!(!people.user_may_receive(&identity, "user/a:other/dev/p/d/up/x"));
    (read, people.user_may_publish(&identity, "dev/p/d/down/x"), feed)
}

fn service_rights(people: &People, key: &str, product: &str) -> (bool, bool) {
    let identity = ServiceIdentity { key: key.into() };
    let read = people.service_may_subscribe(&identity, &format!("dev/{product}/+/up/#"));
    (read, people.service_may_publish(&identity, &format!("dev/{product}/d/down/x")))
}

#[test]
fn users_read_control_and_are_fed_by_their_role() {
    const ALL: (bool, bool, bool) = (true, true, true);
    const NONE: (bool, bool, bool) = (false, false, false);
    let mut world = world();
    let table = |world: &World, expected: [(&str, &str, (bool, bool, bool)); 5]| {
        for (app, name, may) in expected {
            assert_eq!(rights(&world.people, app, name), may, "{app}:{name}");
        }
    };
    let view = (true, false, true);
    let all = [("a", "o", ALL), ("a", "c", ALL), ("a", "v", view), ("a", "x", NONE), ("b", "o", NONE)];
    table(&world, all);
    assert!(rights(&world.people, "none", "o") == NONE && rights(&world.people, "a", "nobody") == NONE);

    // An expired share, whether the store knows or not.
    let _ = world.people.advance(u64::from(FAR_S), 1);
    table(&world, [("a", "o", ALL), ("a", "c", NONE), ("a", "v", view), ("a", "x", NONE), ("b", "o", NONE)]);
    // A frozen user, and one who is back.
    for (frozen, may) in [(true, NONE), (false, view)] {
        let change = world.people.plan_freeze_user(&user("a", "v"), frozen);
        world.run(change.expect("there"));
        assert_eq!(rights(&world.people, "a", "v"), may);
        let identity = UserIdentity { app: "a".into(), user: "v".into(), by: None };
        assert_eq!(world.people.is_user_welcome(&identity), !frozen);
        assert_eq!(world.people.user_may_subscribe(&identity, "user/a:v/#"), !frozen);
    }
    // An app that is cut off, and one that isn't for the product any more.
    world.put_app("a", AppRequest { enabled: Some(false), ..AppRequest::default() });
    table(&world, [("a", "o", NONE), ("a", "c", NONE), ("a", "v", NONE), ("a", "x", NONE), ("b", "o", NONE)]);
    let of_b = UserIdentity { app: "b".into(), user: "o".into(), by: None };
    assert!(world.people.is_user_welcome(&of_b) && world.people.user_may_publish(&of_b, "dev/p/e/down/x"));
    let only = crate::people::apps::Products::Only([product("q")].into());
    world.put_app("a", AppRequest { enabled: Some(true), products: Some(only), ..AppRequest::default() });
    assert_eq!(rights(&world.people, "a", "o"), NONE);
    assert!(world.people.is_user_welcome(&UserIdentity { app: "a".into(), user: "o".into(), by: None }));
}

#[test]
fn a_user_has_no_other_topics() {
    let world = world();
    let identity = UserIdentity { app: "a".into(), user: "o".into(), by: None };
    for (filter, may) in [
        ("dev/p/d/up/#", true),
        ("dev/p/d/up", true),
        ("dev/p/d/down/#", true),
        ("dev/p/d/up/+/x", true),
        ("user/a:o/#", true),
        ("user/a:o", true),
        ("user/a:o/dev/+/+/up/#", true),
        ("user/a:c/#", false),
        ("user/a:oo/#", false),
        ("user/b:o/#", false),
        ("user/+/#", false),
        ("user/#", false),
        ("user/o/#", false),
        ("dev/p/d/#", false),
        ("dev/p/d/+/x", false),
        ("dev/p/d", false),
        ("dev/p/d/sys/#", false),
        ("dev/p/d/ota/#", false),
        ("dev/p/+/up/#", false),
        ("dev/+/d/up/#", false),
        ("dev/p/#", false),
        ("dev/#", false),
        ("dev", false),
        ("dev/p/e/up/#", false),
        ("dev/q/d/up/#", false),
        ("/sys/p/d/#", false),
        ("/p/d/user/#", false),
        ("$SYS/#", false),
        ("#", false),
        ("+", false),
        ("+/p/d/up/x", false),
    ] {
        assert_eq!(world.people.user_may_subscribe(&identity, filter), may, "{filter}");
    }
    for (topic, may) in [
        ("dev/p/d/down/x", true),
        ("dev/p/d/down/x/y", true),
        ("dev/p/d/down/", false),
        ("dev/p/d/down", false),
        ("dev/p/d/up/x", false),
        ("dev/p/d/sys/x", false),
        ("dev/p/e/down/x", false),
        ("user/a:o/x", false),
        ("dev/p/d", false),
        ("/p/d/user/x", false),
    ] {
        assert_eq!(world.people.user_may_publish(&identity, topic), may, "{topic}");
    }
}

#[test]
fn services_have_what_they_are_granted_within_their_tenant() {
    let mut world = world();
    let grant = |product_key: Option<&str>, rights: &[Right]| Grant {
        product: product_key.map(product),
        rights: rights.iter().copied().collect(),
    };
    let request = |grants| ServiceRequest { grants: Some(grants), ..ServiceRequest::default() };
    world.put_service("reads-p", request(vec![grant(Some("p"), &[Right::ReadUp])]));
    world.put_service("all", request(vec![grant(None, &[Right::ReadUp, Right::WriteDown])]));
    world.put_service("nothing", request(vec![]));
    let tenant = TenantId::parse("t").expect("a name");
    let of_t = ServiceRequest { tenant: Some(tenant.clone()), ..request(vec![grant(None, &Right::ALL)]) };
    world.put_service("of-t", of_t);
    let both = |world: &World, key| (service_rights(&world.people, key, "p"), service_rights(&world.people, key, "q"));
    const NONE: (bool, bool) = (false, false);
    assert_eq!(both(&world, "reads-p"), ((true, false), NONE));
    assert_eq!(both(&world, "all"), ((true, true), (true, true)));
    for key in ["nothing", "of-t", "unknown"] {
        assert_eq!(both(&world, key), (NONE, NONE), "{key}");
    }
    // A product that moves to another tenant takes its devices out of sight.
    let change = world.people.plan_set_tenant(&world.registry, &product("q"), tenant);
    world.run(change.expect("nothing of it is bound"));
    assert_eq!(both(&world, "all"), ((true, true), NONE));
    assert_eq!(both(&world, "of-t"), (NONE, (true, true)));
    world.put_service("all", ServiceRequest { enabled: Some(false), ..ServiceRequest::default() });
    assert_eq!(both(&world, "all"), (NONE, NONE));
    assert!(!world.people.is_service_welcome(&ServiceIdentity { key: "all".into() }, None));
}

#[test]
fn a_service_is_welcome_from_its_networks() {
    let mut world = world();
    let networks = Some(vec!["10.0.0.0/8".parse().expect("a network")]);
    world.put_service("s", ServiceRequest { networks, ..ServiceRequest::default() });
    let identity = ServiceIdentity { key: "s".into() };
    let welcome = |from: [u8; 4]| world.people.is_service_welcome(&identity, Some(IpAddr::from(from)));
    assert!(welcome([10, 1, 1, 1]) && !welcome([11, 1, 1, 1]));
    assert!(world.people.is_service_welcome(&identity, None), "a session without a connection comes from nowhere");
}

#[test]
fn a_service_names_the_product() {
    let mut world = world();
    let grants = Some(vec![Grant { product: None, rights: Rights::from_iter(Right::ALL) }]);
    world.put_service("all", ServiceRequest { grants, ..ServiceRequest::default() });
    let grants = Some(vec![Grant { product: Some(product("p")), rights: Right::ReadUp.into() }]);
    world.put_service("up", ServiceRequest { grants, ..ServiceRequest::default() });
    let (all, up) = (ServiceIdentity { key: "all".into() }, ServiceIdentity { key: "up".into() });
    for (filter, of_all, of_up) in [
        ("dev/p/+/up/#", true, true),
        ("dev/p/d/up", true, true),
        ("dev/p/d/down/#", true, false),
        ("dev/p/+/sys/#", true, false),
        ("dev/p/+/+/x", true, false),
        ("dev/p/+/#", true, false),
        ("dev/p/#", true, false),
        ("dev/p", true, false),
        ("dev/p/d/other/#", false, false),
        ("dev/+/+/up/#", false, false),
        ("dev/+/#", false, false),
        ("dev/#", false, false),
        ("#", false, false),
        ("+/p/d/up/x", false, false),
        ("user/a:o/#", false, false),
        ("/sys/p/+/#", true, false),
        ("/sys/+/d/#", false, false),
        ("/sys/#", false, false),
        ("/p/+/user/#", true, false),
        ("/p/#", false, false),
        ("/+/d/user/#", false, false),
        ("/#", false, false),
    ] {
        assert_eq!(world.people.service_may_subscribe(&all, filter), of_all, "{filter}");
        assert_eq!(world.people.service_may_subscribe(&up, filter), of_up, "{filter}");
    }
    for (topic, may) in [
        ("dev/p/d/down/x", true),
        ("dev/p/d/down/", false),
        ("dev/p/d/up/x", false),
        ("dev/p/d/sys/x", false),
        ("dev/p/d", false),
        ("/sys/p/d/thing/x", true),
        ("/sys/p/d/", false),
        ("/p/d/user/x", true),
        ("user/a:o/x", false),
    ] {
        assert_eq!(world.people.service_may_publish(&all, topic), may, "{topic}");
        assert!(!world.people.service_may_publish(&up, topic));
    }
}

#[test]
fn only_what_goes_up_is_fed() {
    let world = world();
    let fed = |topic: &str| {
        let mut users = Vec::new();
        world.people.feed("p", "d", topic, |app, user| users.push(format!("{app}:{user}")));
        users.sort();
        users
    };
    assert_eq!(fed("dev/p/d/up/x"), ["a:c", "a:o", "a:v"]);
    for topic in ["dev/p/d/sys/x", "dev/p/d/up", "/sys/p/d/x", "dev/p/e/up/x", "dev/p/dd/up/x"] {
        assert!(fed(topic).is_empty(), "{topic}");
    }
    assert!(world.people.has_feed("p", "d") && !world.people.has_feed("q", "d"));
}

#[test]
fn a_change_concerns_whom_it_may_cut_off() {
    use turnpike_core::concern::Concern;
    let world = world();
    let people = &world.people;
    let d = device("p", "d");
    let change = people.plan_unbind(&d, &user("a", "v")).expect("bound");
    assert_eq!(change[0].concerns(), [Concern::user("a", "v"), Concern::device("p", "d")]);
    let app = Change::DeleteApp(app_id("a"));
    let covers = |concerns: Vec<Concern>, app: &str| {
        let principal = turnpike_core::gate::Principal::User(std::sync::Arc::new(UserIdentity {
            app: app.into(),
            user: "o".into(),
            by: None,
        }));
        concerns.iter().any(|concern| concern.covers(&principal))
    };
    assert!(covers(app.concerns(), "a") && !covers(app.concerns(), "b"));
    assert_eq!(people.advance(NOW_S, 10), []);
}
