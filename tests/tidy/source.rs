//! The sources of the workspace, read as text.

use std::path::{Path, PathBuf};

/// A Rust file.
pub(crate) struct File {
    /// From the root of the workspace.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Whether it is compiled into the product, and not only into tests, benchmarks or examples.
    pub(crate) fn is_product(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        !self.path.ends_with("tests.rs")
            && parts.first() != Some(&"tests")
            // `benches/` at the top is the load harness: a product of its own.
            && !parts.iter().skip(1).any(|part| matches!(*part, "tests" | "examples" | "benches" | "fuzz"))
            && !self.path.ends_with("testing.rs")
    }

    /// Lines before the tests at the end of the file.
    pub(crate) fn product_lines(&self) -> usize {
        self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
    }

    /// Lines of code before the tests, numbered, without comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().take(self.product_lines()).filter_map(uncommented)
    }

    /// Lines of tests, numbered, without comments.
    pub(crate) fn test_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let before = if self.is_product() { self.product_lines() } else { 0 };
        self.text.lines().enumerate().skip(before).filter_map(uncommented)
    }

    /// Each function: name, line, number of lines. Relies on the formatting that rustfmt gives.
    pub(crate) fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut found = Vec::new();
        let mut open: Vec<(String, usize, usize)> = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let trimmed = line.trim_start();
            if let Some(name) = function_name(trimmed) {
                if !trimmed.ends_with(';') && !trimmed.ends_with('}') {
                    open.push((name, number, indent));
                }
            } else if trimmed.starts_with('}') && open.last().is_some_and(|(_, _, at)| *at == indent) {
                let (name, start, _) = open.pop().expect("just seen");
                found.push((name, start + 1, number - start + 1));
            }
        }
        found
    }
}

fn uncommented((number, line): (usize, &str)) -> Option<(usize, &str)> {
    let code = line.split("//").next().unwrap_or_default();
    (!code.trim().is_empty()).then_some((number + 1, code))
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line;
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file under a folder; without the crates that lie inside it but are others (`broker/mqtt` in `broker` is kept: its
/// sources are asked for by either name).
pub(crate) fn files(folder: &str) -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(&root).expect("inside").to_string_lossy().into_owned();
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// Folders of the workspace's crates.
pub(crate) fn workspace() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let members = text.split_once("members = [").expect("members").1.split(']').next().expect("a list");
    members.split(',').map(|name| name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect()
}

/// What a crate names in those sections of its manifest.
pub(crate) fn manifest(folder: &str, sections: &[&str]) -> Vec<String> {
    let path = root().join(folder).join("Cargo.toml");
    let text = read(&path);
    let mut names = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = sections.contains(&section);
            for wanted in sections {
                if let Some(name) = section.strip_prefix(&format!("{wanted}.")) {
                    names.push(name.to_owned());
                }
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            names.push(line.split(['.', '=', ' ']).next().expect("a name").to_owned());
        }
    }
    names
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
