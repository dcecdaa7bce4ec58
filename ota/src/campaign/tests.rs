use std::collections::BTreeSet;

use super::*;

pub(crate) fn group(size: Size) -> Group {
    Group { size, success_percent: 100, errors: None }
}

/// Version 2.0 for the MCUs of all lamps, at once.
pub(crate) fn settings() -> Settings {
    Settings {
        name: "spring".into(),
        firmware: FirmwareId(1),
        target: "mcu".parse().expect("a target"),
        version: "2.0".parse().expect("a version"),
        filter: Filter { product: "lamp".into(), ..Filter::default() },
        salt: 5,
        groups: vec![group(Size::Rest)],
        approval: false,
        start_s: None,
        end_s: None,
        windows: Vec::new(),
        zone: Zone::UTC,
        rate: None,
        downloads_max: None,
        bandwidth: None,
        priority: 0,
        dynamic: false,
        limits: Limits::default(),
        retries_max: 0,
        force: false,
        downgrade: false,
    }
}

fn faults(change: impl FnOnce(&mut Settings)) -> Vec<Fault> {
    let mut settings = settings();
    change(&mut settings);
    Campaign::new(CampaignId(1), settings, 100).err().unwrap_or_default()
}

fn of_groups(sizes: Vec<Size>) -> Vec<Fault> {
    faults(|settings| settings.groups = sizes.into_iter().map(group).collect())
}

#[test]
fn settings_without_a_fault() {
    assert_eq!(faults(|_| {}), []);
    assert_eq!(of_groups(vec![Size::Trial(vec!["d1".into()]), Size::Devices(10), Size::Percent(30), Size::Rest]), []);
    assert_eq!(of_groups(vec![Size::Percent(1), Size::Percent(99)]), []);
    let trial_alone = |settings: &mut Settings| {
        settings.groups = vec![group(Size::Trial(vec!["d1".into()]))];
        settings.filter.devices = BTreeSet::from(["d1".into()]);
    };
    assert_eq!(faults(trial_alone), []);
}

#[test]
fn every_fault_has_its_name() {
    let trial = |names: &[&str]| Size::Trial(names.iter().map(|name| (*name).into()).collect());
    let cases: Vec<(Vec<Fault>, Fault)> = vec![
        (faults(|s| s.name = "".into()), Fault::Name),
        (faults(|s| s.filter.product = "".into()), Fault::Product),
        (faults(|s| s.filter.share = Some(0)), Fault::Share),
        (faults(|s| s.filter.share = Some(10_001)), Fault::Share),
        (faults(|s| s.filter.versions = crate::filter::Versions::Of(BTreeSet::new())), Fault::NoVersions),
        (faults(|s| s.filter.tags = (0..1001).map(|n| n.to_string().into()).collect()), Fault::TooManyNames("tags")),
        (of_groups(vec![]), Fault::Groups),
        (of_groups(vec![Size::Devices(1), trial(&["d"]), Size::Rest]), Fault::TrialNotFirst(2)),
        (of_groups(vec![trial(&[]), Size::Rest]), Fault::Trial),
        (of_groups(vec![trial(&["d", "d"]), Size::Rest]), Fault::Trial),
        (of_groups(vec![Size::Devices(0), Size::Rest]), Fault::Size(1)),
        (of_groups(vec![Size::Percent(0), Size::Rest]), Fault::Size(1)),
        (of_groups(vec![Size::Rest, Size::Rest]), Fault::RestNotLast(1)),
        (of_groups(vec![Size::Percent(60), Size::Percent(60)]), Fault::PercentAbove(120)),
        (of_groups(vec![Size::Percent(60), Size::Devices(60)]), Fault::LeavesSome),
        (of_groups(vec![trial(&["d"])]), Fault::LeavesSome),
        (faults(|s| s.groups[0].success_percent = 0), Fault::Success(1)),
        (faults(|s| s.groups[0].success_percent = 101), Fault::Success(1)),
        (faults(|s| s.groups[0].errors = Some(Errors::Devices(0))), Fault::Errors(1)),
        (faults(|s| s.groups[0].errors = Some(Errors::Percent(101))), Fault::Errors(1)),
        (faults(|s| (s.start_s, s.end_s) = (Some(10), Some(10))), Fault::Ends),
        (faults(|s| s.windows = vec!["01:00-02:00".parse().expect("a window"); 9]), Fault::Windows),
        (faults(|s| s.rate = Some(Rate::Constant(0))), Fault::Rate),
        (faults(|s| s.rate = Some(Rate::Growing { base: 9, factor_permille: 1000, every: 1, max: 10 })), Fault::Rate),
        (faults(|s| s.rate = Some(Rate::Growing { base: 11, factor_permille: 2000, every: 1, max: 10 })), Fault::Rate),
        (faults(|s| s.downloads_max = Some(0)), Fault::Downloads),
        (faults(|s| s.bandwidth = Some(Bandwidth { total_bytes_s: 5, device_bytes_s: 6 })), Fault::Bandwidth),
        (faults(|s| s.bandwidth = Some(Bandwidth { total_bytes_s: 5, device_bytes_s: 0 })), Fault::Bandwidth),
        (faults(|s| s.limits.applying_s = 0), Fault::Limit(crate::machine::Kind::Applying)),
        (faults(|s| s.retries_max = 101), Fault::Retries),
    ];
    for (got, expected) in cases {
        assert_eq!(got, [expected]);
    }
}

#[test]
fn all_faults_are_named_at_once() {
    let got = faults(|s| {
        s.name = "".into();
        s.downloads_max = Some(0);
        s.groups = vec![group(Size::Trial(vec!["d1".into()])), group(Size::Percent(0))];
        s.filter.devices = BTreeSet::from(["d2".into()]);
    });
    let expected =
        [Fault::Name, Fault::Downloads, Fault::TrialNotListed("d1".into()), Fault::Size(2), Fault::LeavesSome];
    assert_eq!(got, expected);
}

#[test]
fn a_growing_rate() {
    let rate = Rate::Growing { base: 10, factor_permille: 1500, every: 100, max: 50 };
    for (succeeded, expected) in [(0, 10), (99, 10), (100, 15), (200, 22), (300, 33), (400, 50), (u32::MAX, 50)] {
        assert_eq!(rate.per_minute(succeeded), expected, "{succeeded}");
    }
    let slow = Rate::Growing { base: 1, factor_permille: 1001, every: 1, max: RATE_MAX };
    assert_eq!(slow.per_minute(u32::MAX), RATE_MAX);
    assert_eq!(Rate::Constant(7).per_minute(1_000_000), 7);
}

fn bounds(sizes: Vec<Size>, hashes: &[u64]) -> Vec<u64> {
    let mut settings = settings();
    settings.groups = sizes.into_iter().map(group).collect();
    Campaign::new(CampaignId(1), settings, 100).expect("no fault").bounds(hashes)
}

#[test]
fn groups_take_their_size_in_the_order_of_the_hashes() {
    let ten: Vec<u64> = (1..=10).map(|hash| hash * 100).collect();
    let sizes = || vec![Size::Devices(2), Size::Percent(25), Size::Rest];
    // Two; then three, since a part of a device counts as one.
    assert_eq!(bounds(sizes(), &ten), [300, 600, u64::MAX]);
    assert_eq!(
        bounds(vec![Size::Trial(vec!["d1".into()]), Size::Percent(10), Size::Percent(90)], &ten),
        [0, 200, u64::MAX]
    );
    assert_eq!(bounds(vec![Size::Devices(50), Size::Rest], &ten), [u64::MAX, u64::MAX]);
    assert_eq!(bounds(vec![Size::Percent(25), Size::Percent(75)], &[]), [u64::MAX / 100 * 25, u64::MAX]);
}

#[test]
fn a_campaign_takes_who_was_there_before_and_doesnt_have_it_yet() {
    let candidate = Candidate {
        product: "lamp",
        device: "d",
        version: Some("1.0"),
        hardware: None,
        tags: &[],
        region: None,
        created_at_s: 100,
    };
    let takes = |change: fn(&mut Settings), candidate: Candidate<'_>| {
        let mut settings = settings();
        change(&mut settings);
        Campaign::new(CampaignId(1), settings, 100).expect("no fault").takes(&candidate)
    };
    assert!(takes(|_| {}, candidate));
    assert!(!takes(|_| {}, Candidate { created_at_s: 101, ..candidate }));
    assert!(takes(|s| s.dynamic = true, Candidate { created_at_s: 101, ..candidate }));
    assert!(!takes(|_| {}, Candidate { version: Some("2.0"), ..candidate }));
    assert!(takes(|s| s.force = true, Candidate { version: Some("2.0"), ..candidate }));
    assert!(!takes(|_| {}, Candidate { product: "fan", ..candidate }));
}

#[test]
fn places_are_what_both_caps_allow() {
    let places = |downloads_max, bandwidth| {
        let settings = Settings { downloads_max, bandwidth, ..settings() };
        Campaign::new(CampaignId(1), settings, 100).expect("no fault").places()
    };
    let bandwidth = Some(Bandwidth { total_bytes_s: 1000, device_bytes_s: 300 });
    assert_eq!(places(None, None), u32::MAX);
    assert_eq!((places(Some(2), bandwidth), places(Some(9), bandwidth), places(None, bandwidth)), (2, 3, 3));
}

#[test]
fn a_record_of_other_groups_is_refused() {
    let life = Life { state: State::Running, bounds: vec![5], begun: 1, ..Life::draft(100) };
    assert!(Campaign::restored(CampaignId(1), settings(), life.clone()).is_ok());
    for other in [
        Life { bounds: vec![], ..life.clone() },
        Life { bounds: vec![5, 3], ..life.clone() },
        Life { begun: 2, ..life.clone() },
    ] {
        assert_eq!(Campaign::restored(CampaignId(1), settings(), other), Err(vec![Fault::Life]));
    }
}
