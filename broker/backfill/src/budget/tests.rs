use super::*;

fn flow(records: u64, bytes: u64) -> FlowRate {
    FlowRate { messages: Rate::per_second(records).unwrap(), bytes: Rate::per_second(bytes).unwrap() }
}

fn settings() -> Settings {
    Settings { device: flow(100, 10_000), product: flow(1000, 100_000), ..Settings::default() }
}

fn wait(answer: Answer) -> u64 {
    match answer {
        Answer::Go => 0,
        Answer::Wait { ns } => ns,
    }
}

#[test]
fn a_device_waits_for_its_records_and_bytes_and_a_wait_costs_nothing() {
    let mut budget = Budget::new(settings());
    assert_eq!(budget.ask(0, "p", "d", 100, 10), Answer::Go);
    for _ in 0..3 {
        assert_eq!(wait(budget.ask(0, "p", "d", 50, 10)), SECOND_NS / 2);
    }
    assert_eq!(budget.ask(SECOND_NS / 2, "p", "d", 50, 10), Answer::Go);
    assert_eq!(budget.ask(9 * SECOND_NS, "p", "e", 1, 10_000), Answer::Go);
    assert_eq!(wait(budget.ask(9 * SECOND_NS, "p", "e", 1, 5_000)), SECOND_NS / 2);
}

#[test]
fn devices_of_a_product_share_its_rate() {
    let mut budget = Budget::new(settings());
    for device in 0..10 {
        assert_eq!(budget.ask(0, "p", &device.to_string(), 100, 0), Answer::Go);
    }
    assert_eq!(wait(budget.ask(0, "p", "another", 100, 0)), SECOND_NS / 10);
    assert_eq!(budget.ask(0, "q", "another", 100, 0), Answer::Go);
}

#[test]
fn the_whole_is_halved_when_live_traffic_is_late_and_grows_back_slowly() {
    let settings = Settings { floor_records_per_s: 100, ceiling_records_per_s: 4000, ..settings() };
    let mut budget = Budget::new(settings);
    assert_eq!(budget.records_per_s(), 1000);
    assert!(budget.live(0, settings.late_ns_max + 1));
    assert!(!budget.live(1, settings.late_ns_max + 1));
    let mut now = settings.adapt_every_ns;
    assert!(budget.live(now, settings.late_ns_max));
    assert_eq!(budget.records_per_s(), 700);
    for late in [u64::MAX, 0] {
        for _ in 0..30 {
            now += settings.adapt_every_ns;
            budget.live(now, late);
        }
        assert_eq!(budget.records_per_s(), if late > 0 { 100 } else { 4000 });
    }
}

#[test]
fn what_comes_in_stays_within_the_rate_of_the_whole() {
    let settings = Settings { ceiling_records_per_s: 4000, ..settings() };
    let mut budget = Budget::new(Settings { floor_records_per_s: 4000, ..settings });
    let mut came = 0;
    for ms in 0..2000_u64 {
        for device in 0..10 {
            let name = format!("{}", (ms * 10 + device) % 300);
            came += u64::from(budget.ask(ms * 1_000_000, &name, &name, 10, 10) == Answer::Go) * 10;
        }
    }
    assert!((7_900..=8_410).contains(&came), "{came}");
}

#[test]
fn devices_without_room_share_a_cell_until_others_have_paid() {
    let mut budget = Budget::new(Settings { cells_max: 2, ..settings() });
    assert_eq!(budget.ask(0, "p", "a", 100, 0), Answer::Go);
    assert_eq!(budget.ask(0, "p", "b", 100, 0), Answer::Go);
    assert!(wait(budget.ask(0, "p", "c", 100, 0)) > 0);
    assert_eq!(budget.cells(), 2);
    // Both cells are paid for by then and may go.
    assert_eq!(budget.ask(5 * SECOND_NS, "p", "c", 100, 0), Answer::Go);
    assert!(wait(budget.ask(5 * SECOND_NS, "p", "c", 100, 0)) > 0);
    assert_eq!(budget.cells(), 2);
}
