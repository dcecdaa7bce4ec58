//! Changes as the control plane makes them, and what is left of them after a restart.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use turnpike_core::durable::Op;

use super::apps::Products;
use super::bindings::{DeviceKey, Role};
use super::ids::UserKey;
use super::plan::{AppRequest, PlanError, ServiceRequest, Share};
use super::services::{Grant, Right};
use super::*;
use crate::names::{DeviceName, ProductKey};
use crate::plan::{DeviceRequest, Making};
use crate::registry::Registry;
use crate::secret::MasterKey;

pub(crate) const NOW_S: u64 = 1_700_000_000;

pub(crate) fn product(key: &str) -> ProductKey {
    ProductKey::parse(key).expect("a name")
}

pub(crate) fn device(product_key: &str, name: &str) -> DeviceKey {
    DeviceKey { product: product(product_key), device: DeviceName::parse(name).expect("a name") }
}

pub(crate) fn user(app: &str, user: &str) -> UserKey {
    UserKey::parse(app, user).expect("names")
}

pub(crate) fn app_id(id: &str) -> AppId {
    AppId::parse(id).expect("a name")
}

pub(crate) fn access_key(key: &str) -> AccessKey {
    AccessKey::parse(key).expect("a name")
}

pub(crate) fn key() -> MasterKey {
    MasterKey::new([7; 32])
}

pub(crate) fn making(key: &MasterKey) -> Making<'_> {
    Making { key, random: [3; 28], now_s: NOW_S }
}

/// Registry, people and store, as the control plane keeps them in step.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) people: Arc<People>,
    store: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl World {
    /// Products `p` and `q` with the devices `d` and `e`, the app `a` with the users `o`, `c`, `v`, `x`.
    pub(crate) fn new() -> Self {
        let mut world = Self::default();
        for key in ["p", "q"] {
            let plan = world.registry.plan_put_product(&product(key), None, NOW_S);
            world.registry.apply(plan.expect("new").0);
            for name in ["d", "e"] {
                let name = DeviceName::parse(name).expect("a name");
                let made = world.registry.plan_put_device(
                    &product(key),
                    &name,
                    DeviceRequest::default(),
                    &making(&self::key()),
                );
                world.registry.apply(made.expect("a product").change);
            }
        }
        world.people.bindings.advance(NOW_S);
        world.put_app("a", AppRequest::default());
        for name in ["o", "c", "v", "x"] {
            world.put_user("a", name);
        }
        world
    }

    pub(crate) fn run(&mut self, change: Change) {
        self.commit(&change);
        self.people.apply(change);
    }

    pub(crate) fn commit(&mut self, change: &Change) {
        match change.op() {
            Op::RegistryPut(key, value) => drop(self.store.insert(key, value)),
            Op::RegistryDelete(key) => drop(self.store.remove(&key)),
            other => panic!("{other:?} is none of the registry's"),
        }
    }

    pub(crate) fn run_all(&mut self, changes: Vec<Change>) {
        changes.into_iter().for_each(|change| self.run(change));
    }

    pub(crate) fn put_app(&mut self, id: &str, request: AppRequest) {
        let made = self.people.plan_put_app(&app_id(id), request, &making(&key())).expect("a plan");
        self.run(made.change);
    }

    pub(crate) fn put_user(&mut self, app: &str, name: &str) {
        let plan = self.people.plan_put_user(&user(app, name), NOW_S).expect("an app");
        self.run(plan.0);
    }

    pub(crate) fn put_service(&mut self, name: &str, request: ServiceRequest) {
        let made = self.people.plan_put_service(&access_key(name), request, &making(&key())).expect("a plan");
        self.run(made.change);
    }

    pub(crate) fn bind(&mut self, device: &DeviceKey, user: &UserKey) {
        let plan = self.people.plan_bind(&self.registry, device, user, false);
        self.run(plan.expect("a device and a user"));
    }

    pub(crate) fn share(&mut self, device: &DeviceKey, with: &UserKey, role: Role, expires_at_s: Option<u32>) {
        let share = Share { with, role, expires_at_s };
        let plan = self.people.plan_share(&self.registry, device, None, &share, NOW_S);
        self.run(plan.expect("an owner and a user"));
    }

    /// As after a restart.
    pub(crate) fn reloaded(&self) -> People {
        let people = People::new();
        people.bindings.advance(self.people.bindings.now_s());
        // Backwards: in any order.
        for (key, value) in self.store.iter().rev() {
            assert!(People::is_record(key));
            people.load(key, value).expect("a record");
        }
        people
    }
}

fn roles(people: &People, device: &DeviceKey) -> Vec<(String, Role)> {
    let mut users = people.bindings().users_of(device);
    users.sort_by(|a, b| a.0.cmp(&b.0));
    users.into_iter().map(|(user, binding)| (user.to_string(), binding.role)).collect()
}

#[test]
fn a_device_has_one_owner_who_shares_it_and_passes_it_on() {
    let mut world = World::new();
    let (d, [o, c, v, x]) = (device("p", "d"), ["o", "c", "v", "x"].map(|name| user("a", name)));
    world.bind(&d, &o);
    let people = Arc::clone(&world.people);
    assert_eq!(people.plan_bind(&world.registry, &d, &c, true), Err(PlanError::OwnedByAnother));
    world.share(&d, &c, Role::Control, None);
    world.share(&d, &v, Role::View, Some(u32::MAX));
    assert_eq!(
        roles(&people, &d),
        [("a:c".to_owned(), Role::Control), ("a:o".to_owned(), Role::Owner), ("a:v".to_owned(), Role::View)]
    );
    let nobody = user("a", "nobody");
    let share = |by, with, role, expires_at_s| {
        let share = Share { with, role, expires_at_s };
        people.plan_share(&world.registry, &d, by, &share, NOW_S).map(drop)
    };
    assert_eq!(share(Some(&c), &x, Role::View, None), Err(PlanError::NotOwner));
    assert_eq!(share(Some(&o), &o, Role::View, None), Err(PlanError::IsOwner));
    assert_eq!(share(Some(&o), &x, Role::Owner, None), Err(PlanError::OwnerShared));
    assert_eq!(share(Some(&o), &x, Role::View, Some(1_700_000_000)), Err(PlanError::Expired));
    assert_eq!(share(Some(&o), &nobody, Role::View, None), Err(PlanError::NoSuchUser));
    assert_eq!(share(Some(&o), &x, Role::View, Some(1_700_000_001)), Ok(()));

    let transfer = |from, to| people.plan_transfer(&world.registry, &d, from, to, false);
    assert_eq!(transfer(&c, &x), Err(PlanError::NotOwner));
    assert_eq!(transfer(&o, &o), Err(PlanError::IsOwner));
    let changes = transfer(&o, &c).expect("the owner passes it on");
    world.run_all(changes);
    for people in [&*people, &world.reloaded()] {
        assert_eq!(roles(people, &d), [("a:c".to_owned(), Role::Owner)], "shares end with their giver");
    }
    assert_eq!(people.plan_unbind(&d, &v), Err(PlanError::NotBound));
    world.share(&d, &v, Role::View, None);
    world.run_all(people.plan_unbind(&d, &v).expect("bound"));
    assert_eq!(roles(&people, &d), [("a:c".to_owned(), Role::Owner)]);
    world.share(&d, &v, Role::View, None);
    world.run_all(people.plan_unbind(&d, &c).expect("bound"));
    assert!(roles(&people, &d).is_empty(), "without an owner there are no shares");
}

#[test]
fn only_what_is_there_and_of_the_same_tenant_is_bound() {
    let mut world = World::new();
    let tenant = TenantId::parse("t").expect("a name");
    let only = Products::Only(BTreeSet::from([product("q")]));
    world.put_app("q-only", AppRequest { products: Some(only), ..AppRequest::default() });
    world.put_app("t", AppRequest { tenant: Some(tenant.clone()), ..AppRequest::default() });
    for app in ["q-only", "t"] {
        world.put_user(app, "u");
    }
    let bind =
        |world: &World, of: &DeviceKey, to: &UserKey| world.people.plan_bind(&world.registry, of, to, false).err();
    let o = user("a", "o");
    assert_eq!(bind(&world, &device("p", "nothing"), &o), Some(PlanError::NoSuchDevice));
    assert_eq!(bind(&world, &device("nothing", "d"), &o), Some(PlanError::NoSuchProduct));
    assert_eq!(bind(&world, &device("p", "d"), &user("a", "nobody")), Some(PlanError::NoSuchUser));
    assert_eq!(bind(&world, &device("p", "d"), &user("none", "o")), Some(PlanError::NoSuchApp));
    assert_eq!(bind(&world, &device("p", "d"), &user("q-only", "u")), Some(PlanError::ProductNotAllowed));
    assert_eq!(bind(&world, &device("q", "d"), &user("q-only", "u")), None);
    assert_eq!(bind(&world, &device("p", "d"), &user("t", "u")), Some(PlanError::ProductNotAllowed));

    world.bind(&device("p", "d"), &o);
    let set = |world: &World, key: &str| {
        world.people.plan_set_tenant(&world.registry, &product(key), TenantId::parse("t").expect("a name"))
    };
    assert_eq!(set(&world, "p"), Err(PlanError::ProductBound));
    let change = set(&world, "q").expect("nothing of it is bound");
    world.run(change);
    assert_eq!(bind(&world, &device("q", "d"), &user("t", "u")), None);
    assert_eq!(bind(&world, &device("q", "d"), &o), Some(PlanError::ProductNotAllowed));
    assert_eq!((world.people.tenant_of("q"), world.reloaded().tenant_of("q")), (tenant.clone(), tenant));
    let back = world.people.plan_forget_product(&product("q"), 10);
    world.run_all(back);
    assert_eq!(world.people.tenant_of("q"), TenantId::default());
}

#[test]
fn a_deleted_app_cuts_its_users_off_at_once_and_is_swept_up() {
    let mut world = World::new();
    let d = device("p", "d");
    world.bind(&d, &user("a", "o"));
    world.share(&d, &user("a", "c"), Role::Control, None);
    let identity = UserIdentity { app: "a".into(), user: "o".into(), by: None };
    assert!(world.people.is_user_welcome(&identity));
    world.run(world.people.plan_delete_app(&app_id("a")).expect("there"));
    assert!(!world.people.is_user_welcome(&identity) && world.people.apps(None, 10).is_empty());
    assert!(!world.people.user_may_publish(&identity, "dev/p/d/down/x"));
    let again = world.people.plan_put_app(&app_id("a"), AppRequest::default(), &making(&key()));
    assert_eq!(again.map(drop), Err(PlanError::AppBeingDeleted));
    // A crash in the middle.
    world.people = Arc::new(world.reloaded());
    assert_eq!(world.people.swept_apps(), [app_id("a")]);
    let mut steps = 0;
    loop {
        let step = world.people.plan_sweep(&app_id("a"), 1);
        if step.is_empty() {
            break;
        }
        world.run_all(step);
        steps += 1;
    }
    assert_eq!(steps, 4);
    assert!(world.store.is_empty() && world.people.bindings().is_empty() && world.people.swept_apps().is_empty());
    world.put_app("a", AppRequest::default());
}

#[test]
fn settings_stay_where_nothing_is_said() {
    let mut world = World::new();
    let key = key();
    let before = world.people.app("a").expect("there");
    let change = |world: &World, request| world.people.plan_put_app(&app_id("a"), request, &making(&key));
    let made = change(&world, AppRequest { enabled: Some(false), ..AppRequest::default() }).expect("a plan");
    assert!(!made.is_new && made.secret.is_none());
    world.run(made.change);
    let after = world.people.app("a").expect("there");
    assert_eq!(*after, App { enabled: false, ..App::clone(&before) });
    let made = change(&world, AppRequest { renew_secret: true, ..AppRequest::default() }).expect("a plan");
    let Change::PutApp(_, app) = &made.change else { panic!("an app") };
    assert_eq!(key.open("ua\0a", &app.secret).ok(), made.secret);
    let short = crate::secret::Secret::new(&[b'x'; 31]).ok();
    assert_eq!(
        change(&world, AppRequest { secret: short, ..AppRequest::default() }).map(drop),
        Err(PlanError::WeakSecret)
    );
    world.put_app("small", AppRequest { users_max: Some(1), ..AppRequest::default() });
    world.put_user("small", "1");
    assert_eq!(world.people.plan_put_user(&user("small", "2"), NOW_S), Err(PlanError::TooMuch));
    assert!(world.people.plan_put_user(&user("small", "1"), NOW_S).is_ok_and(|(_, is_new)| !is_new));
}

#[test]
fn a_share_that_expires_is_judged_again_and_swept_up() {
    let mut world = World::new();
    let d = device("p", "d");
    world.bind(&d, &user("a", "o"));
    world.share(&d, &user("a", "v"), Role::View, Some(1_700_000_100));
    assert_eq!(world.people.next_expiry_s(), Some(1_700_000_100));
    assert!(world.people.advance(1_700_000_099, 10).is_empty());
    assert_eq!(world.people.advance(1_700_000_100, 10), [Concern::user("a", "v")]);
    world.run_all(world.people.plan_expire(10));
    assert_eq!((world.people.next_expiry_s(), world.people.bindings().len()), (None, 1));
    assert!(world.people.advance(1_700_000_101, 10).is_empty());
}

fn any_step() -> impl Strategy<Value = (u8, usize, usize, usize)> {
    (0..12_u8, 0..3_usize, 0..4_usize, 0..4_usize)
}

proptest! {
    /// Whatever is done, a restart gives back what was there, and no device has two owners or a share without one.
    #[test]
    fn the_store_gives_back_what_memory_had(steps in proptest::collection::vec(any_step(), 1..40)) {
        let mut world = World::new();
        let devices = [device("p", "d"), device("p", "e"), device("q", "d")];
        let users = ["o", "c", "v", "x"].map(|name| user("a", name));
        for (what, d, u, w) in steps {
            let (d, u, w) = (&devices[d], &users[u], &users[w]);
            let people = Arc::clone(&world.people);
            let registry = &world.registry;
            let role = if w.user.as_str() == "v" { Role::View } else { Role::Control };
            let share = Share { with: w, role, expires_at_s: (what == 4).then_some(1_700_000_500) };
            let one = |plan: Result<Change, PlanError>| plan.map(|change| vec![change]);
            let plan = match what {
                0..=2 => one(people.plan_bind(registry, d, u, false)),
                3..=5 => one(people.plan_share(registry, d, Some(u), &share, NOW_S)),
                6 => people.plan_transfer(registry, d, u, w, true),
                7 => people.plan_unbind(d, u),
                8 => one(people.plan_freeze_user(u, w == u)),
                9 => people.plan_delete_user(u),
                10 => one(people.plan_put_user(u, NOW_S).map(|(change, _)| change)),
                _ => {
                    let _ = people.advance(NOW_S + 400 + what as u64 * 10, 10);
                    Ok(people.plan_expire(10))
                }
            };
            world.run_all(plan.unwrap_or_default());
            let reloaded = world.reloaded();
            for d in &devices {
                let found = roles(&world.people, d);
                let owners = found.iter().filter(|(_, role)| *role == Role::Owner).count();
                prop_assert!(owners == 1 || found.is_empty(), "{:?}", found);
                prop_assert_eq!(roles(&reloaded, d), found);
            }
            for u in &users {
                let (app, name) = (u.app.as_str(), u.user.as_str());
                prop_assert_eq!(reloaded.bindings().user(app, name), world.people.bindings().user(app, name));
            }
            prop_assert_eq!(reloaded.next_expiry_s(), world.people.next_expiry_s());
        }
    }
}

#[test]
fn pages_are_in_order() {
    let mut world = World::new();
    for name in ["z", "b"] {
        world.put_app(name, AppRequest::default());
        let grants = Some(vec![Grant { product: None, rights: Right::ReadUp.into() }]);
        world.put_service(name, ServiceRequest { grants, ..ServiceRequest::default() });
    }
    let apps = |after, limit| -> Vec<String> {
        world.people.apps(after, limit).into_iter().map(|(id, _)| id.to_string()).collect()
    };
    assert_eq!((apps(None, 2), apps(Some("b"), 9)), (vec!["a".into(), "b".into()], vec!["z".to_owned()]));
    let services: Vec<_> = world.people.services(Some("b"), 9).into_iter().map(|(key, _)| key).collect();
    assert_eq!(services, [access_key("z")]);
    world.run(world.people.plan_delete_service(&access_key("z")).expect("there"));
    assert!(world.people.service("z").is_none() && world.reloaded().service("b").is_some());
    assert_eq!(world.people.plan_delete_service(&access_key("z")), Err(PlanError::NoSuchService));
}
