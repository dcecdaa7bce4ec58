//! Random events, against a model that keeps one state for each device and looks at all of them for everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::lamp;
use super::*;
use crate::campaign::tests::settings;
use crate::campaign::{Bandwidth, Errors, Group, Rate, Settings, Size, State as Phase};
use crate::machine::{Limits, State};
use crate::zone::{Window, is_open};

const DEVICES: usize = 12;
const CAMPAIGNS: u64 = 3;
const START_S: u64 = 1_000_000_000;
const ZONES: [i16; 3] = [0, 480, -210];

#[derive(Clone, Debug)]
enum Op {
    Step { seconds: u64 },
    Online { device: usize, zone: usize },
    Offline { device: usize },
    Report { device: usize, event: usize },
    Appear { device: usize },
    Gone { device: usize },
    Pause { campaign: u64 },
    Resume { campaign: u64 },
    Stop { campaign: u64 },
    Retry { campaign: u64 },
}

const REPORTS: [Report<'static>; 15] = [
    Report::Accept,
    Report::Progress(20),
    Report::Progress(80),
    Report::Downloaded,
    Report::Verified,
    Report::Applying,
    Report::Version("2.0"),
    Report::Version("2.0"),
    Report::Version("1.0"),
    Report::Fail { retryable: true, reason: Reason::SPACE },
    Report::Fail { retryable: false, reason: Reason::SPACE },
    Report::Fail { retryable: false, reason: Reason::SPACE },
    Report::Fail { retryable: false, reason: Reason::SPACE },
    Report::Fail { retryable: false, reason: Reason::SPACE },
    Report::Reject(Reason::BUSY),
];

fn op() -> impl Strategy<Value = Op> {
    let device = 0..DEVICES;
    let campaign = 1..=CAMPAIGNS;
    prop_oneof![
        12 => prop_oneof![4 => 0..5u64, 2 => 5..200u64, 1 => 3000..30_000u64].prop_map(|seconds| Op::Step { seconds }),
        16 => (device.clone(), 0..=ZONES.len()).prop_map(|(device, zone)| Op::Online { device, zone }),
        2 => device.clone().prop_map(|device| Op::Offline { device }),
        30 => (device.clone(), 0..REPORTS.len()).prop_map(|(device, event)| Op::Report { device, event }),
        1 => device.clone().prop_map(|device| Op::Appear { device }),
        1 => device.prop_map(|device| Op::Gone { device }),
        1 => campaign.clone().prop_map(|campaign| Op::Pause { campaign }),
        2 => campaign.clone().prop_map(|campaign| Op::Resume { campaign }),
        1 => (campaign.clone(), 0..3u8).prop_map(|(campaign, dice)| {
            if dice == 0 { Op::Stop { campaign } } else { Op::Retry { campaign } }
        }),
        1 => campaign.prop_map(|campaign| Op::Retry { campaign }),
    ]
}

fn group(size: Size) -> impl Strategy<Value = Group> {
    let errors = prop_oneof![
        3 => Just(None),
        1 => (1..4u32).prop_map(|count| Some(Errors::Devices(count))),
        1 => (20..=100u8).prop_map(|percent| Some(Errors::Percent(percent))),
    ];
    (prop::sample::select(vec![30u8, 50, 100]), errors).prop_map(move |(success_percent, errors)| Group {
        size: size.clone(),
        success_percent,
        errors,
    })
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    prop_oneof![
        group(Size::Rest).prop_map(|only| vec![only]),
        (group(Size::Trial(vec!["d3".into()])), group(Size::Devices(3)), group(Size::Rest))
            .prop_map(|(first, second, third)| vec![first, second, third]),
        (group(Size::Percent(20)), group(Size::Percent(80))).prop_map(|(first, second)| vec![first, second]),
    ]
}

fn some_settings() -> impl Strategy<Value = Settings> {
    let window = prop::option::weighted(0.3, (0..1440u16, 1..1440u16));
    let windows = window.prop_map(|window| {
        let window = window.and_then(|(from, length)| Window::new(from, (from + length) % 1440).ok());
        window.into_iter().collect::<Vec<_>>()
    });
    let rate = prop_oneof![
        2 => Just(None),
        1 => (1..200u32).prop_map(|rate| Some(Rate::Constant(rate))),
        1 => Just(Some(Rate::Growing { base: 2, factor_permille: 2000, every: 2, max: 40 })),
    ];
    let bandwidth = Some(Bandwidth { total_bytes_s: 1000, device_bytes_s: 250 });
    let caps = (prop::option::of(1..5u32), prop::sample::select(vec![None, bandwidth]));
    (groups(), windows, rate, caps, 0..3u8, any::<bool>(), 0..3u8).prop_map(
        |(groups, windows, rate, (downloads_max, bandwidth), priority, dynamic, retries_max)| Settings {
            groups,
            windows,
            rate,
            downloads_max,
            bandwidth,
            priority,
            dynamic,
            retries_max,
            limits: Limits { offered_s: 600, downloading_s: 3600, ..Limits::default() },
            ..settings()
        },
    )
}

struct Model {
    scheduler: Scheduler,
    now_s: u64,
    connected: BTreeMap<usize, Zone>,
    zones: BTreeMap<usize, Zone>,
    /// Devices that there are; the rest may appear.
    present: BTreeSet<usize>,
    /// By campaign: the states of its devices, as the actions said.
    states: BTreeMap<u64, BTreeMap<usize, (Standing, u8)>>,
    begun: BTreeMap<u64, u8>,
    offers_ms: BTreeMap<u64, Vec<u64>>,
    /// Of each campaign, the group of each device.
    groups: BTreeMap<u64, Vec<u8>>,
}

fn name(device: usize) -> String {
    format!("d{device}")
}

impl Model {
    fn now(&self) -> Now {
        Now { mono_ms: self.now_s * 1000, unix_ms: (START_S + self.now_s) * 1000 }
    }

    fn campaign(&self, id: u64) -> &Campaign {
        self.scheduler.campaign(CampaignId(id)).expect("a campaign")
    }

    /// What the model thinks a device's state is, given what becomes of the queue of a campaign that stops.
    fn kinds(&self, id: u64) -> impl Iterator<Item = (usize, Kind)> {
        let stops = matches!(self.campaign(id).life().state, Phase::Stopping(_) | Phase::Stopped(_));
        self.states[&id].iter().map(move |(device, (standing, _))| match standing.state.kind() {
            Kind::Queued if stops => (*device, Kind::Cancelled),
            kind => (*device, kind),
        })
    }

    fn count(&self, id: u64, group: u8, kind: Kind) -> usize {
        self.kinds(id).filter(|(device, other)| *other == kind && self.groups[&id][*device] == group).count()
    }

    fn apply(&mut self, actions: &[Action], before: &BTreeMap<u64, Phase>) {
        for action in actions {
            match *action {
                Action::DeviceChanged { campaign, device, standing, retries } => {
                    let device = self.device(device);
                    self.states.get_mut(&campaign.0).expect("a campaign").insert(device, (standing, retries));
                }
                Action::Offer { campaign, device, again } => {
                    self.check_offer(campaign.0, self.device(device), again, before);
                }
                Action::GroupBegins { campaign, group } => {
                    assert_eq!(self.begun.insert(campaign.0, group + 1).unwrap_or(0), group);
                    if group > 0 {
                        self.check_passed(campaign.0, group - 1);
                    }
                }
                Action::Changed { .. } | Action::VoidTokens { .. } | Action::Stopped { .. } => {}
            }
        }
    }

    fn device(&self, key: DeviceKey) -> usize {
        let (product, device) = self.scheduler.name(key).expect("a name");
        assert_eq!(product, "lamp");
        device[1..].parse().expect("a number")
    }

    fn check_passed(&self, id: u64, group: u8) {
        let total: usize = Kind::ALL.iter().map(|kind| self.count(id, group, *kind)).sum();
        let counted = total - self.count(id, group, Kind::Cancelled);
        let wanted = self.campaign(id).settings().groups[usize::from(group)].success_percent;
        let succeeded = self.count(id, group, Kind::Succeeded);
        assert!(succeeded * 100 >= usize::from(wanted) * counted, "{succeeded} of {counted}, wanted {wanted} %");
    }

    fn check_offer(&mut self, id: u64, device: usize, again: bool, before: &BTreeMap<u64, Phase>) {
        let kind = self.states[&id][&device].0.state.kind();
        assert!(self.connected.contains_key(&device));
        if again {
            assert!(kind.is_under_way() && kind != Kind::Applying);
            return;
        }
        assert_eq!(kind, Kind::Offered);
        // It ran before this, or was to start.
        assert!(matches!(before[&id], Phase::Running | Phase::Scheduled), "{:?}", before[&id]);
        let campaign = self.campaign(id);
        assert!(self.groups[&id][device] < self.begun[&id]);
        let zone = self.zones.get(&device).copied().unwrap_or(campaign.settings().zone);
        assert!(is_open(&campaign.settings().windows, zone, self.now().unix_s()), "outside of its windows");
        let rate = campaign.settings().rate;
        let mut offers = self.offers_ms.remove(&id).unwrap_or_default();
        offers.push(self.now().mono_ms);
        let most = match rate {
            None => None,
            Some(Rate::Constant(rate)) => Some(rate),
            Some(Rate::Growing { max, .. }) => Some(max),
        };
        if let Some(rate) = most {
            let last = *offers.last().expect("just pushed");
            for (at, first) in offers.iter().enumerate() {
                let earned_ms = (last - first) * u64::from(rate) + (u64::from(rate) * 5000).max(60_000);
                assert!((offers.len() - at) as u64 * 60_000 <= earned_ms, "{rate} a minute: {offers:?}");
            }
        }
        self.offers_ms.insert(id, offers);
    }

    /// What holds after each operation.
    fn check(&self) {
        let mut active = BTreeMap::<usize, u64>::new();
        for id in 1..=CAMPAIGNS {
            let campaign = self.campaign(id);
            let groups = &campaign.settings().groups;
            for (group, wanted) in (0..).zip(groups) {
                for kind in Kind::ALL {
                    let expected = self.count(id, group, kind);
                    assert_eq!(self.scheduler.count(CampaignId(id), group, kind) as usize, expected, "{kind:?}");
                }
                let errors = self.count(id, group, Kind::Failed) + self.count(id, group, Kind::TimedOut);
                let total: usize = Kind::ALL.iter().map(|kind| self.count(id, group, *kind)).sum();
                let reached = match wanted.errors {
                    None => false,
                    Some(Errors::Devices(count)) => errors >= count as usize,
                    Some(Errors::Percent(percent)) => errors > 0 && errors * 100 >= usize::from(percent) * total,
                };
                assert!(
                    !(reached && campaign.life().state.is_under_way()),
                    "{errors} errors of {total} in group {group}"
                );
            }
            let mut taken = 0;
            for (device, kind) in self.kinds(id) {
                let member = self.scheduler.member(CampaignId(id), &name(device)).expect("a member");
                assert_eq!(member.standing.state.kind(), kind);
                assert_eq!(member.group, self.groups[&id][device]);
                taken += u32::from(matches!(kind, Kind::Offered | Kind::Accepted | Kind::Downloading));
                if kind.is_under_way() {
                    assert_eq!(active.insert(device, id), None, "two active campaigns");
                    assert!(!campaign.life().state.is_final());
                }
            }
            assert!(taken <= campaign.places(), "{taken} downloads");
        }
    }

    /// A device in line for a campaign of lower rank isn't offered anything while a higher one has it.
    fn check_ranks(&self, actions: &[Action], before: &BTreeMap<u64, BTreeMap<usize, (Standing, u8)>>) {
        for action in actions {
            let Action::Offer { campaign, device, again: false } = *action else { continue };
            let device = self.device(device);
            let rank = |id: u64| (Reverse(self.campaign(id).settings().priority), id);
            for other in (1..=CAMPAIGNS).filter(|other| rank(*other) < rank(campaign.0)) {
                let queued = |states: &BTreeMap<u64, BTreeMap<usize, (Standing, u8)>>| {
                    states[&other].get(&device).is_some_and(|(standing, _)| standing.state == State::Queued)
                };
                let has = queued(before) && queued(&self.states) && self.campaign(other).life().state.is_under_way();
                assert!(!has, "{} was before {}", other, campaign.0);
            }
        }
    }

    fn run(&mut self, op: &Op) {
        let phases: BTreeMap<u64, Phase> = (1..=CAMPAIGNS).map(|id| (id, self.campaign(id).life().state)).collect();
        let states = self.states.clone();
        let now = self.now();
        let actions = match *op {
            Op::Step { seconds } => {
                self.now_s += seconds;
                self.scheduler.step(self.now())
            }
            Op::Online { device, zone } => {
                let zone = ZONES.get(zone).and_then(|minutes| Zone::from_minutes(*minutes).ok());
                if let Some(zone) = zone {
                    self.zones.insert(device, zone);
                }
                self.connected.insert(device, zone.unwrap_or_default());
                self.scheduler.device_online("lamp", &name(device), zone, now)
            }
            Op::Offline { device } => {
                self.connected.remove(&device);
                self.scheduler.device_offline("lamp", &name(device));
                // Nobody remembers the zone of a device that is in no campaign.
                if !self.states.values().any(|states| states.contains_key(&device)) {
                    self.zones.remove(&device);
                }
                Vec::new()
            }
            Op::Report { device, event } => {
                let target = settings().target;
                self.scheduler.report("lamp", &name(device), &target, REPORTS[event], now).unwrap_or_default()
            }
            Op::Appear { device } => {
                self.present.insert(device);
                for id in 1..=CAMPAIGNS {
                    let campaign = self.campaign(id);
                    let over = campaign.life().state.is_final() || matches!(campaign.life().state, Phase::Stopping(_));
                    if campaign.settings().dynamic && !over {
                        let queued = (Standing::queued(0), 0);
                        self.states.get_mut(&id).expect("a campaign").entry(device).or_insert(queued);
                    }
                }
                let new = name(device);
                self.scheduler.candidate_appeared("lamp", |_| lamp(&new), now)
            }
            Op::Gone { device } => {
                self.connected.remove(&device);
                if !self.states.values().any(|states| states.contains_key(&device)) {
                    self.zones.remove(&device);
                }
                self.scheduler.device_gone("lamp", &name(device), now)
            }
            Op::Pause { campaign } => self.scheduler.pause(CampaignId(campaign), now).unwrap_or_default(),
            Op::Resume { campaign } => self.scheduler.resume(CampaignId(campaign), now).unwrap_or_default(),
            Op::Stop { campaign } => self.scheduler.stop(CampaignId(campaign), now).unwrap_or_default(),
            Op::Retry { campaign } => self.scheduler.retry_failed(CampaignId(campaign), now).unwrap_or_default(),
        };
        self.apply(&actions, &phases);
        self.check_ranks(&actions, &states);
        self.check();
    }

    /// From records, a scheduler that knows the same.
    fn check_restart(&self) {
        let mut again = Scheduler::new();
        for id in 1..=CAMPAIGNS {
            let campaign = self.campaign(id);
            let records = self.states[&id]
                .iter()
                .filter(|(_, (standing, retries))| standing.state != State::Queued || *retries > 0);
            let records = records.map(|(device, (standing, retries))| Recorded {
                device: name(*device).into(),
                standing: *standing,
                retries: *retries,
            });
            let names: Vec<String> = self.states[&id].keys().map(|device| name(*device)).collect();
            let (settings, life) = (campaign.settings().clone(), campaign.life().clone());
            let campaign = Campaign::restored(CampaignId(id), settings, life).expect("no fault");
            let candidates = names.iter().map(|name| lamp(name));
            again.restore(campaign, candidates, records.collect(), self.now()).expect("it is as it was");
        }
        for id in (1..=CAMPAIGNS).map(CampaignId) {
            for group in 0..3 {
                for kind in Kind::ALL {
                    assert_eq!(again.count(id, group, kind), self.scheduler.count(id, group, kind), "{kind:?}");
                }
            }
        }
    }
}

fn model(settings: Vec<Settings>) -> Model {
    let mut scheduler = Scheduler::new();
    let present: BTreeSet<usize> = (0..DEVICES - 4).collect();
    let names: Vec<String> = present.iter().map(|device| name(*device)).collect();
    let mut states = BTreeMap::new();
    for (id, settings) in (1..).zip(settings) {
        let campaign = Campaign::new(CampaignId(id), settings, START_S).expect("no fault");
        let now = Now { mono_ms: 0, unix_ms: START_S * 1000 };
        scheduler.add(campaign, names.iter().map(|name| lamp(name)), now).expect("it is new");
        states.insert(id, present.iter().map(|device| (*device, (Standing::queued(0), 0))).collect());
    }
    let groups = scheduler
        .campaigns()
        .map(|campaign| (campaign.id().0, (0..DEVICES).map(|device| campaign.group_of(&name(device))).collect()));
    Model {
        groups: groups.collect(),
        scheduler,
        now_s: 0,
        connected: BTreeMap::new(),
        zones: BTreeMap::new(),
        present,
        states,
        begun: BTreeMap::new(),
        offers_ms: BTreeMap::new(),
    }
}

proptest! {
    #[test]
    fn whatever_happens_caps_windows_thresholds_and_ranks_hold(
        settings in prop::collection::vec(some_settings(), CAMPAIGNS as usize),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut model = model(settings);
        for op in &ops {
            model.run(op);
        }
        model.check_restart();
    }

    /// Nothing is forgotten: with devices that take what they are offered, everything comes to its end.
    #[test]
    fn willing_devices_bring_all_campaigns_to_their_end(
        wanted in prop::collection::vec(some_settings(), CAMPAIGNS as usize),
        ops in prop::collection::vec(op(), 0..40),
    ) {
        let wanted: Vec<Settings> = wanted
            .into_iter()
            .map(|settings| Settings {
                dynamic: false,
                // Steps are half an hour apart.
                windows: settings.windows.into_iter().filter(|window| (0..1440).filter(|at| window.contains(*at)).count() > 60).collect(),
                groups: settings.groups.into_iter().map(|group| Group { success_percent: 1, errors: None, ..group }).collect(),
                ..settings
            })
            .collect();
        let mut model = model(wanted);
        let gone = |op: &Op| matches!(op, Op::Gone { .. } | Op::Report { event: 9.., .. });
        for op in ops.iter().filter(|op| !gone(op)) {
            model.run(op);
        }
        for campaign in 1..=CAMPAIGNS {
            model.run(&Op::Resume { campaign });
        }
        for device in 0..DEVICES {
            model.run(&Op::Online { device, zone: ZONES.len() });
        }
        // Three days: each window opens.
        for _ in 0..144 {
            model.now_s += 1800;
            let now = model.now();
            let _ = model.scheduler.step(now);
            for device in (0..DEVICES).map(name) {
                for report in [Report::Applying, Report::Version("2.0")] {
                    let _ = model.scheduler.report("lamp", &device, &settings().target, report, now);
                }
            }
        }
        for id in 1..=CAMPAIGNS {
            prop_assert!(model.campaign(id).life().state.is_final() || model.scheduler.is_stuck(CampaignId(id)),
                "{:?}", model.campaign(id));
        }
    }
}
