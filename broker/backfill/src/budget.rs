//! How fast stored data comes in: below live traffic, and less of it when live traffic is late.
//!
//! A batch asks for its records and bytes ([`Budget::ask`]) of its device, its product and the whole, and gets all or nothing: a wait costs nothing. Cells are
//! those of the generic cell rate algorithm ([`turnpike_core::meter::Rate`]), so what is larger than a burst passes after a rest.
//!
//! The rate of the whole follows how late live messages are ([`Budget::live`]), up slowly and down at once: once in a while it grows by a
//! 20th of its ceiling if live traffic was in time, or is halved if it was late. So it settles just below where history begins to be felt.
//!
//! Bounded: a cell is 24 bytes, one for each device and product that has something left to pay. If there is no room and nothing is paid, the devices
//! that don't fit share one cell: they are slower, never faster. Products always fit: there are as many as are registered. Cells are told apart by 64-bit hashes; two names with one hash would share a cell, too.
//!
//! One value for all workers, behind a lock: a batch asks once, for 110 ns.

use hashbrown::HashMap;
use turnpike_core::meter::{FlowRate, Rate};

use crate::hash;

const SECOND_NS: u64 = 1_000_000_000;

/// Rates of records and bytes. Bytes are those of topics and payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Of each device.
    pub device: FlowRate,
    /// Of all devices of a product together.
    pub product: FlowRate,
    /// Records a second of all, at least 1: even while live traffic is late, so much comes in.
    pub floor_records_per_s: u64,
    /// Records a second of all, at most; not below the floor.
    pub ceiling_records_per_s: u64,
    /// Bytes a record of the whole rate: the rate of bytes is so many times that of records.
    pub bytes_per_record: u64,
    /// How late live messages may be before history gives way, in nanoseconds.
    pub late_ns_max: u64,
    /// How often the rate of the whole changes at most, in nanoseconds.
    pub adapt_every_ns: u64,
    /// Devices (and products) that have cells of their own.
    pub cells_max: usize,
}

impl Default for Settings {
    /// 2,000 records and 1 MB a second of a device, 200,000 and 100 MB of a product, 5,000 to 400,000 of all; late is 5 ms; 131,072 cells (3 to 7 MB).
    fn default() -> Self {
        let flow = |records, bytes| FlowRate {
            messages: Rate::new(records, SECOND_NS, records).unwrap_or_default(),
            bytes: Rate::new(bytes, SECOND_NS, bytes).unwrap_or_default(),
        };
        Self {
            device: flow(2_000, 1_000_000),
            product: flow(200_000, 100_000_000),
            floor_records_per_s: 5_000,
            ceiling_records_per_s: 400_000,
            bytes_per_record: 512,
            late_ns_max: 5_000_000,
            adapt_every_ns: SECOND_NS / 4,
            cells_max: 1 << 17,
        }
    }
}

/// What becomes of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Answer {
    /// It is paid for and may come in.
    Go,
    /// Not yet, and nothing was paid.
    Wait {
        /// Nanoseconds, at least 1, until it would conform if nobody else came.
        ns: u64,
    },
}

/// Theoretical arrival times of one cell, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    records: u64,
    bytes: u64,
}

impl Cell {
    /// The cell after it paid, or the wait.
    fn paid(mut self, rate: &FlowRate, (records, bytes): (u64, u64), now_ns: u64) -> Result<Self, u64> {
        let records = rate.messages.take(&mut self.records, records, now_ns);
        let bytes = rate.bytes.take(&mut self.bytes, bytes, now_ns);
        match (records, bytes) {
            (Ok(()), Ok(())) => Ok(self),
            (records, bytes) => Err(records.err().unwrap_or(0).max(bytes.err().unwrap_or(0))),
        }
    }

    fn is_idle(&self, now_ns: u64) -> bool {
        self.records.max(self.bytes) <= now_ns
    }
}

/// All rates and what was taken of them.
#[derive(Debug)]
pub struct Budget {
    settings: Settings,
    cells: HashMap<u64, Cell, foldhash::fast::RandomState>,
    /// Of all that have no room.
    crowd: Cell,
    /// Not before then are the cells swept again.
    sweep_at_ns: u64,
    whole: Cell,
    whole_rate: FlowRate,
    records_per_s: u64,
    adapt_at_ns: u64,
    state: foldhash::quality::RandomState,
}

impl Budget {
    /// Nothing taken; the whole begins at a quarter of its ceiling.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut budget = Self {
            settings,
            cells: HashMap::default(),
            crowd: Cell::default(),
            sweep_at_ns: 0,
            whole: Cell::default(),
            whole_rate: FlowRate::UNLIMITED,
            records_per_s: 0,
            adapt_at_ns: 0,
            state: foldhash::quality::RandomState::default(),
        };
        budget.set_whole(settings.ceiling_records_per_s / 4);
        budget
    }

    /// Other rates from now on. What was taken stays taken.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
        self.set_whole(self.records_per_s);
    }

    /// Records a second of the whole, for now: what [`crate::pace::Pacer::set_rate`] is to know.
    #[must_use]
    pub fn records_per_s(&self) -> u64 {
        self.records_per_s
    }

    /// Asks for a batch.
    pub fn ask(&mut self, now_ns: u64, product: &str, device: &str, records: u64, bytes: u64) -> Answer {
        let device_key = hash::seeded(&self.state, &[product, device]);
        let product_key = hash::seeded(&self.state, &[product]);
        let asked = (records, bytes);
        let cell = |key: u64| self.cells.get(&key).copied();
        let of_device = cell(device_key).unwrap_or_default().paid(&self.settings.device, asked, now_ns);
        let of_product = cell(product_key).unwrap_or_default().paid(&self.settings.product, asked, now_ns);
        let of_whole = self.whole.paid(&self.whole_rate, asked, now_ns);
        // A device that has no cell, and gets none, pays from the crowd's.
        let of_device = match (of_device, self.has_room(device_key, now_ns)) {
            (Ok(_), false) => self.crowd.paid(&self.settings.device, asked, now_ns),
            (paid, _) => paid,
        };
        match (of_device, of_product, of_whole) {
            (Ok(of_device), Ok(of_product), Ok(of_whole)) => {
                self.whole = of_whole;
                self.cells.insert(product_key, of_product);
                if self.has_room(device_key, now_ns) {
                    self.cells.insert(device_key, of_device);
                } else {
                    self.crowd = of_device;
                }
                Answer::Go
            }
            (of_device, of_product, of_whole) => {
                let waits = [of_device, of_product, of_whole].map(|paid| paid.err().unwrap_or(0));
                Answer::Wait { ns: waits.into_iter().fold(1, u64::max) }
            }
        }
    }

    /// Tells how late live messages are just now, in nanoseconds; true if the rate of the whole changed. To be called a few times a second.
    pub fn live(&mut self, now_ns: u64, late_ns: u64) -> bool {
        if now_ns < self.adapt_at_ns {
            return false;
        }
        self.adapt_at_ns = now_ns.saturating_add(self.settings.adapt_every_ns);
        let before = self.records_per_s;
        let step = (self.settings.ceiling_records_per_s / 20).max(1);
        let is_late = late_ns > self.settings.late_ns_max;
        self.set_whole(if is_late { before / 2 } else { before.saturating_add(step) });
        self.records_per_s != before
    }

    /// Cells that are held.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    fn set_whole(&mut self, records_per_s: u64) {
        let floor = self.settings.floor_records_per_s.max(1);
        self.records_per_s = records_per_s.clamp(floor, self.settings.ceiling_records_per_s.max(floor));
        // A tenth of a second at once: live traffic waits for no longer burst.
        let rate = |units: u64| Rate::new(units, SECOND_NS, (units / 10).max(1)).unwrap_or_default();
        let bytes_per_s = self.records_per_s.saturating_mul(self.settings.bytes_per_record.max(1));
        self.whole_rate = FlowRate { messages: rate(self.records_per_s), bytes: rate(bytes_per_s) };
    }

    fn has_room(&mut self, key: u64, now_ns: u64) -> bool {
        if self.cells.len() < self.settings.cells_max || self.cells.contains_key(&key) {
            return true;
        }
        // Looking at all of them costs a millisecond: once a second at most.
        if now_ns >= self.sweep_at_ns {
            self.sweep_at_ns = now_ns.saturating_add(SECOND_NS);
            self.cells.retain(|_, cell| !cell.is_idle(now_ns));
        }
        self.cells.len() < self.settings.cells_max
    }
}

#[cfg(test)]
mod tests;
