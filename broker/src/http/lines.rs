//! Files of lines that are taken up as they come: cut, read as CSV, and what is wrong with which line.

use std::fmt::Display;

use serde::Serialize;
use turnpike_authz::import::{FAULTS_MAX, Faults};
use utoipa::ToSchema;

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 1024;

/// A line that wasn't taken.
#[derive(Serialize, ToSchema)]
pub(super) struct LineFault {
    /// From 1, the header included.
    line: u64,
    /// What is wrong with it.
    message: String,
}

/// Cuts bytes into lines, of which it keeps so much as a valid one can have.
#[derive(Default)]
pub(super) struct Lines {
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn push(&mut self, byte: u8) -> Option<Vec<u8>> {
        if byte == b'\n' {
            return Some(std::mem::take(&mut self.line));
        }
        if self.line.len() <= LINE_BYTES_MAX {
            self.line.push(byte);
        }
        None
    }

    pub(super) fn finish(self) -> Option<Vec<u8>> {
        (!self.line.is_empty()).then_some(self.line)
    }
}

/// A line's fields; nothing for an empty line.
pub(super) fn fields(line: &[u8]) -> Result<Option<Vec<String>>, &'static str> {
    if line.len() > LINE_BYTES_MAX {
        return Err("a line has at most 1,024 bytes");
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(line);
    let mut record = csv::StringRecord::new();
    let is_there = reader.read_record(&mut record).map_err(|_| "it is no CSV in UTF-8")?;
    Ok(is_there.then(|| record.iter().map(str::to_owned).collect()))
}

/// How many lines weren't taken, be it that they are no rows or that what they say can't be, and the first of them by line.
pub(super) fn told<E: Display>(unreadable: &Faults<&'static str>, refused: &Faults<E>) -> (u64, Vec<LineFault>) {
    fn view<E: Display>((line, error): &(u64, E)) -> LineFault {
        LineFault { line: *line, message: error.to_string() }
    }
    let mut faults: Vec<_> = refused.first().iter().map(view).collect();
    faults.extend(unreadable.first().iter().map(view));
    faults.sort_by_key(|fault| fault.line);
    faults.truncate(FAULTS_MAX);
    (unreadable.count() + refused.count(), faults)
}
