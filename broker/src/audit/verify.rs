//! `turnpike audit verify` and `export`: they read the files, whether a broker writes them at the time or not.

use std::io::{self, Write};
use std::path::Path;

use turnpike_authz::audit::chain::{ChainKey, Fault, Link, Summary, Verifier};
use turnpike_authz::audit::head::{self, Head};

use super::files::{self, Lines, Read1};
use super::moment::format_ms;
use super::search::{Entry, Query};

/// Problems that are listed; all are counted.
const LISTED_MAX: usize = 100;

/// Something that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The segment's file name, and the line in it, from 1. None for what concerns the audit as a whole.
    pub place: Option<(String, u64)>,
    /// What it is.
    pub fault: Fault,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some((segment, line)) => write!(f, "{segment}, line {line}: {}", self.fault),
            None => write!(f, "{}", self.fault),
        }
    }
}

/// What came of verifying an audit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What it has.
    pub summary: Summary,
    /// How many segments.
    pub segments: usize,
    /// The first hundred problems.
    pub problems: Vec<Problem>,
    /// All of them.
    pub problem_count: u64,
    /// Bytes at the end of the last segment that are no whole record: a write under way, or one that was interrupted.
    pub unfinished_bytes: u64,
    /// The last record: an anchor to keep elsewhere.
    pub anchor: Option<Link>,
}

impl Report {
    fn problem(&mut self, place: Option<(&str, u64)>, fault: Fault) {
        self.problem_count += 1;
        if self.problems.len() < LISTED_MAX {
            let place = place.map(|(segment, line)| (segment.to_owned(), line));
            self.problems.push(Problem { place, fault });
        }
    }
}

/// Follows the chain of the audit in a folder. `keys`: the one in use first, then former ones. `anchors`: records that it must have.
///
/// # Errors
/// Something can't be read.
pub fn verify(folder: &Path, keys: &[ChainKey], anchors: &[Link]) -> io::Result<Report> {
    let mut report = Report::default();
    let mut verifier = Verifier::new(keys);
    // Before the segments: what a broker writes meanwhile is behind the head, and more than is asked for.
    let head = head::decode(keys, &files::read_small(&files::head(folder))?);
    let segments = files::segments(folder)?;
    match head {
        Head::Known(link) => verifier.expect(link),
        Head::OtherKey(_) | Head::None => report.problem(None, Fault::NoHead),
    }
    anchors.iter().for_each(|anchor| verifier.expect(*anchor));
    let mut last_line = (String::new(), 0);
    for (index, (first, path)) in segments.iter().enumerate() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        verifier.begin_segment();
        let is_last = index + 1 == segments.len();
        let mut lines = match Lines::open(path, 0) {
            // Retention has removed it meanwhile; whether it may is seen from what is left.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            lines => lines?,
        };
        let mut number = 0;
        loop {
            let line = match lines.next()? {
                Read1::Line(line) => line,
                Read1::Unfinished(bytes) if is_last => {
                    report.unfinished_bytes = bytes;
                    break;
                }
                // Nobody goes on in another segment and leaves half a line.
                Read1::Unfinished(_) => b"",
                Read1::End => break,
            };
            number += 1;
            let is_unfinished = line.is_empty();
            if let Err(fault) = verifier.line(line) {
                report.problem(Some((&name, number)), fault);
            }
            if is_unfinished {
                break;
            }
        }
        report.segments += 1;
        last_line = (name, number);
        tracing::debug!(first, lines = number, "a segment of the audit was read");
    }
    report.anchor = verifier.link();
    let (summary, faults) = verifier.end();
    report.summary = summary;
    for fault in faults {
        let (segment, line) = &last_line;
        let place = matches!(fault, Fault::Truncated { .. }).then_some((segment.as_str(), *line));
        report.problem(place.filter(|(_, line)| *line > 0), fault);
    }
    Ok(report)
}

/// How records are written out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The lines as they are, their macs included.
    JsonLines,
    /// With a header line; what has no column of its own is JSON in the last.
    Csv,
}

/// Writes the records out that a query wants, oldest first, whatever its limits are. Says how many.
///
/// # Errors
/// Something can't be read, or not be written.
pub fn export(folder: &Path, query: &Query, format: Format, to: &mut dyn Write) -> io::Result<u64> {
    let mut count = 0;
    let mut csv = csv::WriterBuilder::new().from_writer(Vec::new());
    if format == Format::Csv {
        let header = ["seq", "time", "actor", "source", "action", "target", "result", "cause", "detail"];
        csv.write_record(header)?;
    }
    for (_, path) in files::segments(folder)? {
        let mut lines = Lines::open(&path, 0)?;
        while let Read1::Line(line) = lines.next()? {
            let Some(entry) = query.take(line) else { continue };
            count += 1;
            match format {
                Format::JsonLines => {
                    to.write_all(line)?;
                    to.write_all(b"\n")?;
                }
                Format::Csv => csv.write_record(columns(&entry)?)?,
            }
            if csv.get_ref().len() > 64 << 10 {
                csv = drain(csv, to)?;
            }
        }
    }
    drain(csv, to)?;
    to.flush()?;
    Ok(count)
}

fn drain(csv: csv::Writer<Vec<u8>>, to: &mut dyn Write) -> io::Result<csv::Writer<Vec<u8>>> {
    let bytes = csv.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    to.write_all(&bytes)?;
    Ok(csv::WriterBuilder::new().from_writer(Vec::new()))
}

fn columns(entry: &Entry) -> io::Result<[String; 9]> {
    let detail = if entry.detail.is_empty() { String::new() } else { serde_json::to_string(&entry.detail)? };
    Ok([
        entry.seq.to_string(),
        format_ms(entry.time),
        entry.actor.clone(),
        entry.source.clone().unwrap_or_default(),
        entry.action.clone(),
        entry.target.clone().unwrap_or_default(),
        entry.result.clone(),
        entry.cause.clone().unwrap_or_default(),
        detail,
    ])
}

#[cfg(test)]
mod tests;
