//! What the device is told: `…/backfill/ack` of each boot that a batch had records of, and `…/backfill/pace`, in the encoding of the batch.

use minicbor::Encoder;
use minicbor::encode::Error;
use serde_json::{Value, json};

use crate::batch::{BatchError, Encoding, RecordError};
use crate::ledger::{Ledger, Taken};
use crate::pace::Pace;

/// What stopped a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Of which record, from 0 on. None: of the batch as a whole.
    pub index: Option<u64>,
    /// [`RecordError::code`], [`BatchError::code`] or `refused` and the like of the shell's.
    pub code: &'static str,
}

impl From<BatchError> for Stop {
    fn from(error: BatchError) -> Self {
        Self { index: None, code: error.code() }
    }
}

impl From<(usize, RecordError)> for Stop {
    fn from((index, error): (usize, RecordError)) -> Self {
        Self { index: Some(index as u64), code: error.code() }
    }
}

/// What is now known of a boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    /// Of which boot; None if no record could be read.
    pub boot: Option<u64>,
    /// Up to where all is taken or lost; 0 if not even the first is, or if the boot is forgotten.
    pub upto: u64,
    /// What is missing below the highest taken: inclusive.
    pub gaps: Vec<(u64, u64)>,
    /// Records of the batch that were new.
    pub taken: u64,
    /// Records of the batch that had been taken before.
    pub known: u64,
    /// Why the rest of the batch wasn't taken.
    pub error: Option<Stop>,
}

impl Ack {
    /// The message.
    #[must_use]
    pub fn encode(&self, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Cbor => cbor(|out| self.write(out)),
            Encoding::Json => self.json().to_string().into_bytes(),
        }
    }

    fn write(&self, out: &mut Encoder<Vec<u8>>) -> Result<(), Error<std::convert::Infallible>> {
        out.map(4 + u64::from(self.boot.is_some()) + u64::from(self.error.is_some()))?;
        if let Some(boot) = self.boot {
            out.str("boot")?.u64(boot)?;
        }
        out.str("upto")?.u64(self.upto)?.str("gaps")?.array(self.gaps.len() as u64)?;
        for (from, to) in &self.gaps {
            out.array(2)?.u64(*from)?.u64(*to)?;
        }
        out.str("taken")?.u64(self.taken)?.str("known")?.u64(self.known)?;
        if let Some(stop) = self.error {
            out.str("error")?.map(1 + u64::from(stop.index.is_some()))?;
            if let Some(index) = stop.index {
                out.str("index")?.u64(index)?;
            }
            out.str("code")?.str(stop.code)?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let mut ack = json!({ "upto": self.upto, "gaps": self.gaps, "taken": self.taken, "known": self.known });
        let Some(fields) = ack.as_object_mut() else { return ack };
        if let Some(boot) = self.boot {
            fields.insert("boot".to_owned(), boot.into());
        }
        if let Some(Stop { index, code }) = self.error {
            let error = index.map_or_else(|| json!({ "code": code }), |index| json!({ "index": index, "code": code }));
            fields.insert("error".to_owned(), error);
        }
        ack
    }
}

/// The message of a pace: `rate`, records a second, and `after_ms`.
#[must_use]
pub fn encode_pace(pace: Pace, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Cbor => cbor(|out| {
            out.map(2)?.str("rate")?.u32(pace.records_per_s)?.str("after_ms")?.u64(pace.after_ms)?;
            Ok(())
        }),
        Encoding::Json => json!({ "rate": pace.records_per_s, "after_ms": pace.after_ms }).to_string().into_bytes(),
    }
}

fn cbor(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Result<(), Error<std::convert::Infallible>>) -> Vec<u8> {
    let mut out = Encoder::new(Vec::with_capacity(64));
    write(&mut out).expect("memory takes all that is written, and only what can be encoded is");
    out.into_writer()
}

/// Counts what became of a batch's records, boot by boot. A batch has records of few boots ([`crate::bounds::Bounds::boots_max`]).
#[derive(Debug, Default)]
pub struct Tally {
    boots: Vec<(u64, u64, u64)>,
}

impl Tally {
    /// A record was taken.
    pub fn taken(&mut self, boot: u64) {
        self.of(boot).1 += 1;
    }

    /// A record had been taken before.
    pub fn known(&mut self, boot: u64) {
        self.of(boot).2 += 1;
    }

    /// A boot is to be answered although no record of it is counted: ranges of it were declared lost, or a record of it is bad.
    pub fn touch(&mut self, boot: u64) {
        self.of(boot);
    }

    /// The boot of the record at which the batch stopped, whose answer has the error: the last one.
    pub fn stop_in(&mut self, boot: u64) {
        self.touch(boot);
        if let Some(at) = self.boots.iter().position(|entry| entry.0 == boot) {
            let entry = self.boots.remove(at);
            self.boots.push(entry);
        }
    }

    /// One answer for each boot, in the order in which they came, the error in the last one; if there is no boot, one answer without any: every
    /// batch is answered.
    #[must_use]
    pub fn acks(&self, ledger: &Ledger, error: Option<Stop>) -> Vec<Ack> {
        let ack = |&(boot, taken, known): &(u64, u64, u64)| {
            let of_boot = ledger.boot(boot);
            let gaps = of_boot.map(|taken| taken.gaps().collect()).unwrap_or_default();
            Ack { boot: Some(boot), upto: of_boot.map_or(0, Taken::upto), gaps, taken, known, error: None }
        };
        let mut acks: Vec<Ack> = self.boots.iter().map(ack).collect();
        match acks.last_mut() {
            Some(last) => last.error = error,
            None => acks.push(Ack { error, ..Ack::default() }),
        }
        acks
    }

    fn of(&mut self, boot: u64) -> &mut (u64, u64, u64) {
        let at = self.boots.iter().rposition(|entry| entry.0 == boot).unwrap_or_else(|| {
            self.boots.push((boot, 0, 0));
            self.boots.len() - 1
        });
        self.boots.get_mut(at).expect("it was found or pushed")
    }
}

#[cfg(test)]
mod tests;
