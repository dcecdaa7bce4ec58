use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn rate(units: u64, period_ns: u64, burst: u64) -> Rate {
    Rate::new(units, period_ns, burst).expect("a rate")
}

fn messages(messages: Rate) -> FlowRate {
    FlowRate { messages, ..FlowRate::UNLIMITED }
}

fn bytes(bytes: Rate) -> FlowRate {
    FlowRate { bytes, ..FlowRate::UNLIMITED }
}

fn meter(flow: FlowRate, pool: Option<&Arc<Pool>>) -> Meter {
    Meter::new(Arc::new(Allowance::new(flow, Excess::default())), pool.cloned(), Debt::default())
}

fn pool(flow: FlowRate) -> Arc<Pool> {
    Arc::new(Pool::new(flow))
}

/// How many of `tries` messages are taken at one moment.
fn taken_at(meter: &mut Meter, now_ns: u64, tries: usize, size: usize) -> usize {
    (0..tries).filter(|_| meter.publish(now_ns, size, Manner::Refuse) == Decision::Pass).count()
}

#[test]
fn a_meter_is_as_small_as_promised() {
    assert_eq!(size_of::<Meter>(), 24);
}

#[test]
fn a_rate_is_what_can_be_kept() {
    assert_eq!(Rate::new(0, S, 1), None);
    assert_eq!(Rate::new(1, 0, 1), None);
    assert_eq!(Rate::new(1, S, 0), None);
    assert_eq!(Rate::new(1, u64::MAX, 1), None, "less often than can be counted");
    assert_eq!(Rate::new(u64::MAX, 1, 1), None, "more often than can be counted");
    assert!(Rate::new(1, 86_400 * S, u64::MAX).is_some());
    assert!(Rate::default().is_unlimited() && Rate::UNLIMITED.is_unlimited());
    assert!(!rate(1, S, 1).is_unlimited());
    assert_eq!(rate(10_000_000_000, S, 1).cost_ns(10_000_000_000), 999_908_447, "four digits at 10 GB/s");
}

#[test]
fn a_burst_passes_at_once_and_then_the_rate() {
    let mut meter = meter(messages(rate(10, S, 5)), None);
    assert_eq!(taken_at(&mut meter, S, 100, 0), 5);
    assert_eq!(taken_at(&mut meter, S + 99 * MS, 100, 0), 0);
    assert_eq!(taken_at(&mut meter, S + 100 * MS, 100, 0), 1);
    assert_eq!(taken_at(&mut meter, S + 400 * MS, 100, 0), 3);
    assert_eq!(taken_at(&mut meter, 60 * S, 100, 0), 5, "a rest fills no more than the burst");
}

#[test]
fn what_was_refused_costs_nothing() {
    let mut meter = meter(messages(rate(1, S, 1)), None);
    assert_eq!(taken_at(&mut meter, 0, 10_000, 0), 1);
    assert_eq!(taken_at(&mut meter, S, 10_000, 0), 1);
}

#[test]
fn the_slowed_wait_until_the_next_one_conforms() {
    let mut meter = meter(messages(rate(10, S, 2)), None);
    assert_eq!(meter.publish(0, 0, Manner::Slow), Decision::Pass);
    assert_eq!(meter.publish(0, 0, Manner::Slow), Decision::Wait { ns: 100 * MS });
    assert_eq!(meter.publish(100 * MS, 0, Manner::Slow), Decision::Wait { ns: 100 * MS });
    // One that was on its way all the same pays, too.
    assert_eq!(meter.publish(100 * MS, 0, Manner::Slow), Decision::Wait { ns: 200 * MS });
}

#[test]
fn bytes_are_paid_for_after_the_message() {
    let mut meter = meter(bytes(rate(1000, S, 1000)), None);
    assert_eq!(meter.publish(0, 600, Manner::Slow), Decision::Pass);
    assert_eq!(meter.publish(0, 600, Manner::Slow), Decision::Wait { ns: 200 * MS });
    assert_eq!(meter.publish(0, 600, Manner::Refuse), Decision::Refuse);
    assert_eq!(meter.publish(0, 0, Manner::Refuse), Decision::Refuse, "still in debt");
    assert_eq!(meter.publish(200 * MS, 0, Manner::Refuse), Decision::Pass);
    assert_eq!(meter.publish(800 * MS, 600, Manner::Refuse), Decision::Pass);
}

#[test]
fn a_message_larger_than_the_burst_passes_after_a_rest() {
    let mut meter = meter(bytes(rate(1000, S, 1000)), None);
    assert_eq!(meter.publish(0, 1, Manner::Refuse), Decision::Pass);
    assert_eq!(meter.publish(0, 5000, Manner::Refuse), Decision::Refuse);
    assert_eq!(meter.publish(MS, 5000, Manner::Refuse), Decision::Pass);
    assert_eq!(meter.publish(4 * S, 1, Manner::Refuse), Decision::Refuse, "and is paid for");
    assert_eq!(meter.publish(5 * S, 1, Manner::Refuse), Decision::Pass);
}

#[test]
fn a_ping_costs_a_message_of_the_session_and_none_of_the_pool() {
    let product = pool(messages(rate(1, S, 1)));
    let mut meter = meter(messages(rate(10, S, 2)), Some(&product));
    assert_eq!(meter.packet(0), Decision::Pass);
    assert_eq!(meter.packet(0), Decision::Wait { ns: 100 * MS });
    assert!(product.is_idle(0));
    assert_eq!(meter.publish(0, 0, Manner::Refuse), Decision::Refuse);
}

#[test]
fn sessions_of_a_pool_wake_one_after_the_other() {
    let product = pool(messages(rate(10, S, 1)));
    let waits: Vec<Decision> =
        (0..3).map(|_| meter(FlowRate::UNLIMITED, Some(&product)).publish(0, 0, Manner::Slow)).collect();
    assert_eq!(waits, [100, 200, 300].map(|ms| Decision::Wait { ns: ms * MS }));
    assert!(!product.is_idle(299 * MS) && product.is_idle(300 * MS));
}

#[test]
fn a_pool_is_behind_by_so_much_and_no_more() {
    let product = pool(messages(rate(1, S, 1)));
    for _ in 0..100 {
        let decision = meter(FlowRate::UNLIMITED, Some(&product)).publish(0, 0, Manner::Slow);
        assert!(matches!(decision, Decision::Wait { ns } if ns <= POOL_DEBT_MAX_NS), "{decision:?}");
    }
    assert!(product.is_idle(POOL_DEBT_MAX_NS + S));
}

fn sharing(pool: &Arc<Pool>, cells: &Arc<Cells>) -> Meter {
    Meter::sharing(Arc::default(), Some(Arc::clone(pool)), Arc::clone(cells))
}

#[test]
fn sessions_of_one_owner_wait_for_their_pool_as_one_would() {
    let product = pool(messages(rate(1, S, 1)));
    let cells = Arc::new(Cells::default());
    let waits = [(); 3].map(|()| sharing(&product, &cells).publish(0, 0, Manner::Slow));
    assert_eq!(waits, [1, 1 + 2, 1 + 2 + 3].map(|s| Decision::Wait { ns: s * S }));
    assert_eq!(sharing(&product, &cells).wait_ns(S), 5 * S, "nor is a new one read before");
    assert_eq!(sharing(&product, &Arc::default()).wait_ns(S), 0, "another's");
    let mut refused = sharing(&product, &Arc::default());
    assert_eq!(refused.publish(2 * S, 0, Manner::Refuse), Decision::Refuse);
    assert_eq!(sharing(&product, &cells).wait_ns(3 * S), 0, "the pool isn't behind any more");
    product.set(messages(rate(1000, S, 100_000)));
    assert_eq!(sharing(&product, &cells).wait_ns(0), 0, "nor when it may more");
}

#[test]
fn what_one_cell_refuses_no_other_pays_for() {
    let product = pool(FlowRate { messages: rate(1, S, 2), bytes: rate(100, S, 100) });
    let mut meter = meter(FlowRate { messages: rate(1, S, 2), bytes: rate(100, S, 1000) }, Some(&product));
    assert_eq!(meter.publish(0, 60, Manner::Refuse), Decision::Pass);
    let before = meter.debt();
    assert_eq!(meter.publish(0, 60, Manner::Refuse), Decision::Refuse, "the product's bytes");
    assert_eq!(meter.debt(), before);
    assert_eq!(meter.publish(0, 40, Manner::Refuse), Decision::Pass);
    assert!(!product.is_idle(S) && product.is_idle(2 * S));
}

#[test]
fn cells_that_a_loser_took_of_are_given_back() {
    let (full, taken) = (AtomicU64::new(S), AtomicU64::new(7));
    let (empty, live) = (AtomicU64::new(0), LiveRate::default());
    live.set(rate(1, S, 1));
    let unlimited = LiveRate::default();
    let dues = [Due::messages(&empty, &live), Due::messages(&taken, &unlimited), Due::messages(&full, &live)];
    assert!(!take_all(&dues, 5));
    assert_eq!([&empty, &taken, &full].map(|tat| tat.load(Relaxed)), [5, 7, S]);
    assert!(take_all(&dues[..2], 5));
    assert_eq!([&empty, &taken].map(|tat| tat.load(Relaxed)), [5 + S, 7]);
}

#[test]
fn cores_that_want_the_last_one_get_one() {
    for _ in 0..50 {
        let allowance = Arc::new(Allowance::new(messages(rate(1, S, 100)), Excess::default()));
        let cells = Arc::new(Cells::default());
        let meters = [(); 4].map(|()| Meter::sharing(Arc::clone(&allowance), None, Arc::clone(&cells)));
        let taken: usize = std::thread::scope(|scope| {
            let threads = meters.map(|mut meter| scope.spawn(move || taken_at(&mut meter, S, 100, 0)));
            threads.into_iter().map(|thread| thread.join().expect("it ends")).sum()
        });
        assert_eq!(taken, 100);
    }
}

#[test]
fn a_change_holds_from_the_next_message_on() {
    let allowance = Arc::new(Allowance::new(messages(rate(1, S, 1)), Excess::default()));
    let mut meter = Meter::new(Arc::clone(&allowance), None, Debt::default());
    assert_eq!(taken_at(&mut meter, 0, 10, 0), 1);
    allowance.set(messages(rate(1, S, 4)), Excess { refuse_acked: true, drop_unacked: true });
    assert_eq!(taken_at(&mut meter, 0, 10, 0), 3);
    assert_eq!(meter.excess(), Excess { refuse_acked: true, drop_unacked: true });
    allowance.set(FlowRate::UNLIMITED, Excess::default());
    assert_eq!(taken_at(&mut meter, 0, 10, 1 << 20), 10);
}

#[test]
fn debts_move_to_the_next_session() {
    let flow = messages(rate(1, S, 1));
    let mut first = meter(flow, None);
    assert_eq!(taken_at(&mut first, 0, 10, 0), 1);
    assert!(!first.debt().is_paid(0) && first.debt().is_paid(S));
    let mut second = meter(flow, None).owing(first.debt());
    assert_eq!(taken_at(&mut second, 0, 10, 0), 0);
    assert_eq!(taken_at(&mut second, S, 10, 0), 1);
}

proptest! {
    #[test]
    fn meters_that_share_cells_are_as_one_meter(steps in proptest::collection::vec((0..4_usize, 0..S, 0..2000_usize), 1..100)) {
        let flow = FlowRate { messages: rate(2, S, 3), bytes: rate(1000, S, 3000) };
        let allowance = Arc::new(Allowance::new(flow, Excess::default()));
        let cells = Arc::new(Cells::default());
        let mut many: Vec<Meter> =
            (0..4).map(|_| Meter::sharing(Arc::clone(&allowance), None, Arc::clone(&cells))).collect();
        let mut model = meter(flow, None);
        let mut now_ns = 0;
        for (which, pass_ns, bytes) in steps {
            now_ns += pass_ns;
            let manner = if bytes % 2 == 0 { Manner::Slow } else { Manner::Refuse };
            prop_assert_eq!(many[which].publish(now_ns, bytes, manner), model.publish(now_ns, bytes, manner));
            // A session that ends and begins anew finds all as it was.
            many[which] = Meter::sharing(Arc::clone(&allowance), None, Arc::clone(&cells));
            prop_assert_eq!(many[which].debt(), model.debt());
        }
    }
}

#[test]
fn mqtt_3_is_never_refused() {
    for bits in 0..4 {
        let excess = Excess::from_bits(bits);
        assert_eq!(excess.bits(), bits);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(excess.manner(Version::V31, qos), Manner::Slow);
            assert_eq!(excess.manner(Version::V311, qos), Manner::Slow);
            let refused = if qos == QoS::AtMostOnce { excess.drop_unacked } else { excess.refuse_acked };
            assert_eq!(excess.manner(Version::V5, qos) == Manner::Refuse, refused);
        }
    }
}

#[test]
fn nothing_overflows() {
    let slow = rate(1, 86_400 * S, u64::MAX);
    let mut meter =
        meter(FlowRate { messages: slow, bytes: slow }, Some(&pool(FlowRate { messages: slow, bytes: slow })));
    for now in [0, u64::MAX / 2, u64::MAX] {
        for manner in [Manner::Slow, Manner::Refuse] {
            let _ = meter.publish(now, usize::MAX, manner);
        }
    }
    assert_eq!(meter.publish(0, usize::MAX, Manner::Refuse), Decision::Refuse);
}

proptest! {
    /// Whatever is offered whenever: it decides as a bucket of tokens does, but for roundings of a nanosecond a message.
    #[test]
    fn refusal_is_a_bucket_of_tokens(
        units in 1..1000_u64, burst in 1..50_u64, steps in prop::collection::vec(0..50 * MS, 1..400),
    ) {
        let mut meter = meter(messages(rate(units, S, burst)), None);
        // Of a billionth each.
        let mut tokens = burst * S;
        let rounding = 2 * 400 * units;
        let mut now = 0;
        for step in steps {
            now += step;
            tokens = (tokens + step * units).min(burst * S);
            match meter.publish(now, 0, Manner::Refuse) {
                Decision::Pass => {
                    prop_assert!(tokens + rounding >= S);
                    tokens = tokens.saturating_sub(S);
                }
                Decision::Refuse => prop_assert!(tokens < S + rounding),
                Decision::Wait { .. } => prop_assert!(false, "nobody is to wait"),
            }
        }
    }

    /// A client that isn't read while it has to wait stays within one message of the rate, and gets all of it.
    #[test]
    fn slowing_keeps_the_rate_within_one_message(
        units in 1..1000_u64, burst in 1..50_u64, late in prop::collection::vec(0..5 * MS, 1..400),
    ) {
        let mut meter = meter(messages(rate(units, S, burst)), None);
        let (mut now, mut taken) = (0_u64, 0_u64);
        for late in late {
            taken += 1;
            match meter.publish(now, 0, Manner::Slow) {
                Decision::Pass => {}
                Decision::Wait { ns } => now += ns + late,
                Decision::Refuse => prop_assert!(false, "nobody is refused"),
            }
            let due = u128::from(now) * u128::from(units) / u128::from(S);
            prop_assert!(u128::from(taken) <= u128::from(burst) + due + 1);
        }
    }

    /// The same for bytes, of messages of any size: ahead by no more than the burst and one message.
    #[test]
    fn bytes_are_within_one_message_of_the_rate(
        units in 1_000..1_000_000_000_u64, sizes in prop::collection::vec(0..1_000_000_usize, 1..100),
    ) {
        let mut meter = meter(bytes(rate(units, S, units)), None);
        let (mut now, mut before) = (0_u64, 0_u128);
        for (number, size) in sizes.into_iter().enumerate() {
            let due = u128::from(now) * u128::from(units) / u128::from(S);
            // Each message's cost is rounded down to a nanosecond, and so is its wait.
            let rounding = 2 * (number as u128 * u128::from(units)).div_ceil(u128::from(S)) + 1;
            prop_assert!(before <= u128::from(units) + due + due / 60_000 + rounding);
            before += size as u128;
            match meter.publish(now, size, Manner::Slow) {
                Decision::Pass => {}
                Decision::Wait { ns } => now += ns,
                Decision::Refuse => prop_assert!(false, "nobody is refused"),
            }
        }
    }
}
