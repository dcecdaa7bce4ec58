use turnpike_core::durable::Op;

use super::*;

fn part(origin: u16, turn: u64, parts: Option<u16>) -> Part {
    let ops = vec![Op::RegistryPut(Box::from(*b"k"), Box::from(*b"v"))];
    Part { ticket: Ticket { origin: ShardId(origin), turn: Turn(turn) }, parts, ops }
}

fn turns(out: &mut VecDeque<Complete>) -> Vec<(u16, u64, usize)> {
    out.drain(..).map(|c| (c.ticket.origin.0, c.ticket.turn.0, c.parts.len())).collect()
}

#[test]
fn a_ticket_of_one_part_leaves_at_once() {
    let (mut assembler, mut out) = (Assembler::default(), VecDeque::new());
    assembler.add(part(0, 7, Some(1)), &mut out);
    assert_eq!(turns(&mut out), [(0, 7, 1)]);
    assert_eq!((assembler.pending_tickets(), assembler.pending_bytes()), (0, 0));
}

#[test]
fn later_tickets_wait_for_an_earlier_one_of_their_origin_only() {
    let (mut assembler, mut out) = (Assembler::default(), VecDeque::new());
    assembler.add(part(0, 1, Some(2)), &mut out);
    assembler.add(part(0, 2, Some(1)), &mut out);
    assembler.add(part(1, 9, Some(1)), &mut out);
    assert_eq!(turns(&mut out), [(1, 9, 1)]);
    assert_eq!(assembler.pending_tickets(), 2);
    assert!(assembler.pending_bytes() > 0);
    assert_eq!(assembler.oldest().collect::<Vec<_>>(), [Ticket { origin: ShardId(0), turn: Turn(1) }]);
    assembler.add(part(0, 1, None), &mut out);
    assert_eq!(turns(&mut out), [(0, 1, 2), (0, 2, 1)]);
    assert_eq!(assembler.pending_bytes(), 0);
}

#[test]
fn a_foreign_part_may_come_before_the_origins() {
    let (mut assembler, mut out) = (Assembler::default(), VecDeque::new());
    assembler.add(part(0, 1, None), &mut out);
    assembler.add(part(0, 2, None), &mut out);
    assembler.add(part(0, 1, Some(3)), &mut out);
    assembler.add(part(0, 2, Some(2)), &mut out);
    assert_eq!(turns(&mut out), []);
    assembler.add(part(0, 1, None), &mut out);
    assert_eq!(turns(&mut out), [(0, 1, 3), (0, 2, 2)]);
}

proptest::proptest! {
    /// Whatever the interleaving, as long as an origin's own parts come in order: every ticket leaves once, whole, in order.
    #[test]
    fn every_ticket_leaves_once_whole_and_in_order(
        sizes in proptest::collection::vec((0u16..3, 1u16..4), 1..40),
        picks in proptest::collection::vec(proptest::prelude::any::<u16>(), 200),
    ) {
        let mut turn = 0;
        // Per origin the parts of its own, and all foreign parts; the next is picked among the heads of these.
        let mut own: Vec<VecDeque<Part>> = vec![VecDeque::new(); 3];
        let mut foreign: Vec<Part> = Vec::new();
        let mut expected: Vec<Vec<(u16, u64, usize)>> = vec![Vec::new(); 3];
        for (origin, size) in sizes {
            turn += 1;
            own[usize::from(origin)].push_back(part(origin, turn, Some(size)));
            foreign.extend((1..size).map(|_| part(origin, turn, None)));
            expected[usize::from(origin)].push((origin, turn, usize::from(size)));
        }
        let (mut assembler, mut out) = (Assembler::default(), VecDeque::new());
        let mut picks = picks.into_iter().cycle();
        while !foreign.is_empty() || own.iter().any(|queue| !queue.is_empty()) {
            let pick = usize::from(picks.next().unwrap_or_default());
            let next = if pick % 2 == 0 && !foreign.is_empty() {
                Some(foreign.swap_remove(pick % foreign.len()))
            } else {
                (0..3).find_map(|i| own[(pick + i) % 3].pop_front())
            };
            let next = next.or_else(|| foreign.pop());
            assembler.add(next.expect("something is left"), &mut out);
        }
        let left = turns(&mut out);
        for origin in 0..3u16 {
            let of: Vec<_> = left.iter().copied().filter(|(o, ..)| *o == origin).collect();
            proptest::prop_assert_eq!(&of, &expected[usize::from(origin)]);
        }
        proptest::prop_assert_eq!((assembler.pending_tickets(), assembler.pending_bytes()), (0, 0));
    }
}
