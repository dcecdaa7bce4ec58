//! Labels are bounded, and kept once.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> DeviceName {
    DeviceName::parse(text).expect("a name")
}

fn request(tags: &[&str], region: &str) -> LabelsRequest {
    LabelsRequest::new(Some(tags.iter().copied()), Some(region)).expect("labels")
}

fn labels(tags: &[&str], region: &str) -> Arc<Labels> {
    request(tags, region).onto(None).expect("some")
}

#[test]
fn labels_are_bounded_and_in_order() {
    let made = labels(&["shop", "beta", "shop"], "cn-east");
    assert_eq!((made.tags(), made.region()), (&["beta".into(), "shop".into()][..], Some("cn-east")));
    assert_eq!(labels(&["东区"], "").tags(), ["东区".into()]);
    let tags = |tags: &[&str]| LabelsRequest::new(Some(tags.iter().copied()), None).map(drop);
    assert_eq!(tags(&["1", "2", "3", "4", "5", "6", "7", "8", "8"]), Ok(()));
    assert_eq!(tags(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]), Err(LabelError::TooMany));
    assert_eq!(tags(&[""]), Err(LabelError::Empty));
    assert_eq!(tags(&["n".repeat(64).as_str()]), Ok(()));
    assert_eq!(tags(&["n".repeat(65).as_str()]), Err(LabelError::TooLong));
    for bad in ["a b", "a,b", "a;b", "a\"", "a\n", "\u{3000}"] {
        assert_eq!(tags(&[bad]), Err(LabelError::Character), "{bad}");
        let region = LabelsRequest::new(None::<[&str; 0]>, Some(bad)).map(drop);
        assert_eq!(region, Err(LabelError::Character));
    }
}

#[test]
fn what_isnt_said_stays() {
    let before = labels(&["beta"], "eu");
    let tags = LabelsRequest::new(Some(["shop"]), None).expect("labels");
    assert_eq!(tags.onto(Some(&before)), Some(labels(&["shop"], "eu")));
    let region = LabelsRequest::new(None::<[&str; 0]>, Some("")).expect("labels");
    assert_eq!(region.onto(Some(&before)), Some(labels(&["beta"], "")));
    assert_eq!(request(&[], "").onto(Some(&before)), None, "nothing is left");
    assert!(LabelsRequest::default().is_empty() && !region.is_empty());
    let fields = |tags, region| LabelsRequest::of_fields(tags, region).expect("labels").onto(Some(&before));
    assert_eq!(fields(" shop;beta  home;", "us"), Some(labels(&["beta", "home", "shop"], "us")));
    assert_eq!(fields("", ""), Some(Arc::clone(&before)));
    assert_eq!(LabelsRequest::of_fields("", "a b"), Err(LabelError::Character));
}

#[test]
fn equal_sets_are_kept_once_and_go_with_the_last_device() {
    let mut labelled = Labelled::default();
    for device in ["a", "b", "c"] {
        labelled.set(name(device), Some(labels(&["beta"], "eu")));
    }
    let [a, b] = ["a", "b"].map(|device| Arc::clone(labelled.get(device).expect("labels")));
    assert!(Arc::ptr_eq(&a, &b) && labelled.sets.len() == 1);
    drop((a, b));
    labelled.set(name("a"), Some(labels(&["shop"], "")));
    assert_eq!(labelled.sets.len(), 2);
    labelled.set(name("a"), None);
    labelled.set(name("a"), None);
    labelled.set(name("b"), None);
    assert_eq!((labelled.sets.len(), labelled.devices.len()), (1, 1));
    // Somebody looks at it while it goes.
    let held = Arc::clone(labelled.get("c").expect("labels"));
    labelled.set(name("c"), Some(labels(&["home"], "")));
    drop(held);
    labelled.set(name("c"), None);
    assert!(labelled.sets.is_empty() && labelled.is_empty());
}

#[test]
fn a_search_is_by_page_and_bounded() {
    let mut labelled = Labelled::default();
    for number in 0..100 {
        let tags: &[&str] = if number % 10 == 0 { &["beta", "shop"] } else { &["shop"] };
        labelled.set(name(&format!("d{number:02}")), Some(labels(tags, if number < 50 { "eu" } else { "us" })));
    }
    let wanted = |tags: &[&str], region: Option<&str>| Wanted {
        tags: tags.iter().map(|tag| Box::from(*tag)).collect(),
        region: region.map(Box::from),
    };
    let names = |found: &[DeviceName]| found.iter().map(ToString::to_string).collect::<Vec<_>>();
    let both = wanted(&["beta", "shop"], None);
    let (found, next) = labelled.find(&both, None, (3, 1000));
    assert_eq!(
        (names(&found), next.as_ref().map(DeviceName::as_str)),
        (vec!["d00".into(), "d10".into(), "d20".into()], Some("d20"))
    );
    let (found, next) = labelled.find(&both, Some("d20"), (100, 15));
    assert_eq!(
        (names(&found), next.as_ref().map(DeviceName::as_str)),
        (vec!["d30".into()], Some("d35")),
        "as far as it has looked"
    );
    let (found, next) = labelled.find(&wanted(&["beta"], Some("us")), None, (100, 1000));
    assert_eq!((names(&found).len(), next), (5, None));
    assert_eq!(labelled.find(&wanted(&[], Some("cn")), None, (100, 1000)), (vec![], None));
}

#[test]
fn a_record_is_as_it_is_written() {
    for made in [labels(&["beta", "shop"], "eu"), labels(&[], "eu"), labels(&["beta"], "")] {
        assert_eq!(Labels::from_record(&made.to_record()), Some((*made).clone()));
    }
    for bad in
        [&b""[..], b"\0", b"\x02e", b"\0\x01b\x01a", b"\0\x01a\x01a", b"\0\0", b"\x01 ", b"\0\x01,", b"\0\x01\xff"]
    {
        assert_eq!(Labels::from_record(bad), None, "{bad:?}");
    }
    let nine: Vec<u8> = std::iter::once(0).chain((b'1'..=b'9').flat_map(|tag| [1, tag])).collect();
    assert_eq!(Labels::from_record(&nine), None);
}

proptest! {
    /// Against a plain map: whatever is set and taken away, each set in use is there once, and no other.
    #[test]
    fn sets_are_those_in_use(steps in proptest::collection::vec((0..6_u8, proptest::option::of(0..4_u8)), 0..60)) {
        let (mut labelled, mut plain) = (Labelled::default(), BTreeMap::new());
        for (device, tag) in steps {
            let (device, tag) = (name(&format!("d{device}")), tag.map(|tag| labels(&[&format!("t{tag}")], "")));
            labelled.set(device.clone(), tag.clone());
            match tag {
                Some(tag) => plain.insert(device, tag),
                None => plain.remove(&device),
            };
            prop_assert_eq!(labelled.all(), &plain);
            let used: HashSet<_> = plain.values().cloned().collect();
            prop_assert_eq!(labelled.sets.iter().cloned().collect::<HashSet<_>>(), used);
        }
    }

    #[test]
    fn a_record_that_is_read_is_written_the_same(record in proptest::collection::vec(0_u8..5, 0..12)) {
        if let Some(labels) = Labels::from_record(&record) {
            prop_assert_eq!(labels.to_record(), record);
        }
    }
}
