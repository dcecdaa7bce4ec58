//! Each error, and that no sequence of changes offers what may not be offered.

use proptest::prelude::*;
use turnpike_core::durable::Op;

use super::*;
use crate::firmware::Digester;
use crate::record;
use crate::signature::{Keys, testing};
use crate::target::Hardware;

fn product() -> ProductKey {
    ProductKey::parse("lamp").expect("a name")
}

fn hardware(names: &[&str]) -> RunsOn {
    RunsOn::listed(names.iter().map(|name| name.parse().expect("a name"))).expect("a list")
}

fn target(name: &str) -> Target {
    name.parse().expect("a name")
}

fn version(name: &str) -> Version {
    name.parse().expect("a name")
}

fn planned(text: &str) -> Planned {
    Planned {
        product: product(),
        target: target("mcu"),
        version: version(text),
        runs_on: hardware(&["A1"]),
        release: Some(5),
        base: None,
        note: "".into(),
        declared: Declared::default(),
    }
}

fn whole(file: &[u8]) -> Whole {
    let mut digester = Digester::default();
    digester.update(file);
    digester.finish()
}

fn create(catalog: &mut Catalog, planned: Planned) -> FirmwareId {
    let (id, change) = catalog.plan_create(planned, 0).expect("a plan");
    catalog.apply(change);
    id
}

fn ready(catalog: &mut Catalog, planned: Planned) -> FirmwareId {
    let id = create(catalog, planned);
    let change = catalog.plan_finish(id, &whole(b"file"), None).expect("a plan");
    catalog.apply(change);
    id
}

fn demand(catalog: &mut Catalog, demands: Demands) {
    let change = catalog.plan_demands(&product(), demands).expect("a plan");
    catalog.apply(change);
}

fn rule(release_min: u64, listed: &[&str]) -> Demands {
    let listed = listed.iter().map(|name| name.parse().expect("a name"));
    let rule = TargetRule { release_min, hardware: listed.collect() };
    Demands { targets: [(target("mcu"), rule)].into(), ..Demands::default() }
}

#[test]
fn what_cant_be_created_says_why() {
    let mut catalog = Catalog::default();
    demand(&mut catalog, rule(5, &["A1", "A2"]));
    let plan = |catalog: &Catalog, planned| catalog.plan_create(planned, 0).map(|(id, _)| id);
    let declared = |bytes| Declared { bytes: Some(bytes), ..Declared::default() };
    for (planned, error) in [
        (Planned { target: target("module"), ..planned("1") }, CatalogError::UnknownTarget),
        (Planned { runs_on: hardware(&["A1", "B1"]), ..planned("1") }, CatalogError::UnknownHardware),
        (Planned { runs_on: RunsOn::Any, ..planned("1") }, CatalogError::UnknownHardware),
        (Planned { release: Some(4), ..planned("1") }, CatalogError::Rollback { release: 4, required: 5 }),
        (Planned { base: Some(version("1")), ..planned("1") }, CatalogError::BaseIsVersion),
        (Planned { declared: declared(0), ..planned("1") }, CatalogError::Empty),
        (Planned { declared: declared(BYTES_MAX + 1), ..planned("1") }, CatalogError::TooLarge),
        (Planned { note: "x".repeat(NOTE_BYTES_MAX + 1).into(), ..planned("1") }, CatalogError::NoteTooLong),
    ] {
        assert_eq!(plan(&catalog, planned), Err(error));
    }
    let first = create(&mut catalog, Planned { declared: declared(BYTES_MAX), ..planned("1") });
    assert_eq!(plan(&catalog, planned("1")), Err(CatalogError::VersionExists(first)));
    let other = Planned { runs_on: hardware(&["A2"]), ..planned("1") };
    assert!(plan(&catalog, other).is_ok(), "another hardware has its own file of that version");
    assert!(
        plan(&catalog, Planned { base: Some(version("0")), ..planned("1") }).is_ok(),
        "and a patch is another file"
    );
    let refused = catalog.plan_refuse(first, "no").expect("a plan");
    catalog.apply(refused);
    assert!(plan(&catalog, planned("1")).is_ok(), "a refused file never was that version");
    for number in 1..PRODUCT_FIRMWARE_MAX {
        create(&mut catalog, planned(&format!("v{number}")));
    }
    assert_eq!(plan(&catalog, planned("2")), Err(CatalogError::TooMany));
}

#[test]
fn a_file_that_isnt_what_was_declared_is_not_ready() {
    let right = whole(b"file");
    let declared = Declared {
        bytes: Some(4),
        sha256: Some(right.digests.sha256),
        md5: Some(right.digests.md5),
        crc32: Some(right.digests.crc32),
    };
    let finish = |declared, whole: &Whole| {
        let mut catalog = Catalog::default();
        let id = create(&mut catalog, Planned { declared, ..planned("1") });
        catalog.plan_finish(id, whole, None).map(|_| ())
    };
    assert_eq!(finish(declared, &right), Ok(()));
    let wrong_size = CatalogError::WrongSize { have: 4, declared: 5 };
    assert_eq!(finish(Declared { bytes: Some(5), ..declared }, &right), Err(wrong_size));
    assert_eq!(finish(Declared { sha256: Some([0; 32]), ..declared }, &right), Err(CatalogError::WrongSha256));
    assert_eq!(finish(Declared { md5: Some([0; 16]), ..declared }, &right), Err(CatalogError::WrongMd5));
    assert_eq!(finish(Declared { crc32: Some(0), ..declared }, &right), Err(CatalogError::WrongCrc32));
    assert_eq!(finish(Declared::default(), &whole(b"")), Err(CatalogError::Empty));
    let large = Whole { bytes: BYTES_MAX + 1, ..right };
    assert_eq!(finish(Declared::default(), &large), Err(CatalogError::TooLarge));
}

#[test]
fn a_signature_is_missing_wrong_or_unknown() {
    let (key, other) = (testing::ed25519(), testing::p256());
    let keys = Keys::new(vec![key.public().clone()]).expect("keys");
    let mut catalog = Catalog::default();
    let id = create(&mut catalog, planned("1"));
    let file = whole(b"file");
    let right = testing::detached(&key, &file.digests.sha256);
    let finish = |catalog: &Catalog, detached| catalog.plan_finish(id, &file, detached).map(|_| ());
    assert_eq!(finish(&catalog, Some(&right)), Err(SignatureError::UnknownKey.into()), "there is no key at all");
    demand(&mut catalog, Demands { keys: keys.clone(), ..Demands::default() });
    assert_eq!(finish(&catalog, None), Ok(()));
    demand(&mut catalog, Demands { keys, signature_required: true, ..Demands::default() });
    assert_eq!(finish(&catalog, None), Err(SignatureError::Missing.into()));
    let wrong = testing::detached(&other, &file.digests.sha256);
    assert_eq!(finish(&catalog, Some(&wrong)), Err(SignatureError::Wrong.into()));
    let stale = testing::detached(&key, &whole(b"other").digests.sha256);
    assert_eq!(finish(&catalog, Some(&stale)), Err(SignatureError::Wrong.into()));
    let change = catalog.plan_finish(id, &file, Some(&right)).expect("a plan");
    catalog.apply(change);
    let device = Fitting {
        product: "lamp",
        target: &target("mcu"),
        hardware: Some(&"A1".parse().expect("a name")),
        version: None,
    };
    assert!(catalog.suits(id, &device).is_ok());
    let rotated = Keys::new(vec![other.public().clone()]).expect("keys");
    demand(&mut catalog, Demands { keys: rotated, signature_required: true, ..Demands::default() });
    assert_eq!(catalog.suits(id, &device), Err(Unsuited::Unsigned), "its key is the product's no more");
}

#[test]
fn states_go_one_way() {
    let mut catalog = Catalog::default();
    let id = create(&mut catalog, planned("1"));
    let file = whole(b"file");
    assert_eq!(catalog.plan_withdraw(id), Err(CatalogError::NotReady));
    let change = catalog.plan_finish(id, &file, None).expect("a plan");
    catalog.apply(change);
    assert_eq!(catalog.plan_finish(id, &file, None), Err(CatalogError::NotUploading));
    assert_eq!(catalog.plan_refuse(id, "no"), Err(CatalogError::NotUploading));
    let change = catalog.plan_withdraw(id).expect("a plan");
    catalog.apply(change);
    assert_eq!(catalog.plan_withdraw(id), Err(CatalogError::NotReady));
    assert_eq!(catalog.plan_delete(id, true), Err(CatalogError::InUse));
    for change in catalog.plan_delete(id, false).expect("a plan") {
        catalog.apply(change);
    }
    assert!(catalog.is_empty());
    assert_eq!(catalog.plan_delete(id, false), Err(CatalogError::NoSuchFirmware));
    assert_eq!(create(&mut catalog, planned("1")), FirmwareId(id.0 + 1), "a number is never given again");
    let long = "é".repeat(WHY_BYTES_MAX);
    let Ok(Change::Put(refused)) = catalog.plan_refuse(FirmwareId(id.0 + 1), &long) else { panic!("a plan") };
    assert!(matches!(&refused.state, State::Refused { why } if why.len() == WHY_BYTES_MAX));
}

#[test]
fn a_device_is_offered_what_is_for_it_and_a_patch_where_there_is_one() {
    let mut catalog = Catalog::default();
    let id = ready(&mut catalog, planned("2"));
    let patch = ready(&mut catalog, Planned { base: Some(version("1")), ..planned("2") });
    let (a1, b1) = ("A1".parse().expect("a name"), "B1".parse().expect("a name"));
    let (mcu, module, one) = (target("mcu"), target("module"), version("1"));
    let device = Fitting { product: "lamp", target: &mcu, hardware: Some(&a1), version: None };
    let suits = |catalog: &Catalog, device: Fitting<'_>| catalog.suits(id, &device).map(|suited| suited.firmware.id);
    assert_eq!(suits(&catalog, device), Ok(id));
    assert_eq!(suits(&catalog, Fitting { version: Some(&one), ..device }), Ok(patch));
    assert_eq!(suits(&catalog, Fitting { version: Some(&version("0")), ..device }), Ok(id));
    assert_eq!(suits(&catalog, Fitting { product: "fan", ..device }), Err(Unsuited::Product));
    assert_eq!(suits(&catalog, Fitting { target: &module, ..device }), Err(Unsuited::Target));
    assert_eq!(suits(&catalog, Fitting { hardware: Some(&b1), ..device }), Err(Unsuited::Hardware));
    assert_eq!(suits(&catalog, Fitting { hardware: None, ..device }), Err(Unsuited::Hardware));
    assert_eq!(catalog.suits(patch, &device), Err(Unsuited::NoSuchFirmware), "a patch is no campaign's");
    let withdrawn = catalog.plan_withdraw(patch).expect("a plan");
    catalog.apply(withdrawn);
    assert_eq!(suits(&catalog, Fitting { version: Some(&one), ..device }), Ok(id), "the patch was withdrawn");
    demand(&mut catalog, rule(6, &[]));
    assert_eq!(suits(&catalog, device), Err(Unsuited::Rollback), "the product has moved on");
    let left: Vec<_> = std::iter::from_fn(|| {
        let changes = catalog.plan_sweep(&product(), 2);
        let is_done = changes.is_empty();
        changes.into_iter().for_each(|change| catalog.apply(change));
        (!is_done).then_some(())
    })
    .collect();
    assert_eq!((left.len(), catalog.len()), (3, 0));
    assert_eq!(*catalog.demands("lamp"), Demands::default());
}

#[test]
fn a_patch_counts_as_the_release_to_which_it_leads() {
    let mut catalog = Catalog::default();
    let of = |text, release| Planned { release, ..planned(text) };
    let old = ready(&mut catalog, of("3.0", Some(6)));
    let whole = ready(&mut catalog, of("3.1", Some(7)));
    let patch = Planned { base: Some(version("3.0")), ..of("3.1", None) };
    let other = Planned { release: Some(6), ..patch.clone() };
    assert_eq!(catalog.plan_create(other, 0).err(), Some(CatalogError::ReleaseDiffers { release: 6, whole: 7 }));
    let patch = ready(&mut catalog, patch);
    assert_eq!(catalog.get(patch).map(|firmware| firmware.release), Some(7));
    let is_older = |id, reported| catalog.is_older(catalog.get(id).expect("firmware"), &version(reported));
    assert!(is_older(old, "3.1") && !is_older(whole, "3.0") && !is_older(whole, "3.1") && !is_older(whole, "unknown"));
}

#[test]
fn a_file_that_was_never_ready_makes_no_other_one_old() {
    let mut catalog = Catalog::default();
    let id = ready(&mut catalog, planned("1"));
    let begun = create(&mut catalog, Planned { release: Some(9), ..planned("2") });
    let is_older = |catalog: &Catalog| catalog.is_older(catalog.get(id).expect("firmware"), &version("2"));
    assert!(!is_older(&catalog), "only begun");
    let finished = catalog.plan_finish(begun, &whole(b"file"), None).expect("a plan");
    let refused = catalog.plan_refuse(begun, "no").expect("a plan");
    let mut other = catalog.clone();
    other.apply(refused);
    assert!(!is_older(&other), "refused");
    catalog.apply(finished);
    assert!(is_older(&catalog));
    let withdrawn = catalog.plan_withdraw(begun).expect("a plan");
    catalog.apply(withdrawn);
    assert!(is_older(&catalog), "there are devices that run it");
}

#[test]
fn a_campaign_is_judged_before_it_begins() {
    let mut catalog = Catalog::default();
    let id = ready(&mut catalog, planned("1"));
    let patch = ready(&mut catalog, Planned { base: Some(version("0")), ..planned("1") });
    assert_eq!(catalog.judge(id), Ok(()));
    assert_eq!(catalog.judge(patch), Err(Unsuited::NoSuchFirmware));
    demand(&mut catalog, rule(6, &[]));
    assert_eq!(catalog.judge(id), Err(Unsuited::Rollback));
    demand(&mut catalog, Demands { targets: [(target("module"), TargetRule::default())].into(), ..Demands::default() });
    assert_eq!(catalog.judge(id), Err(Unsuited::Target));
    demand(&mut catalog, Demands::default());
    let withdrawn = catalog.plan_withdraw(id).expect("a plan");
    catalog.apply(withdrawn);
    assert_eq!(catalog.judge(id), Err(Unsuited::NotReady));
}

#[test]
fn a_device_goes_on_with_the_file_that_it_began_with() {
    let mut catalog = Catalog::default();
    let id = ready(&mut catalog, planned("2"));
    let (mcu, hardware, one) = (target("mcu"), "A1".parse().expect("a name"), version("1"));
    let device = Fitting { product: "lamp", target: &mcu, hardware: Some(&hardware), version: Some(&one) };
    let patch = ready(&mut catalog, Planned { base: Some(version("1")), ..planned("2") });
    let again = |catalog: &Catalog, begun, device: &Fitting<'_>| {
        catalog.suits_again(id, begun, device).map(|suited| suited.firmware.id)
    };
    assert_eq!(again(&catalog, id, &device), Ok(id), "the patch came later");
    assert_eq!(again(&catalog, patch, &device), Ok(patch));
    assert_eq!(again(&catalog, FirmwareId(99), &device), Ok(patch), "it is gone");
    assert_eq!(again(&catalog, patch, &Fitting { version: None, ..device }), Ok(id), "it leads from elsewhere");
    let other = ready(&mut catalog, Planned { runs_on: self::hardware(&["A2"]), ..planned("2") });
    assert_eq!(again(&catalog, other, &device), Ok(patch), "it runs on other hardware");
    let withdrawn = catalog.plan_withdraw(patch).expect("a plan");
    catalog.apply(withdrawn);
    assert_eq!(again(&catalog, patch, &device), Ok(id));
}

#[derive(Clone, Debug)]
enum Act {
    Create { version: u8, hardware: u8, release: u64, patch: bool },
    Finish(u64, bool),
    Refuse(u64),
    Withdraw(u64),
    Delete(u64),
    Demand(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..3_u8, 0..3_u8, 0..4_u64, any::<bool>()).prop_map(|(version, hardware, release, patch)| Act::Create {
            version,
            hardware,
            release,
            patch
        }),
        (0..8_u64, any::<bool>()).prop_map(|(id, right)| Act::Finish(id, right)),
        (0..8_u64).prop_map(Act::Refuse),
        (0..8_u64).prop_map(Act::Withdraw),
        (0..8_u64).prop_map(Act::Delete),
        (0..4_u64).prop_map(Act::Demand),
    ]
}

fn changes(catalog: &Catalog, act: &Act) -> Result<Vec<Change>, CatalogError> {
    let one = |change: Change| vec![change];
    match *act {
        Act::Create { version: number, hardware: of, release, patch } => {
            let base = patch.then(|| version("old"));
            let declared = Declared { crc32: Some(whole(b"file").digests.crc32), ..Declared::default() };
            let runs_on = hardware(&[["A1", "B1", "C1"][usize::from(of)]]);
            let planned = Planned { runs_on, release: Some(release), base, declared, ..planned(&number.to_string()) };
            catalog.plan_create(planned, 0).map(|(_, change)| one(change))
        }
        Act::Finish(id, right) => {
            catalog.plan_finish(FirmwareId(id), &whole(if right { b"file" } else { b"else" }), None).map(one)
        }
        Act::Refuse(id) => catalog.plan_refuse(FirmwareId(id), "no").map(one),
        Act::Withdraw(id) => catalog.plan_withdraw(FirmwareId(id)).map(one),
        Act::Delete(id) => catalog.plan_delete(FirmwareId(id), false).map(Vec::from),
        Act::Demand(release) => catalog.plan_demands(&product(), rule(release, &[])).map(one),
    }
}

proptest! {
    #[test]
    fn what_is_offered_is_right(acts in proptest::collection::vec(act(), 0..60)) {
        let mut catalog = Catalog::default();
        let (mut given, mut store) = (BTreeSet::new(), BTreeMap::new());
        let a1: Hardware = "A1".parse().expect("a name");
        let (mcu, old) = (target("mcu"), version("old"));
        for act in &acts {
            for change in changes(&catalog, act).unwrap_or_default() {
                if let (Change::Put(firmware), Act::Create { .. }) = (&change, act) {
                    prop_assert!(given.insert(firmware.id), "given twice");
                }
                match record::encode(&change.clone().into()) {
                    Op::RegistryPut(key, value) => store.insert(key, value),
                    Op::RegistryDelete(key) => store.remove(&key),
                    other => panic!("{other:?} is none of the registry's"),
                };
                catalog.apply(change);
            }
            let demands = catalog.demands("lamp");
            for id in (0..10).map(FirmwareId) {
                for reported in [None, Some(&old)] {
                    let device = Fitting { product: "lamp", target: &mcu, hardware: Some(&a1), version: reported };
                    let Ok(suited) = catalog.suits(id, &device) else { continue };
                    prop_assert_eq!(suited.contents.whole, whole(b"file"));
                    prop_assert!(suited.firmware.ready().is_some());
                    prop_assert!(suited.firmware.release >= demands.targets[&mcu].release_min);
                    prop_assert!(suited.firmware.runs_on.takes(Some(&a1)));
                    prop_assert!(suited.firmware.base.is_none() || suited.firmware.base.as_ref() == reported);
                }
            }
        }
        let mut again = Catalog::default();
        for (key, value) in store {
            let Ok(record::Change::Catalog(change)) = record::decode(&key, &value) else { panic!("a record") };
            again.apply(change);
        }
        prop_assert_eq!(again, catalog, "what is read back after a restart");
    }
}
