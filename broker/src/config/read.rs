//! Reads a TOML table key by key and collects what is wrong, instead of stopping at the first fault.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use toml::{Table, Value};
use turnpike_authz::secret::Secret;

use super::Fault;

/// Keys that had another name once: the old, dotted, and the new.
const RENAMED: &[(&str, &str)] = &[];

/// Letters that a misspelt key may differ in from the one that is suggested.
const TYPOS_MAX: usize = 2;

/// A table, of which what was read is taken out; what is left at the end is unknown.
pub(super) struct Section<'a> {
    table: Table,
    prefix: String,
    /// Every key that was asked for, whether it is there or not.
    known: Vec<String>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Section<'a> {
    pub(super) fn new(table: Table, prefix: String, faults: &'a mut Vec<Fault>) -> Self {
        Self { table, prefix, known: Vec::new(), faults }
    }

    /// Its dotted name.
    pub(super) fn name(&self, key: &str) -> String {
        match (self.prefix.as_str(), key) {
            (prefix, "") => prefix.to_owned(),
            ("", key) => key.to_owned(),
            (prefix, key) => format!("{prefix}.{key}"),
        }
    }

    pub(super) fn fault(&mut self, key: &str, message: impl Into<String>) {
        let key = self.name(key);
        self.faults.push(Fault { key, message: message.into() });
    }

    /// A fault of a key whose dotted name was taken with [`Section::name`].
    pub(super) fn fault_at(&mut self, key: String, message: impl Into<String>) {
        self.faults.push(Fault { key, message: message.into() });
    }

    /// Whether a fault of this very key was found.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        let key = self.name(key);
        self.faults.iter().any(|fault| fault.key == key)
    }

    /// Every key that nobody asked for is a fault.
    pub(super) fn finish(&mut self) {
        for (key, _) in std::mem::take(&mut self.table) {
            let name = self.name(&key);
            let message = match RENAMED.iter().find(|(old, _)| *old == name) {
                Some((_, new)) => format!("is now called {new}"),
                None => self.unknown(&key),
            };
            self.fault(&key, message);
        }
    }

    fn unknown(&self, key: &str) -> String {
        let nearest = self.known.iter().map(|known| (distance(key, known), known)).min();
        match nearest {
            Some((typos, known)) if typos <= TYPOS_MAX => format!("is no key of this configuration; is it {known}?"),
            Some(_) => {
                format!("is no key of this configuration; remove it. The keys here are {}", self.known.join(", "))
            }
            None => "is no key of this configuration; remove it".to_owned(),
        }
    }

    /// Takes a value out, and remembers that its key is known.
    fn remove(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        self.table.remove(key)
    }

    pub(super) fn required(&mut self, key: &str) {
        if !self.table.contains_key(key) {
            self.fault(key, "is missing; it has no default");
        }
    }

    /// Takes a value; `None` from `read` means that it is of the wrong kind.
    fn take<T>(&mut self, key: &str, into: &mut T, expected: &str, read: impl FnOnce(&Value) -> Option<T>) {
        let Some(value) = self.remove(key) else { return };
        match read(&value) {
            Some(value) => *into = value,
            None => self.fault(key, format!("must be {expected}; it is {value}")),
        }
    }

    pub(super) fn boolean(&mut self, key: &str, into: &mut bool) {
        self.take(key, into, "true or false", Value::as_bool);
    }

    pub(super) fn text(&mut self, key: &str, into: &mut String) {
        self.take(key, into, "a text that isn't empty", |v| {
            v.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        });
    }

    /// Says whether there is such a key.
    pub(super) fn texts(&mut self, key: &str, into: &mut Vec<String>) -> bool {
        let present = self.table.contains_key(key);
        self.take(key, into, "a list of texts", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        });
        present
    }

    pub(super) fn path(&mut self, key: &str, into: &mut PathBuf) {
        self.take(key, into, "a path", |value| value.as_str().filter(|text| !text.is_empty()).map(PathBuf::from));
    }

    pub(super) fn optional_path(&mut self, key: &str, into: &mut Option<PathBuf>) {
        self.take(key, into, "a path", |value| {
            value.as_str().filter(|text| !text.is_empty()).map(|t| Some(PathBuf::from(t)))
        });
    }

    pub(super) fn paths(&mut self, key: &str, into: &mut Vec<PathBuf>) {
        self.take(key, into, "a list of paths", |value| {
            let path = |item: &Value| item.as_str().filter(|text| !text.is_empty()).map(PathBuf::from);
            value.as_array()?.iter().map(path).collect()
        });
    }

    /// An integer of any width, within a range.
    pub(super) fn integer<T>(&mut self, key: &str, into: &mut T, range: RangeInclusive<T>)
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(key, into, &expected, |value| {
            let number = T::try_from(value.as_integer()?).ok()?;
            range.contains(&number).then_some(number)
        });
    }

    pub(super) fn seconds(&mut self, key: &str, into: &mut Duration, range: RangeInclusive<u64>) {
        let mut seconds = into.as_secs();
        self.integer(key, &mut seconds, range);
        *into = Duration::from_secs(seconds);
    }

    pub(super) fn millis(&mut self, key: &str, into: &mut Duration, range: RangeInclusive<u64>) {
        let mut millis = u64::try_from(into.as_millis()).unwrap_or(u64::MAX);
        self.integer(key, &mut millis, range);
        *into = Duration::from_millis(millis);
    }

    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, into: &mut T, expected: &str) {
        self.take(key, into, expected, |value| value.as_str()?.parse().ok());
    }

    /// A secret of 8 to 256 bytes, which no fault repeats.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let value = self.remove(key)?;
        let secret = value.as_str().and_then(|text| Secret::new(text.as_bytes()).ok());
        if secret.is_none() {
            self.fault(key, "must be a text of 8 to 256 bytes");
        }
        secret
    }

    /// A text that `read` makes something of.
    pub(super) fn read<T>(&mut self, key: &str, into: &mut T, read: impl FnOnce(&str) -> Result<T, String>) {
        match self.remove(key) {
            None => {}
            Some(Value::String(text)) => match read(&text) {
                Ok(value) => *into = value,
                Err(message) => self.fault(key, message),
            },
            Some(value) => self.fault(key, format!("must be a text; it is {value}")),
        }
    }

    /// A list of networks.
    pub(super) fn networks(&mut self, key: &str, into: &mut Vec<IpNet>) {
        self.take(key, into, "a list of networks, such as [\"10.0.0.0/8\", \"2001:db8::/32\"]", |value| {
            value.as_array()?.iter().map(|item| item.as_str()?.parse().ok()).collect()
        });
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, into: &mut T, choices: &[(&str, T)]) {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let expected = format!("one of {}", names.join(", "));
        self.take(key, into, &expected, |value| {
            let text = value.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        });
    }

    /// A table within this one, if it is there.
    pub(super) fn section(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>)) {
        let name = self.name(key);
        match self.remove(key) {
            None => {}
            Some(Value::Table(table)) => {
                let mut section = Section::new(table, name, self.faults);
                read(&mut section);
                section.finish();
            }
            Some(_) => self.fault(key, format!("must be a table: [{name}]")),
        }
    }

    /// A list of tables within this one, if it is there.
    pub(super) fn sections(&mut self, key: &str, read: impl FnOnce(&mut [Section<'_>])) {
        let name = self.name(key);
        let tables = match self.remove(key) {
            None => return,
            Some(Value::Array(items)) => items.into_iter().map(|item| Table::try_from(item).ok()).collect(),
            Some(_) => None,
        };
        let Some(tables): Option<Vec<Table>> = tables else {
            self.fault(key, format!("must be a list of tables: [[{name}]]"));
            return;
        };
        // Each gets a list of its own, since they are alive together.
        let mut found: Vec<Vec<Fault>> = tables.iter().map(|_| Vec::new()).collect();
        let mut sections: Vec<Section<'_>> = tables
            .into_iter()
            .zip(&mut found)
            .enumerate()
            .map(|(index, (table, faults))| Section::new(table, format!("{name}[{index}]"), faults))
            .collect();
        read(&mut sections);
        sections.iter_mut().for_each(Section::finish);
        drop(sections);
        self.faults.extend(found.into_iter().flatten());
    }
}

/// Letters to insert, to remove or to replace that make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}
