//! A million devices in one campaign: what they take, and how long creation and steps do.
//!
//! ```text
//! cargo run --release -p turnpike-ota --example fleet [DEVICES]
//! ```

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::time::{Duration, Instant};

use turnpike_core::clock::Now;
use turnpike_ota::campaign::{Campaign, Group, Settings, Size};
use turnpike_ota::filter::{Candidate, Filter};
use turnpike_ota::ids::{CampaignId, FirmwareId};
use turnpike_ota::machine::{Kind, Limits};
use turnpike_ota::schedule::{Action, Report, Scheduler};
use turnpike_ota::zone::Zone;

const START_S: u64 = 1_800_000_000;

fn main() {
    let devices: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let names: Vec<String> = (0..devices).map(|number| format!("device-{number:09}")).collect();
    let before = resident();
    let mut scheduler = Scheduler::new();
    let (took, ()) = timed(|| {
        let candidates = names.iter().map(|name| lamp(name));
        let actions = scheduler.add(campaign(1, 5), candidates, at(0)).expect("it is new");
        assert_eq!(actions.len(), 1);
    });
    println!("created with {devices} devices in {took:?}, {} bytes each", each(before, devices));
    // A rival for all of them, of lower rank: everybody is looked for in two campaigns.
    let (took, ()) = timed(|| {
        let candidates = names.iter().map(|name| lamp(name));
        assert!(scheduler.add(campaign(2, 1), candidates, at(0)).is_ok());
    });
    println!("a second campaign for the same devices in {took:?}, {} bytes each in all", each(before, devices));
    let (took, longest) = timed(|| each_call(&names, |name| drop(scheduler.device_online("lamp", name, None, at(0)))));
    println!("all connected in {took:?}, the longest call {longest:?}");

    let mut steps = Steps::default();
    let mut second = 0;
    while scheduler.count(CampaignId(1), 1, Kind::Queued) + scheduler.count(CampaignId(1), 0, Kind::Queued) > 0 {
        second += 1;
        let offered = steps.step(&mut scheduler, second);
        // The first group finishes, so that the second one begins; nobody else does.
        for name in &offered {
            if scheduler.campaign(CampaignId(1)).is_some_and(|campaign| campaign.life().begun == 1) {
                report(&mut scheduler, name, Report::Version("2.0"), second);
            }
        }
        assert!(second < 10_000, "it doesn't end");
    }
    println!(
        "all offered in {} steps, the longest {:?}; {} bytes each",
        steps.count,
        steps.longest,
        each(before, devices)
    );

    let mut idle = Steps::default();
    for _ in 0..100 {
        second += 1;
        idle.step(&mut scheduler, second);
    }
    println!("100 steps with nothing to do: the longest {:?}", idle.longest);

    let (took, longest) = timed(|| {
        each_call(&names, |name| {
            // Those of the first group have finished.
            if scheduler.active("lamp", name, &target()) == Some(CampaignId(1)) {
                report(&mut scheduler, name, Report::Progress(50), second);
                report(&mut scheduler, name, Report::Applying, second);
                if name.ends_with('7') {
                    report(&mut scheduler, name, Report::Version("2.0"), second);
                }
            }
        })
    });
    println!("reports of all in {took:?}, the longest {longest:?}");
    let mut late = Steps::default();
    second += 4000;
    while scheduler.count(CampaignId(1), 1, Kind::Applying) > 0 {
        second += 1;
        late.step(&mut scheduler, second);
    }
    println!("all others timed out in {} steps, the longest {:?}", late.count, late.longest);
    let mut rival = Steps::default();
    for _ in 0..300 {
        second += 1;
        rival.step(&mut scheduler, second);
    }
    let (took, ()) = timed(|| drop(scheduler.stop(CampaignId(2), at(second)).expect("it runs")));
    println!("the second campaign has them: {:?} a step; stopped in {took:?}", rival.longest);
    let mut end = Steps::default();
    while scheduler.campaign(CampaignId(2)).is_some_and(|campaign| !campaign.life().state.is_final()) {
        second += 1;
        end.step(&mut scheduler, second);
    }
    println!(
        "all cancelled in {} steps, the longest {:?}; {} bytes each",
        end.count,
        end.longest,
        each(before, devices)
    );
}

#[derive(Default)]
struct Steps {
    count: u32,
    longest: Duration,
}

impl Steps {
    /// Names of those that campaign 1 offered.
    fn step(&mut self, scheduler: &mut Scheduler, second: u64) -> Vec<String> {
        let (took, actions) = timed(|| scheduler.step(at(second)));
        self.count += 1;
        self.longest = self.longest.max(took);
        let offers = actions.iter().filter_map(|action| match action {
            Action::Offer { campaign: CampaignId(1), device, .. } => Some(scheduler.name(*device)?.1.to_owned()),
            _ => None,
        });
        offers.collect()
    }
}

fn report(scheduler: &mut Scheduler, name: &str, report: Report<'_>, second: u64) {
    drop(scheduler.report("lamp", name, &target(), report, at(second)).expect("it has an offer"));
}

fn each_call(names: &[String], mut call: impl FnMut(&str)) -> Duration {
    names.iter().map(|name| timed(|| call(name)).0).max().unwrap_or_default()
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = what();
    (start.elapsed(), result)
}

fn at(s: u64) -> Now {
    Now { mono_ms: s * 1000, unix_ms: (START_S + s) * 1000 }
}

fn target() -> turnpike_ota::target::Target {
    "mcu".parse().expect("a target")
}

fn lamp(device: &str) -> Candidate<'_> {
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

fn campaign(id: u64, priority: u8) -> Campaign {
    let group = |size| Group { size, success_percent: 100, errors: None };
    let settings = Settings {
        name: "all".into(),
        firmware: FirmwareId(1),
        target: target(),
        version: "2.0".parse().expect("a version"),
        filter: Filter { product: "lamp".into(), ..Filter::default() },
        salt: 1,
        groups: vec![group(Size::Percent(1)), group(Size::Rest)],
        approval: false,
        start_s: None,
        end_s: None,
        windows: vec!["00:00-24:00".parse().expect("a window")],
        zone: Zone::UTC,
        rate: None,
        downloads_max: None,
        bandwidth: None,
        priority,
        dynamic: false,
        limits: Limits { applying_s: 3600, ..Limits::default() },
        retries_max: 0,
        force: false,
        downgrade: false,
    };
    Campaign::new(CampaignId(id), settings, START_S).expect("no fault")
}

/// Bytes that this process has in memory more than before, by device.
fn each(before: u64, devices: u32) -> u64 {
    resident().saturating_sub(before) / u64::from(devices)
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
