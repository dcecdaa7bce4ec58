//! Import of devices from rows of a file, as a stream: a row in, now and then a batch of changes out.
//!
//! ```text
//! row(..) until is_full() or the rows end ─▶ lock ─▶ take() ─▶ commit ─▶ apply ─▶ unlock ─▶ the next rows … ─▶ report()
//! ```
//!
//! The lock is the control plane's ([`crate::registry`]). **Invariant:** what a row does to a device is decided by [`Import::take`], under
//! the lock, and not when the row comes, which on a slow upload is minutes earlier: a device that was disabled meanwhile
//! stays disabled, and a product that was deleted gets no devices.
//!
//! A row that can't be taken is a fault with its line number and nothing else happens to it; the rest goes on. A device that
//! exists gets the row's secret and stays enabled or disabled; where the row has no secret, it is left as it is. So the same file can be
//! imported again after an interruption, and no device in the field loses its secret by that. It is the same with labels: what a row doesn't say stays.

use std::collections::HashSet;

use crate::labels::{LabelError, LabelsRequest};
use crate::names::{DeviceName, NameError, ProductKey};
use crate::plan::{Change, Making, PlanError};
use crate::registry::{Device, Registry};
use crate::secret::{Sealed, Secret, SecretError};

/// Changes of a batch: what one commit takes, and what is in memory at once.
pub const BATCH: usize = 500;

/// Faults that are kept; the others are only counted.
pub const FAULTS_MAX: usize = 100;

/// What is wrong with a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowError {
    /// Its device name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Its labels.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// Its product, which may have been deleted meanwhile.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What a file's first row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstRow {
    /// The header `device,secret`, in one of the ways to write it.
    Header,
    /// It looks like a header of other columns. Taken as a device, it would be one whose secret anybody guesses.
    UnknownHeader,
    /// A device.
    Device,
}

/// Tells a header from a device by the first row's two fields. Case, `_`, `-`, white space and a byte order mark don't matter.
///
/// A device whose secret happens to have such a word in it is taken for an unknown header; with a header before it, it is taken.
#[must_use]
pub fn first_row(device: &str, secret: &str) -> FirstRow {
    const DEVICE: [&str; 5] = ["device", "devicename", "name", "deviceid", "id"];
    const SECRET: [&str; 2] = ["secret", "devicesecret"];
    const SECRET_WORDS: [&str; 3] = ["secret", "password", "key"];
    let (device, secret) = (column(device), column(secret));
    let (names_device, names_secret) = (DEVICE.contains(&device.as_str()), SECRET.contains(&secret.as_str()));
    let is_odd = names_device
        || DEVICE.contains(&secret.as_str())
        || SECRET.contains(&device.as_str())
        || SECRET_WORDS.iter().any(|word| secret.contains(word));
    match (names_device && names_secret, is_odd) {
        (true, _) => FirstRow::Header,
        (false, true) => FirstRow::UnknownHeader,
        (false, false) => FirstRow::Device,
    }
}

/// Whether a header's fields behind those two are the columns `tags` and `region`, or aren't there.
#[must_use]
pub fn is_label_header(tags: &str, region: &str) -> bool {
    matches!((column(tags).as_str(), column(region).as_str()), ("" | "tags", "") | ("tags", "region"))
}

fn column(field: &str) -> String {
    let written = field.chars().filter(|c| !c.is_whitespace() && !matches!(c, '_' | '-' | '\u{feff}'));
    written.flat_map(char::to_lowercase).collect()
}

/// What became of the rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// New devices.
    pub created: u64,
    /// Devices that got the row's secret.
    pub replaced: u64,
    /// Devices that were there, and the row has no secret.
    pub kept: u64,
    /// Rows that were not taken.
    pub refused: Faults<RowError>,
}

/// Lines of a file that were not taken: how many, and the first [`FAULTS_MAX`] of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults<E> {
    count: u64,
    first: Vec<(u64, E)>,
}

impl<E> Default for Faults<E> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<E> Faults<E> {
    /// A line, by its number, and what is wrong with it.
    pub fn add(&mut self, line: u64, error: E) {
        self.count += 1;
        if self.first.len() < FAULTS_MAX {
            self.first.push((line, error));
        }
    }

    /// Of all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them, as they came.
    #[must_use]
    pub fn first(&self) -> &[(u64, E)] {
        &self.first
    }
}

/// An import that is under way.
#[derive(Debug)]
pub struct Import<'a> {
    registry: &'a Registry,
    product: ProductKey,
    batch: Vec<Row>,
    /// Behind the batch, in its commit, so that the audit tells of both by one record each.
    labels: Vec<(DeviceName, LabelsRequest)>,
    /// Those of the batch, which the registry doesn't have yet.
    names: HashSet<DeviceName, foldhash::fast::RandomState>,
    report: Report,
}

#[derive(Debug)]
struct Row {
    line: u64,
    name: DeviceName,
    secret: Sealed,
    now_s: u64,
}

impl<'a> Import<'a> {
    /// Begins an import into a product.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn new(registry: &'a Registry, product: ProductKey) -> Result<Self, PlanError> {
        registry.product(product.as_str()).ok_or(PlanError::NoSuchProduct)?;
        let batch = Vec::with_capacity(BATCH);
        Ok(Self { registry, product, batch, labels: Vec::new(), names: HashSet::default(), report: Report::default() })
    }

    /// Takes a row: the number of its line, the device's name, the secret if the row has one. Gives back the secret that was made if it has none.
    ///
    /// # Errors
    /// What is wrong with the row; it is in the report too.
    pub fn row(
        &mut self,
        line: u64,
        device: &str,
        secret: Option<&str>,
        making: &Making<'_>,
    ) -> Result<Option<Secret>, RowError> {
        self.add(line, device, secret, making).inspect_err(|error| self.report.refused.add(line, *error))
    }

    /// The same with labels for the device.
    ///
    /// # Errors
    /// As [`Self::row`].
    pub fn labelled_row(
        &mut self,
        line: u64,
        device: &str,
        secret: Option<&str>,
        labels: Result<LabelsRequest, LabelError>,
        making: &Making<'_>,
    ) -> Result<Option<Secret>, RowError> {
        let labels = labels.map_err(RowError::from).inspect_err(|error| self.report.refused.add(line, *error))?;
        let made = self.row(line, device, secret, making)?;
        if !labels.is_empty() {
            self.labels.push((DeviceName::parse(device)?, labels));
        }
        Ok(made)
    }

    fn add(
        &mut self,
        line: u64,
        device: &str,
        secret: Option<&str>,
        making: &Making<'_>,
    ) -> Result<Option<Secret>, RowError> {
        let name = DeviceName::parse(device)?;
        let given = secret.filter(|text| !text.is_empty()).map(|text| Secret::new(text.as_bytes())).transpose()?;
        let is_given = given.is_some();
        let is_known = || self.names.contains(&name) || self.registry.device(self.product.as_str(), device).is_some();
        if !is_given && is_known() {
            self.report.kept += 1;
            return Ok(None);
        }
        let (secret, sealed) = making.secret(&self.product, &name, given);
        self.names.insert(name.clone());
        self.batch.push(Row { line, name, secret: sealed, now_s: making.now_s });
        Ok((!is_given).then_some(secret))
    }

    /// Whether it is time for [`Self::take`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.len() >= BATCH || self.labels.len() >= BATCH
    }

    /// The changes so far, to be committed and applied before the next row. The caller holds the lock of the control plane from before this call
    /// until it has applied them.
    #[must_use]
    pub fn take(&mut self) -> Vec<Change> {
        self.names.clear();
        let labels = std::mem::take(&mut self.labels);
        let rows = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        if self.registry.product(self.product.as_str()).is_none() {
            rows.iter().for_each(|row| self.report.refused.add(row.line, PlanError::NoSuchProduct.into()));
            return Vec::new();
        }
        let mut changes: Vec<_> = rows.into_iter().map(|row| self.change(row)).collect();
        // A row that was kept because its device was there may have come before that was deleted.
        let exists = |name: &DeviceName| {
            self.names.contains(name) || self.registry.device(self.product.as_str(), name.as_str()).is_some()
        };
        let labels = labels.iter().filter(|(name, _)| exists(name));
        let planned = labels.filter_map(|(name, asked)| self.registry.plan_label_device(&self.product, name, asked));
        changes.extend(planned);
        self.names.clear();
        changes
    }

    fn change(&mut self, row: Row) -> Change {
        let Row { name, secret, now_s, .. } = row;
        let existing = self.registry.device(self.product.as_str(), name.as_str());
        // A name that comes twice in a batch: the later row replaces what the earlier one creates.
        let is_new = self.names.insert(name.clone()) && existing.is_none();
        *if is_new { &mut self.report.created } else { &mut self.report.replaced } += 1;
        let (enabled, created_at_s) = existing.map_or((true, now_s), |device| (device.enabled, device.created_at_s));
        Change::PutDevice(self.product.clone(), name, Device { enabled, created_at_s, secret })
    }

    /// What became of the rows that were taken.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::MasterKey;

    fn product(registry: &Registry) -> ProductKey {
        let product = ProductKey::parse("p").expect("a name");
        registry.apply(registry.plan_put_product(&product, None, 1).expect("new").0);
        product
    }

    #[test]
    fn a_header_is_no_device() {
        for (device, secret) in [
            ("device", "secret"),
            ("DeviceName", "DeviceSecret"),
            ("device_name", "device-secret"),
            ("\u{feff}Device Name", " Secret "),
            ("name", "SECRET"),
        ] {
            assert_eq!(first_row(device, secret), FirstRow::Header, "{device},{secret}");
        }
        for (device, secret) in [
            ("serial", "TheSecret"),
            ("serial", "Pass-Word"),
            ("imei", "api_key"),
            ("secret", "device"),
            ("Device_Name", "created"),
            ("created", "DeviceName"),
        ] {
            assert_eq!(first_row(device, secret), FirstRow::UnknownHeader, "{device},{secret}");
        }
        for (tags, region, is_one) in [
            ("", "", true),
            ("Tags", "", true),
            ("tags", "REGION", true),
            ("region", "tags", false),
            ("mac", "", false),
        ] {
            assert_eq!(is_label_header(tags, region), is_one, "{tags},{region}");
        }
        for (device, secret) in [("d1", "0123456789abcdef"), ("device-1", "0123456789abcdef"), ("bad/name", "short")] {
            assert_eq!(first_row(device, secret), FirstRow::Device, "{device},{secret}");
        }
    }

    #[test]
    fn rows_become_devices_in_batches_and_faults_have_lines() {
        let (registry, key) = (Registry::new(), MasterKey::new([7; 32]));
        let product = product(&registry);
        let making = Making { key: &key, random: [3; 28], now_s: 9 };
        let mut import = Import::new(&registry, product.clone()).expect("a product");
        assert_eq!(import.row(1, "bad/name", None, &making), Err(RowError::Name(NameError::Character('/'))));
        assert_eq!(import.row(2, "d", Some("short"), &making), Err(RowError::Secret(SecretError::Length)));
        assert!(import.row(3, "made", Some(""), &making).expect("taken").is_some());
        assert_eq!(import.row(4, "made", None, &making), Ok(None));
        assert_eq!(import.row(5, "given", Some("given secret"), &making), Ok(None));
        let mut line = 6;
        while !import.is_full() {
            assert_eq!(import.row(line, &format!("d{line}"), Some("given secret"), &making), Ok(None));
            line += 1;
        }
        let changes = import.take();
        assert_eq!(changes.len(), BATCH);
        changes.into_iter().for_each(|change| registry.apply(change));
        assert_eq!(import.row(line, "given", Some("another secret"), &making), Ok(None));
        assert_eq!(import.row(line + 1, "made", None, &making), Ok(None));
        import.take().into_iter().for_each(|change| registry.apply(change));
        let report = import.report();
        assert_eq!((report.created, report.replaced, report.kept, report.refused.count()), (500, 1, 2, 2));
        assert_eq!(report.refused.first().iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2]);
        let given = registry.device("p", "given").expect("there");
        let opened = key.open(&crate::registry::owner("p", "given"), &given.secret).expect("opens");
        assert_eq!(opened.expose(), b"another secret");
        assert_eq!(registry.device_count("p"), BATCH);
    }

    #[test]
    fn labels_come_behind_the_devices_and_whats_wrong_with_them_refuses_the_row() {
        let (registry, key) = (Registry::new(), MasterKey::new([7; 32]));
        let product = product(&registry);
        let making = Making { key: &key, random: [3; 28], now_s: 9 };
        let mut import = Import::new(&registry, product.clone()).expect("a product");
        let row = |import: &mut Import<'_>, device: &str, (tags, region): (&str, &str)| {
            let labels = LabelsRequest::of_fields(tags, region);
            import.labelled_row(1, device, Some("given secret"), labels, &making).map(drop)
        };
        assert_eq!(row(&mut import, "a", ("beta;shop", "eu")), Ok(()));
        assert_eq!(row(&mut import, "b", ("beta", "")), Ok(()));
        assert_eq!(row(&mut import, "c", ("", "")), Ok(()));
        assert_eq!(row(&mut import, "d", ("", "e u")), Err(RowError::Labels(LabelError::Character)));
        let changes = import.take();
        let is_put = |change: &Change| matches!(change, Change::PutDevice(..));
        assert_eq!(changes.iter().map(is_put).collect::<Vec<_>>(), [true, true, true, false, false]);
        changes.into_iter().for_each(|change| registry.apply(change));
        assert_eq!((import.report().created, import.report().refused.count()), (3, 1));
        assert_eq!(registry.labels("p", "a").expect("labels").region(), Some("eu"));
        assert_eq!(row(&mut import, "a", ("home", "")), Ok(()));
        assert_eq!(row(&mut import, "b", ("beta", "")), Ok(()));
        let changes = import.take();
        assert_eq!(changes.len(), 3, "b has its labels already");
        changes.into_iter().for_each(|change| registry.apply(change));
        let labels = registry.labels("p", "a").expect("labels");
        assert_eq!((labels.tags(), labels.region()), (&["home".into()][..], Some("eu")));
        assert_eq!(registry.labels("p", "c"), None);
    }

    #[test]
    fn what_happened_since_the_row_came_counts() {
        let (registry, key) = (Registry::new(), MasterKey::new([7; 32]));
        let (product, name) = (product(&registry), DeviceName::parse("d").expect("a name"));
        let making = Making { key: &key, random: [3; 28], now_s: 9 };
        let mut import = Import::new(&registry, product.clone()).expect("a product");
        import.row(1, "d", Some("given secret"), &making).expect("taken");
        import.row(2, "d", Some("another secret"), &making).expect("taken");
        import.take().into_iter().for_each(|change| registry.apply(change));
        assert_eq!((import.report().created, import.report().replaced), (1, 1));

        import.row(3, "d", Some("a third secret"), &making).expect("taken");
        registry.apply(registry.plan_enable_device(&product, &name, false).expect("there"));
        import.take().into_iter().for_each(|change| registry.apply(change));
        assert!(!registry.is_enabled("p", "d"), "an import enables nothing that was disabled");

        import.row(4, "e", Some("given secret"), &making).expect("taken");
        registry.apply(registry.plan_delete_product(&product).expect("there"));
        assert!(import.take().is_empty(), "a deleted product gets no devices");
        assert_eq!(import.report().refused.first(), [(4, RowError::Plan(PlanError::NoSuchProduct))]);
    }

    #[test]
    fn the_faults_that_are_kept_are_bounded() {
        let (registry, key) = (Registry::new(), MasterKey::new([7; 32]));
        let making = Making { key: &key, random: [3; 28], now_s: 9 };
        let mut import = Import::new(&registry, product(&registry)).expect("a product");
        (0..1000).for_each(|line| assert!(import.row(line, "", None, &making).is_err()));
        assert_eq!((import.report().refused.first().len(), import.report().refused.count()), (FAULTS_MAX, 1000));
        let nowhere = ProductKey::parse("q").expect("a name");
        assert_eq!(Import::new(&registry, nowhere).map(drop), Err(PlanError::NoSuchProduct));
    }
}
