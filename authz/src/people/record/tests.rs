use proptest::prelude::*;

use super::*;
use crate::people::services::Right;

fn put(change: &Change) -> (Box<[u8]>, Box<[u8]>) {
    crate::record::testing::put(encode(change))
}

fn changes() -> Vec<Change> {
    let product = |key: &str| ProductKey::parse(key).expect("a name");
    let tenant = TenantId::parse("t").expect("a name");
    let user = UserKey::parse("a", "u:1").expect("names");
    let device = DeviceKey { product: product("p"), device: DeviceName::parse("d").expect("a name") };
    let app = App {
        tenant: tenant.clone(),
        secret: Sealed::from_bytes(&[9; 61]),
        enabled: true,
        created_at_s: u64::MAX,
        products: Products::All,
        tokens: TokenRules::default(),
        users_max: 7,
    };
    let tokens = TokenRules {
        hs256: false,
        keys: KeySource::Url("https://example.com/jwks".into()),
        issuer: Some("i".into()),
        audience: Some("".into()),
        leeway_s: 300,
    };
    let closed =
        App { enabled: false, products: Products::Only([product("p"), product("q")].into()), tokens, ..app.clone() };
    let service = Service {
        tenant: tenant.clone(),
        secret: Sealed::from_bytes(&[8; 61]),
        enabled: false,
        created_at_s: 3,
        networks: vec!["10.0.0.0/8".parse().expect("a network"), "2001:db8::/32".parse().expect("a network")],
        grants: vec![
            Grant { product: None, rights: Right::ReadUp.into() },
            Grant { product: Some(product("p")), rights: Rights::from_iter(Right::ALL) },
        ],
    };
    let share = Binding { role: Role::Control, expires_at_s: Some(u32::MAX), by_admin: true };
    let owner = Binding { role: Role::Owner, expires_at_s: None, by_admin: false };
    let id = AppId::parse("a").expect("a name");
    let at_hand = device.clone();
    let open = Erasure {
        app: id.clone(),
        user: Some(UserId::parse("u").expect("a name")),
        masked: "…(1)".into(),
        by: "operator:1".into(),
        asked_at_s: 1,
        begins_at_s: 2,
        due_at_s: u64::MAX,
        failures: 3,
        left: Some(Kind::Retained),
        done_at_s: None,
        erased: Counts::default().with(Kind::Session, 4),
    };
    vec![
        Change::PutApp(id.clone(), app),
        Change::PutApp(id, closed),
        Change::PutUser(user.clone(), User { frozen: true, created_at_s: u32::MAX }),
        Change::Bind(device.clone(), user.clone(), share),
        Change::Bind(device, user, owner),
        Change::PutService(AccessKey::parse("k").expect("a name"), service),
        Change::SetTenant(product("p"), tenant),
        Change::PutLogIns(UserKey::parse("a", "u").expect("names"), b"\x01\0\0\0\x09\x0a\0\0\x01\x01c"[..].into()),
        Change::PutCode(
            CodeHash::of("c1;x"),
            Code { user: UserKey::parse("a", "u").expect("names"), expires_at_s: u64::MAX },
        ),
        Change::PutProofs(at_hand.clone(), [None, Some(Open { hash: [7; 32], expires_at_s: 9 })]),
        Change::PutProofs(at_hand, [Some(Open { hash: [8; 32], expires_at_s: u64::MAX }), None]),
        Change::PutErasure(7, Box::new(open.clone())),
        Change::PutErasure(u64::MAX, Box::new(Erasure { user: None, left: None, done_at_s: Some(9), ..open })),
    ]
}

#[test]
fn a_record_gives_back_what_made_it_and_damage_is_told_apart() {
    crate::record::testing::is_sound(changes(), encode, decode);
    for change in changes() {
        let (key, value) = put(&change);
        assert!(is_ours(&key));
        for end in 0..value.len() {
            assert!(matches!(decode(&key, &value[..end]), Err(RecordError::Damaged(_))), "{key:?} cut at {end}");
        }
        assert!(matches!(decode(&key, &[&value[..], &[0]].concat()), Err(RecordError::Damaged(_))));
    }
}

#[test]
fn records_of_the_registry_are_not_ours() {
    for key in [&b"p\0u"[..], b"d\0u\0x", b"a\0ua", b"m\0u", b"u", b"ua", b""] {
        assert!(!is_ours(key), "{key:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        text in "u[aubstlcep]\0[ab]{0,2}(\0[cd]){0,4}",
        head in proptest::collection::vec(0_u8..4, 0..24),
        value in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        for value in [[&head[..], &value[..]].concat(), [&[1], &value[..]].concat()] {
            if let Ok(change) = decode(text.as_bytes(), &value) {
                let (key, value) = put(&change);
                prop_assert_eq!((&*key, decode(&key, &value)), (text.as_bytes(), Ok(change)));
            }
        }
    }
}
