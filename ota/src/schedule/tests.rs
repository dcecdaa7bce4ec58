use super::*;
use crate::campaign::tests::{group, settings};
use crate::campaign::{Errors, Group, Rate, Refusal, Settings, Size, State as Phase};
use crate::filter::{Candidate, Filter, Versions};
use crate::machine::{Limits, State};

const ID: CampaignId = CampaignId(1);
const START_S: u64 = 1_000_000_000;

fn at(s: u64) -> Now {
    Now { mono_ms: s * 1000, unix_ms: (START_S + s) * 1000 }
}

pub(super) fn lamp(device: &str) -> Candidate<'_> {
    Candidate {
        product: "lamp",
        device,
        version: Some("1.0"),
        hardware: None,
        tags: &[],
        region: None,
        created_at_s: 0,
    }
}

fn campaign(id: u64, settings: Settings) -> Campaign {
    Campaign::new(CampaignId(id), settings, START_S + id).expect("no fault")
}

fn names(devices: usize) -> Vec<String> {
    (0..devices).map(|number| format!("d{number}")).collect()
}

/// A campaign for so many connected devices, before its first step.
fn with(devices: usize, settings: Settings) -> Scheduler {
    let mut scheduler = Scheduler::new();
    let names = names(devices);
    let added = scheduler.add(campaign(1, settings), names.iter().map(|name| lamp(name)), at(0));
    assert_eq!(added, Ok(vec![Action::Changed { campaign: ID }]));
    for name in &names {
        assert_eq!(scheduler.device_online("lamp", name, None, at(0)), []);
    }
    scheduler
}

/// Campaigns and devices that were sent an offer.
fn offers(scheduler: &Scheduler, actions: &[Action]) -> Vec<(u64, String)> {
    let offers = actions.iter().filter_map(|action| match action {
        Action::Offer { campaign, device, .. } => {
            Some((campaign.0, scheduler.name(*device).expect("a name").1.to_owned()))
        }
        _ => None,
    });
    offers.collect()
}

fn report(scheduler: &mut Scheduler, device: &str, report: Report<'_>, s: u64) -> Vec<Action> {
    scheduler.report("lamp", device, &settings().target, report, at(s)).expect("it has an offer")
}

fn fail(scheduler: &mut Scheduler, device: &str, retryable: bool, s: u64) -> Vec<Action> {
    report(scheduler, device, Report::Fail { retryable, reason: Reason::APPLY }, s)
}

fn phase(scheduler: &Scheduler, id: u64) -> Phase {
    scheduler.campaign(CampaignId(id)).expect("a campaign").life().state
}

fn state(scheduler: &Scheduler, id: u64, device: &str) -> State {
    scheduler.member(CampaignId(id), device).expect("a member").standing.state
}

#[test]
fn connected_devices_get_it_at_once_and_others_when_they_come() {
    let mut scheduler = Scheduler::new();
    let added = scheduler.add(campaign(1, settings()), [lamp("here"), lamp("away")], at(0));
    assert!(added.is_ok());
    let _ = scheduler.device_online("lamp", "here", None, at(0));
    let actions = scheduler.step(at(1));
    assert_eq!(offers(&scheduler, &actions), [(1, "here".to_owned())]);
    assert!(actions.contains(&Action::GroupBegins { campaign: ID, group: 0 }));
    let actions = scheduler.device_online("lamp", "away", None, at(2));
    assert_eq!(offers(&scheduler, &actions), [(1, "away".to_owned())]);
    for device in ["here", "away"] {
        report(&mut scheduler, device, Report::Progress(50), 3);
        report(&mut scheduler, device, Report::Applying, 4);
        report(&mut scheduler, device, Report::Version("2.0"), 5);
    }
    assert_eq!(phase(&scheduler, 1), Phase::Completed);
    assert_eq!(scheduler.count(ID, 0, Kind::Succeeded), 2);
}

#[test]
fn a_device_that_comes_back_gets_its_offer_again_until_it_applies() {
    let mut scheduler = with(1, settings());
    let _ = scheduler.step(at(1));
    report(&mut scheduler, "d0", Report::Progress(37), 2);
    scheduler.device_offline("lamp", "d0");
    let actions = scheduler.device_online("lamp", "d0", None, at(3));
    assert!(matches!(actions.as_slice(), [Action::Offer { again: true, .. }]));
    assert_eq!(state(&scheduler, 1, "d0"), State::Downloading(37));
    report(&mut scheduler, "d0", Report::Version("1.0"), 4);
    assert_eq!(state(&scheduler, 1, "d0"), State::Downloading(37));
    report(&mut scheduler, "d0", Report::Applying, 5);
    assert_eq!(scheduler.device_online("lamp", "d0", None, at(6)), []);
    report(&mut scheduler, "d0", Report::Version("1.0"), 7);
    assert_eq!(state(&scheduler, 1, "d0"), State::Failed { retryable: true });
}

#[test]
fn nothing_goes_out_before_the_approval_and_the_start() {
    let mut scheduler = with(1, Settings { approval: true, start_s: Some(START_S + 10), ..settings() });
    assert_eq!(scheduler.step(at(20)), []);
    assert_eq!(scheduler.approve(ID, "eve", at(21)).map(|actions| actions.len()), Ok(1));
    let approval = scheduler.campaign(ID).and_then(|campaign| campaign.life().approval.clone()).expect("approved");
    assert_eq!((&*approval.by, approval.at_s), ("eve", START_S + 21));
    assert_eq!(scheduler.approve(ID, "eve", at(21)), Err(Refusal::State(Phase::Scheduled)));
    let actions = scheduler.step(at(22));
    assert_eq!(offers(&scheduler, &actions).len(), 1);

    let mut early = with(1, Settings { start_s: Some(START_S + 10), end_s: Some(START_S + 20), ..settings() });
    assert_eq!(early.step(at(9)), []);
    let actions = early.step(at(10));
    assert_eq!(offers(&early, &actions).len(), 1);
    let actions = early.step(at(20));
    assert!(actions.contains(&Action::Stopped { campaign: ID, why: Why::Ended }));
    let _ = early.step(at(21));
    assert_eq!((phase(&early, 1), state(&early, 1, "d0")), (Phase::Stopped(Why::Ended), State::Cancelled));
}

#[test]
fn the_next_group_begins_at_the_threshold_of_the_one_before() {
    let first = Group { size: Size::Devices(4), success_percent: 75, errors: None };
    let mut scheduler = with(10, Settings { groups: vec![first, group(Size::Rest)], ..settings() });
    let actions = scheduler.step(at(1));
    let canaries = offers(&scheduler, &actions);
    assert_eq!(canaries.len(), 4);
    for (_, device) in canaries.iter().take(2) {
        report(&mut scheduler, device, Report::Version("2.0"), 2);
    }
    let actions = scheduler.step(at(3));
    assert_eq!(offers(&scheduler, &actions), []);
    let actions = report(&mut scheduler, &canaries[2].1, Report::Version("2.0"), 4);
    assert!(actions.contains(&Action::GroupBegins { campaign: ID, group: 1 }));
    let actions = scheduler.step(at(5));
    assert_eq!(offers(&scheduler, &actions).len(), 6);
}

#[test]
fn a_trial_is_first_and_has_to_be_there() {
    let groups = vec![group(Size::Trial(vec!["d7".into()])), group(Size::Rest)];
    let mut scheduler = with(10, Settings { groups: groups.clone(), ..settings() });
    let actions = scheduler.step(at(1));
    assert_eq!(offers(&scheduler, &actions), [(1, "d7".to_owned())]);

    let added = scheduler.add(campaign(2, Settings { groups, ..settings() }), [lamp("d1")], at(2));
    assert_eq!(added, Err(AddError::TrialAbsent(vec!["d7".into()])));
    assert!(scheduler.campaign(CampaignId(2)).is_none());
}

#[test]
fn errors_stop_a_campaign_and_who_applies_may_finish() {
    let only = Group { errors: Some(Errors::Percent(20)), ..group(Size::Rest) };
    let mut scheduler = with(10, Settings { groups: vec![only], downloads_max: Some(5), ..settings() });
    let actions = scheduler.step(at(1));
    let offered = offers(&scheduler, &actions);
    assert_eq!(offered.len(), 5);
    let device = |at: usize| offered[at].1.as_str();
    report(&mut scheduler, device(0), Report::Applying, 2);
    assert!(!fail(&mut scheduler, device(1), false, 3).contains(&Action::VoidTokens { campaign: ID }));
    let actions = fail(&mut scheduler, device(2), true, 3);
    assert!(actions.contains(&Action::VoidTokens { campaign: ID }));
    assert!(actions.contains(&Action::Stopped { campaign: ID, why: Why::Errors { group: 0 } }));
    let actions = scheduler.step(at(4));
    assert_eq!(offers(&scheduler, &actions), []);
    assert_eq!(phase(&scheduler, 1), Phase::Stopping(Why::Errors { group: 0 }));
    assert_eq!((scheduler.count(ID, 0, Kind::Cancelled), scheduler.count(ID, 0, Kind::Applying)), (7, 1));
    report(&mut scheduler, device(0), Report::Version("2.0"), 5);
    assert_eq!(phase(&scheduler, 1), Phase::Stopped(Why::Errors { group: 0 }));
    assert_eq!(scheduler.retry_failed(ID, at(6)), Err(Refusal::State(Phase::Stopped(Why::Errors { group: 0 }))));
}

#[test]
fn a_campaign_is_discarded_however_far_it_is_and_leaves_its_devices_to_others() {
    let mut scheduler = with(2, settings());
    let _ = scheduler.step(at(1));
    report(&mut scheduler, "d0", Report::Applying, 2);
    let names = names(2);
    assert!(scheduler.add(campaign(2, settings()), names.iter().map(|name| lamp(name)), at(3)).is_ok());
    assert_eq!(offers(&scheduler, &[]), []);
    let actions = scheduler.step(at(4));
    assert_eq!(offers(&scheduler, &actions), [], "they have one");
    assert!(scheduler.remove(ID).is_err() && scheduler.discard(ID) && !scheduler.discard(ID));
    assert!(scheduler.campaign(ID).is_none() && scheduler.active("lamp", "d0", &settings().target).is_none());
    let actions = scheduler.step(at(5));
    assert_eq!(offers(&scheduler, &actions), [(2, "d0".to_owned()), (2, "d1".to_owned())]);
    assert!(scheduler.discard(CampaignId(2)));
    assert_eq!(scheduler.step(at(6)), []);
}

#[test]
fn who_fails_is_tried_again_as_often_as_the_campaign_says() {
    let only = Group { errors: Some(Errors::Devices(1)), ..group(Size::Rest) };
    let mut scheduler = with(1, Settings { groups: vec![only], retries_max: 1, ..settings() });
    let _ = scheduler.step(at(1));
    fail(&mut scheduler, "d0", true, 2);
    let member = scheduler.member(ID, "d0").expect("a member");
    assert_eq!((member.standing.state, member.standing.reason, member.retries), (State::Queued, Reason::APPLY, 1));
    let actions = scheduler.step(at(3));
    assert_eq!(offers(&scheduler, &actions).len(), 1);
    fail(&mut scheduler, "d0", true, 4);
    assert_eq!(phase(&scheduler, 1), Phase::Stopped(Why::Errors { group: 0 }));
}

#[test]
fn an_operator_has_the_failed_ones_tried_again() {
    let mut scheduler = with(3, settings());
    let _ = scheduler.step(at(1));
    fail(&mut scheduler, "d0", true, 2);
    fail(&mut scheduler, "d1", false, 2);
    report(&mut scheduler, "d2", Report::Reject(Reason::USER), 2);
    assert_eq!(phase(&scheduler, 1), Phase::Completed);
    assert!(scheduler.retry_failed(ID, at(3)).is_ok());
    let actions = scheduler.step(at(4));
    assert_eq!(offers(&scheduler, &actions), [(1, "d0".to_owned())]);
    report(&mut scheduler, "d0", Report::Version("2.0"), 5);
    assert_eq!(phase(&scheduler, 1), Phase::Completed);
}

#[test]
fn a_campaign_that_waits_for_what_cant_come_says_so() {
    let mut scheduler = with(4, Settings { groups: vec![group(Size::Devices(1)), group(Size::Rest)], ..settings() });
    let actions = scheduler.step(at(1));
    let canary = offers(&scheduler, &actions)[0].1.clone();
    assert!(!scheduler.is_stuck(ID));
    fail(&mut scheduler, &canary, true, 2);
    assert!(scheduler.is_stuck(ID));
    assert!(scheduler.retry_failed(ID, at(3)).is_ok());
    let _ = scheduler.step(at(4));
    assert!(!scheduler.is_stuck(ID));
}

#[test]
fn whoever_says_nothing_times_out() {
    let limits = Limits { offered_s: 60, ..Limits::default() };
    let mut scheduler = with(1, Settings { limits, ..settings() });
    let _ = scheduler.step(at(1));
    let _ = scheduler.step(at(60));
    assert_eq!(state(&scheduler, 1, "d0"), State::Offered);
    let _ = scheduler.step(at(61));
    let standing = scheduler.member(ID, "d0").expect("a member").standing;
    assert_eq!((standing.state, standing.reason), (State::TimedOut, Reason::too_long(Kind::Offered)));
}

#[test]
fn caps_and_rates_hold_offers_back() {
    let mut scheduler = with(10, Settings { downloads_max: Some(3), ..settings() });
    let actions = scheduler.step(at(1));
    let first = offers(&scheduler, &actions);
    assert_eq!(first.len(), 3);
    assert!(
        offers(&scheduler, &scheduler.members(ID, 0).map(|_| Action::Changed { campaign: ID }).collect::<Vec<_>>())
            .is_empty()
    );
    report(&mut scheduler, &first[0].1, Report::Downloaded, 2);
    let actions = scheduler.step(at(3));
    assert_eq!(offers(&scheduler, &actions).len(), 1);

    let mut rated = with(100, Settings { rate: Some(Rate::Constant(60)), ..settings() });
    let sent: usize = (1..=30)
        .map(|s| {
            let actions = rated.step(at(s));
            offers(&rated, &actions).len()
        })
        .sum();
    assert!((30..=31).contains(&sent), "one a second: {sent}");
}

#[test]
fn windows_are_in_the_devices_zone() {
    let night = vec!["02:00-04:00".parse().expect("a window")];
    let mut scheduler = Scheduler::new();
    assert!(
        scheduler.add(campaign(1, Settings { windows: night, ..settings() }), [lamp("cn"), lamp("uk")], at(0)).is_ok()
    );
    let midnight = 86_400 - START_S % 86_400;
    let _ = scheduler.device_online("lamp", "cn", "+08:00".parse().ok(), at(0));
    let _ = scheduler.device_online("lamp", "uk", None, at(0));
    let mut sent = |hour: u64| {
        let actions = scheduler.step(at(midnight + hour * 3600));
        offers(&scheduler, &actions)
    };
    assert_eq!(sent(0), []);
    assert_eq!(sent(2), [(1, "uk".to_owned())]);
    assert_eq!(sent(17), []);
    assert_eq!(sent(18), [(1, "cn".to_owned())]);
}

#[test]
fn a_device_that_says_its_zone_stands_in_that_ones_line() {
    let night = vec!["02:00-04:00".parse().expect("a window")];
    let settings = Settings { windows: night, zone: "+08:00".parse().expect("a zone"), ..settings() };
    let mut scheduler = Scheduler::new();
    assert!(scheduler.add(campaign(1, settings), [lamp("silent"), lamp("moves")], at(0)).is_ok());
    let midnight = 86_400 - START_S % 86_400;
    // In line by the campaign's zone, and by one that it leaves.
    assert_eq!(scheduler.device_online("lamp", "silent", None, at(1)), []);
    assert_eq!(scheduler.device_online("lamp", "moves", "+05:00".parse().ok(), at(1)), []);
    for s in 0..3 {
        let actions = scheduler.step(at(midnight + s));
        assert_eq!(offers(&scheduler, &actions), []);
    }
    // It is half past two where they are.
    let utc = "+00:00".parse().ok();
    let mut actions = scheduler.device_online("lamp", "silent", utc, at(midnight + 9000));
    actions.extend(scheduler.device_online("lamp", "moves", utc, at(midnight + 9000)));
    actions.extend(scheduler.step(at(midnight + 9001)));
    assert_eq!(offers(&scheduler, &actions), [(1, "silent".to_owned()), (1, "moves".to_owned())]);
}

#[test]
fn a_paused_campaign_offers_nothing_new() {
    let mut scheduler = with(2, Settings { downloads_max: Some(1), ..settings() });
    let actions = scheduler.step(at(1));
    let first = offers(&scheduler, &actions)[0].1.clone();
    assert!(scheduler.pause(ID, at(2)).is_ok());
    report(&mut scheduler, &first, Report::Version("2.0"), 3);
    assert_eq!(scheduler.step(at(4)), []);
    assert!(scheduler.resume(ID, at(5)).is_ok());
    let actions = scheduler.step(at(6));
    assert_eq!(offers(&scheduler, &actions).len(), 1);
}

#[test]
fn the_campaign_with_the_higher_priority_has_a_device_then_the_other_one() {
    let mut scheduler = with(1, settings());
    let high = Settings { priority: 5, version: "3.0".parse().expect("a version"), ..settings() };
    assert!(scheduler.add(campaign(2, high), [lamp("d0")], at(0)).is_ok());
    let other = Settings { target: "module".parse().expect("a target"), ..settings() };
    assert!(scheduler.add(campaign(3, other), [lamp("d0")], at(0)).is_ok());
    let actions = scheduler.step(at(1));
    assert_eq!(offers(&scheduler, &actions), [(2, "d0".to_owned()), (3, "d0".to_owned())]);
    assert_eq!(scheduler.active("lamp", "d0", &settings().target), Some(CampaignId(2)));
    report(&mut scheduler, "d0", Report::Reject(Reason::BUSY), 2);
    let actions = scheduler.step(at(3));
    assert_eq!(offers(&scheduler, &actions), [(1, "d0".to_owned())]);
}

#[test]
fn a_campaign_that_stops_leaves_its_devices_to_others() {
    let mut scheduler = with(1, settings());
    let high = Settings { priority: 5, windows: vec!["00:00-00:01".parse().expect("a window")], ..settings() };
    assert!(scheduler.add(campaign(2, high), [lamp("d0")], at(0)).is_ok());
    let actions = scheduler.step(at(1));
    assert_eq!(offers(&scheduler, &actions), []);
    assert!(scheduler.stop(CampaignId(2), at(2)).is_ok());
    let actions = scheduler.step(at(3));
    assert_eq!(offers(&scheduler, &actions), [(1, "d0".to_owned())]);
}

#[test]
fn devices_that_appear_later_come_into_dynamic_campaigns_alone() {
    let mut scheduler = with(1, Settings { dynamic: true, ..settings() });
    let _ = scheduler.step(at(1));
    let _ = scheduler.device_online("lamp", "new", None, at(2));
    let actions =
        scheduler.candidate_appeared("lamp", |_| Candidate { created_at_s: START_S + 100, ..lamp("new") }, at(2));
    assert_eq!(offers(&scheduler, &actions), [(1, "new".to_owned())]);
    let actions = scheduler.candidate_appeared("lamp", |_| lamp("new"), at(3));
    assert_eq!((actions, scheduler.members(ID, 0).count()), (vec![], 2));

    let mut fixed = with(1, settings());
    let _ = fixed.step(at(1));
    assert_eq!(fixed.candidate_appeared("lamp", |_| lamp("new"), at(2)), []);
}

#[test]
fn each_target_of_a_device_has_its_own_version() {
    let of = |target: &str| Settings {
        target: target.parse().expect("a target"),
        dynamic: true,
        filter: Filter { versions: Versions::Of(["1.0".into()].into()), ..settings().filter },
        ..settings()
    };
    let mut scheduler = with(1, of("mcu"));
    assert!(scheduler.add(campaign(2, of("radio")), [], at(0)).is_ok());
    let _ = scheduler.step(at(1));
    let _ = scheduler.device_online("lamp", "new", None, at(2));
    let new = |target: &Target| {
        let version = if target.as_str() == "radio" { "1.0" } else { "0.9" };
        Candidate { version: Some(version), ..lamp("new") }
    };
    let actions = scheduler.candidate_appeared("lamp", new, at(2));
    assert_eq!(offers(&scheduler, &actions), [(2, "new".to_owned())]);
    assert_eq!((scheduler.member(ID, "new"), scheduler.members(CampaignId(2), 0).count()), (None, 1));
}

/// Devices with the tag are meant. What [`Scheduler::hold`] gives is kept as the shell keeps it, and a restart finds everybody where they were.
#[test]
fn a_change_of_tags_moves_nobody_in_groups_that_are_drawn() {
    let beta: [Box<str>; 1] = ["beta".into()];
    let tagged = |device| Candidate { tags: &beta, ..lamp(device) };
    for dynamic in [false, true] {
        let filter = Filter { tags: ["beta".into()].into(), ..settings().filter };
        let settings = Settings { filter, dynamic, downloads_max: Some(1), ..settings() };
        let mut scheduler = Scheduler::new();
        let before = [tagged("stays"), tagged("leaves"), lamp("comes"), lamp("never")];
        assert!(scheduler.add(campaign(1, settings), before, at(0)).is_ok());
        let _ = scheduler.step(at(1));

        let held = scheduler.hold("lamp", "leaves", |_| lamp("leaves"));
        let [Held::In { campaign: ID, standing, retries }] = held[..] else { panic!("{held:?}") };
        let left = Recorded { device: "leaves".into(), standing, retries };
        let held = scheduler.hold("lamp", "comes", |_| tagged("comes"));
        assert_eq!(held, if dynamic { vec![] } else { vec![Held::Out { campaign: ID }] });
        assert_eq!(scheduler.hold("lamp", "stays", |_| tagged("stays")), [], "nothing has changed");
        assert_eq!(scheduler.hold("lamp", "never", |_| lamp("never")), []);
        assert_eq!(scheduler.hold("fan", "stays", |_| lamp("stays")), []);
        let _ = scheduler.candidate_appeared("lamp", |_| tagged("comes"), at(2));

        let members = |scheduler: &Scheduler| {
            let found = scheduler.members(ID, 0).map(|(_, member)| {
                (
                    scheduler.name(member.device).expect("a name").1.to_owned(),
                    member.group,
                    member.standing.state.kind(),
                )
            });
            let mut found: Vec<_> = found.collect();
            found.sort();
            found
        };
        let now = members(&scheduler);
        assert_eq!(now.len(), if dynamic { 3 } else { 2 }, "{now:?}");
        let kept = scheduler.campaign(ID).expect("a campaign");
        let kept = Campaign::restored(ID, kept.settings().clone(), kept.life().clone()).expect("no fault");
        let mut again = Scheduler::new();
        let after = [tagged("stays"), lamp("leaves"), tagged("comes"), lamp("never")];
        let drawn = after.into_iter().filter(|candidate| dynamic || candidate.device != "comes");
        assert_eq!(again.restore(kept, drawn, vec![left], at(9)), Ok(()));
        assert_eq!(members(&again), now);
    }
}

#[test]
fn a_device_that_has_the_version_already_has_succeeded() {
    let mut scheduler = with(2, Settings { downloads_max: Some(1), ..settings() });
    let actions = scheduler.step(at(1));
    let first = offers(&scheduler, &actions)[0].1.clone();
    let other = if first == "d0" { "d1" } else { "d0" };
    report(&mut scheduler, other, Report::Version("2.0"), 2);
    let standing = scheduler.member(ID, other).expect("a member").standing;
    assert_eq!((standing.state, standing.reason), (State::Succeeded, Reason::ALREADY));
}

#[test]
fn reports_without_an_offer_are_refused() {
    let mut scheduler = with(1, settings());
    let target = settings().target;
    for device in ["d0", "stranger"] {
        let got = scheduler.report("lamp", device, &target, Report::Downloaded, at(1));
        assert_eq!(got, Err(ReportError::NoOffer));
        assert_eq!(scheduler.report("lamp", device, &target, Report::Version("1.0"), at(1)), Ok(vec![]));
    }
    let _ = scheduler.step(at(1));
    report(&mut scheduler, "d0", Report::Applying, 2);
    let got = scheduler.report("lamp", "d0", &target, Report::Reject(Reason::BUSY), at(3));
    assert!(matches!(got, Err(ReportError::Impossible(_))));
}

#[test]
fn devices_that_are_gone_hold_nothing_up_and_leave_nothing_behind() {
    let mut scheduler = with(2, settings());
    let _ = scheduler.step(at(1));
    report(&mut scheduler, "d0", Report::Version("2.0"), 2);
    let _ = scheduler.device_gone("lamp", "d1", at(3));
    assert_eq!(phase(&scheduler, 1), Phase::Completed);
    scheduler.device_offline("lamp", "d0");
    let _ = scheduler.device_online("lamp", "stranger", None, at(4));
    scheduler.device_offline("lamp", "stranger");
    assert_eq!(scheduler.directory.len(), 2);
    assert_eq!(scheduler.remove(ID), Ok(()));
    assert_eq!(scheduler.directory.len(), 0);
    assert_eq!(scheduler.remove(ID), Err(Refusal::Unknown));
}

#[test]
fn what_cant_be_added() {
    let mut scheduler = with(1, settings());
    let add = |scheduler: &mut Scheduler, id, settings| scheduler.add(campaign(id, settings), [lamp("d0")], at(0));
    assert_eq!(add(&mut scheduler, 1, settings()), Err(AddError::Exists));
    let mut nobody = settings();
    nobody.filter.tags.insert("none".into());
    assert_eq!(add(&mut scheduler, 2, nobody.clone()), Err(AddError::Nobody));
    assert!(add(&mut scheduler, 2, Settings { dynamic: true, ..nobody }).is_ok());
    let again = scheduler.campaign(CampaignId(2)).expect("a campaign").clone();
    assert_eq!(
        Scheduler::new().add(again, [lamp("d0")], at(0)),
        Err(AddError::State(Refusal::State(Phase::Scheduled)))
    );
    for id in 3..=LIVE_MAX as u64 {
        assert!(add(&mut scheduler, id, settings()).is_ok());
    }
    assert_eq!(add(&mut scheduler, 1000, settings()), Err(AddError::TooManyLive));
}

#[test]
fn an_offer_that_cannot_be_made_yet_waits_until_the_device_says_more() {
    let mut scheduler = with(1, settings());
    let actions = scheduler.step(at(1));
    let Some(Action::Offer { campaign, device, .. }) =
        actions.iter().find(|action| matches!(action, Action::Offer { .. }))
    else {
        panic!("an offer: {actions:?}");
    };
    let (campaign, device) = (*campaign, *device);
    let withheld = scheduler.withhold(campaign, device, Reason::HARDWARE_UNKNOWN, at(2));
    assert!(
        matches!(withheld.as_slice(), [Action::DeviceChanged { standing, .. }]
        if standing.state == State::Queued && standing.reason == Reason::HARDWARE_UNKNOWN),
        "{withheld:?}"
    );
    // Nobody is asked at each step.
    for s in 3..20 {
        let actions = scheduler.step(at(s));
        assert_eq!(offers(&scheduler, &actions), []);
    }
    assert_eq!(scheduler.withhold(campaign, device, Reason::HARDWARE_UNKNOWN, at(21)), []);
    let again = scheduler.device_online("lamp", "d0", None, at(22));
    assert_eq!(offers(&scheduler, &again), [(1, "d0".to_owned())]);
    assert_eq!(state(&scheduler, 1, "d0"), State::Offered);
}

#[test]
fn an_offer_that_isnt_made_costs_none_of_the_rate() {
    let mut scheduler = with(2, Settings { rate: Some(Rate::Constant(1)), ..settings() });
    let mut asked = |s| match &scheduler.step(at(s))[..] {
        [.., Action::Offer { campaign, device, .. }] => {
            let withheld = scheduler.withhold(*campaign, *device, Reason::HARDWARE_UNKNOWN, at(s));
            assert_eq!(withheld.len(), 1);
            true
        }
        _ => false,
    };
    assert!(asked(1) && asked(2), "in the next second already");
    assert!(!asked(3), "both are asked");
}

/// A restart from what the scheduler knows of a campaign, and from these records.
fn again(scheduler: &Scheduler, records: Vec<Recorded>, after: &[Candidate<'_>]) -> Scheduler {
    let kept = scheduler.campaign(ID).expect("a campaign");
    let kept = Campaign::restored(ID, kept.settings().clone(), kept.life().clone()).expect("no fault");
    let mut again = Scheduler::new();
    assert_eq!(again.restore(kept, after.iter().copied(), records, at(9)), Ok(()));
    again
}

#[test]
fn what_an_operator_wants_tried_again_is_tried_after_a_restart() {
    let mut scheduler = with(2, settings());
    let _ = scheduler.step(at(1));
    fail(&mut scheduler, "d0", true, 2);
    fail(&mut scheduler, "d1", false, 2);
    assert_eq!(phase(&scheduler, 1), Phase::Completed);
    let ordered = scheduler.retry_failed(ID, at(3));
    assert_eq!(ordered, Ok(vec![Action::Changed { campaign: ID }]));
    let records = ["d0", "d1"].map(|name| {
        let member = scheduler.member(ID, name).expect("a member");
        Recorded { device: name.into(), standing: member.standing, retries: member.retries }
    });
    let mut again = again(&scheduler, records.into(), &[lamp("d0"), lamp("d1")]);
    let _ = again.device_online("lamp", "d0", None, at(9));
    let first = again.step(at(10));
    assert!(first.contains(&Action::Changed { campaign: ID }));
    assert_eq!((state(&again, 1, "d0"), state(&again, 1, "d1")), (State::Offered, State::Failed { retryable: false }));
    assert!(!again.campaign(ID).expect("a campaign").life().retrying, "it is done");
    report(&mut again, "d0", Report::Version("2.0"), 11);
    assert_eq!(phase(&again, 1), Phase::Completed);
}

#[test]
fn a_campaign_that_isnt_on_disk_does_nothing_and_may_never_have_been() {
    let mut scheduler = Scheduler::new();
    assert_eq!(scheduler.prepare(campaign(1, settings()), [lamp("d0")], at(0)), Ok(()));
    assert!(scheduler.is_prepared(ID));
    assert_eq!(scheduler.device_online("lamp", "d0", None, at(1)), []);
    assert_eq!(scheduler.step(at(2)), []);
    scheduler.withdraw(ID);
    assert!(scheduler.campaign(ID).is_none() && !scheduler.is_prepared(ID));
    scheduler.device_offline("lamp", "d0");
    assert_eq!(scheduler.directory.len(), 0);

    assert_eq!(scheduler.prepare(campaign(1, settings()), [lamp("d0")], at(3)), Ok(()));
    let _ = scheduler.device_online("lamp", "d0", None, at(4));
    scheduler.admit(ID);
    assert!(!scheduler.is_prepared(ID));
    let actions = scheduler.step(at(5));
    assert_eq!(offers(&scheduler, &actions), [(1, "d0".to_owned())]);
    scheduler.withdraw(ID);
    assert_eq!(state(&scheduler, 1, "d0"), State::Offered, "it is under way");
}

/// The filter is for a version, which devices report anew.
#[test]
fn a_report_moves_nobody_in_groups_that_are_drawn() {
    let runs = |device, version| Candidate { version: Some(version), ..lamp(device) };
    let filter = Filter { versions: Versions::Of(["1.0".into()].into()), ..settings().filter };
    let mut scheduler = Scheduler::new();
    let before = [runs("stays", "1.0"), runs("leaves", "1.0"), runs("comes", "0.9")];
    assert!(scheduler.add(campaign(1, Settings { filter, ..settings() }), before, at(0)).is_ok());
    let held = scheduler.hold("lamp", "leaves", |_| runs("leaves", "1.1"));
    let [Held::In { campaign: ID, standing, retries }] = held[..] else { panic!("{held:?}") };
    let left = Recorded { device: "leaves".into(), standing, retries };
    assert_eq!(scheduler.hold("lamp", "comes", |_| runs("comes", "1.0")), [Held::Out { campaign: ID }]);
    // Who is left out is no candidate.
    let again = again(&scheduler, vec![left], &[runs("stays", "1.0"), runs("leaves", "1.1")]);
    assert_eq!(again.members(ID, 0).count(), 2);
    assert_eq!(state(&again, 1, "leaves"), State::Queued);
}

#[test]
fn a_device_as_old_as_the_campaign_needs_a_record_to_be_in_it_after_a_restart() {
    let born = START_S + 1;
    let young = |device| Candidate { created_at_s: born, ..lamp(device) };
    let mut scheduler = Scheduler::new();
    assert!(scheduler.add(campaign(1, settings()), [young("first"), lamp("old")], at(1)).is_ok());
    assert_eq!(scheduler.members(ID, 0).count(), 2);
    let first = Recorded { device: "first".into(), standing: Standing::queued(0), retries: 0 };
    let after = [young("first"), young("later, in the same second"), lamp("old")];
    let again = again(&scheduler, vec![first], &after);
    assert_eq!(again.members(ID, 0).count(), 2);
    assert!(again.member(ID, "first").is_some() && again.member(ID, "old").is_some());
}

#[test]
fn a_restart_gives_no_offer_for_nothing() {
    let rated = Settings { rate: Some(Rate::Constant(6)), ..settings() };
    let mut scheduler = with(3, rated);
    let _ = scheduler.step(at(1));
    let names = names(3);
    let candidates: Vec<_> = names.iter().map(|name| lamp(name)).collect();
    let mut again = again(&scheduler, Vec::new(), &candidates);
    for name in &names {
        let actions = again.device_online("lamp", name, None, at(10));
        assert_eq!(offers(&again, &actions), []);
    }
    let actions = again.step(at(20));
    assert_eq!(offers(&again, &actions).len(), 1, "ten seconds' worth");
}
