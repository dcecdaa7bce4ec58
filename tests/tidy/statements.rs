//! Every normative statement of the specifications is cited where the code answers for it, or waived with a reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{files, read, root};

/// A line of the lists in `tests/statements`.
struct Statement {
    binds: String,
    /// The statement of MQTT 5 that says the same, or what it is about.
    about: String,
}

fn list(file: &str) -> BTreeMap<String, Statement> {
    let text = read(&root().join("tests/statements").join(file));
    let mut statements = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let mut words = line.splitn(3, ' ');
        let (number, binds, about) = (words.next(), words.next(), words.next());
        let (Some(number), Some(binds), Some(about)) = (number, binds, about) else { panic!("{file}: {line}") };
        assert!(matches!(binds, "client" | "server" | "both"), "{file}: {line}");
        let statement = Statement { binds: binds.to_owned(), about: about.to_owned() };
        assert!(statements.insert(number.to_owned(), statement).is_none(), "{file}: {number} twice");
    }
    statements
}

fn all() -> BTreeMap<String, Statement> {
    let mut statements = list("mqtt-5.0.txt");
    statements.extend(list("mqtt-3.1.1.txt"));
    statements
}

fn waivers() -> BTreeMap<String, String> {
    let text = read(&root().join("tests/statements/waived.txt"));
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let (number, reason) = line.split_once(' ').unwrap_or_else(|| panic!("no reason: {line}"));
            (number.to_owned(), reason.to_owned())
        })
        .collect()
}

/// Each citation in product code, with the first place that has it. A citation may name several: see [`expand`].
fn citations() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for file in ["broker", "authz"].iter().flat_map(|folder| files(folder)) {
        if !file.is_product() {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for part in line.split('[').skip(1) {
                let Some((cited, _)) = part.split_once(']') else { continue };
                if !cited.starts_with("MQTT-") && !cited.starts_with("MQTT3-") {
                    continue;
                }
                for cited in expand(cited) {
                    found.entry(cited).or_insert_with(|| format!("{}:{}", file.path, number + 1));
                }
            }
        }
    }
    found
}

/// The numbers of `MQTT-3.3.2-4, -15, -17..18, MQTT-3.4.2-1`: what begins with a hyphen belongs to the section before.
fn expand(cited: &str) -> Vec<String> {
    let mut section = "";
    let mut numbers = Vec::new();
    for part in cited.split(',').map(str::trim) {
        let Some((before, range)) = part.rsplit_once('-') else { continue };
        if !before.is_empty() {
            section = before;
        }
        let (first, last) = range.split_once("..").unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { continue };
        numbers.extend((first..=last).map(|number| format!("{section}-{number}")));
    }
    numbers
}

#[test]
fn every_statement_is_cited_or_waived() {
    let (statements, waived, cited) = (all(), waivers(), citations());
    let answered = |number: &str| cited.contains_key(number) || waived.contains_key(number);
    let open: Vec<String> = statements
        .iter()
        .filter(|(number, statement)| {
            let same = statement.about.strip_prefix("= ").is_some_and(answered);
            !answered(number) && !same
        })
        .map(|(number, statement)| format!("[{number}] ({}) {}", statement.binds, statement.about))
        .collect();
    assert!(open.is_empty(), "{} statements have neither a citation nor a waiver:\n{}", open.len(), open.join("\n"));
}

#[test]
fn citations_and_waivers_name_statements_that_exist() {
    let statements = all();
    let mut faults: Vec<String> = citations()
        .iter()
        .filter(|(number, _)| !statements.contains_key(*number))
        .map(|(number, place)| format!("{place}: [{number}] is no statement"))
        .collect();
    faults.extend(
        waivers()
            .keys()
            .filter(|number| !statements.contains_key(*number))
            .map(|number| format!("{number} is waived, but is no statement")),
    );
    for (number, statement) in &statements {
        if let Some(same) = statement.about.strip_prefix("= ")
            && !statements.contains_key(same)
        {
            faults.push(format!("{number} is said to be {same}, which is no statement"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_cited_is_not_waived() {
    let cited = citations();
    let both: BTreeSet<String> = waivers()
        .keys()
        .filter_map(|number| cited.get(number).map(|place| format!("{number} is waived, but cited at {place}")))
        .collect();
    assert!(both.is_empty(), "{both:#?}");
}
