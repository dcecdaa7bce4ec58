//! Checks the engine's sorted tables before the engine opens them: it keeps a checksum of each manifest and of each table file, but
//! does not look at them when it opens; it would take a manifest with a bad byte at its word and delete tables that are not named there.
//!
//! Format (fjall 3, lsm-tree 3), little-endian:
//!
//! ```text
//! keyspaces/N/current      version:u64 xxh3_128(manifest):u128 0:u8
//! keyspaces/N/v<version>   sections, table of contents, trailer
//!   trailer (last 38)      "SFA!" 1 0 checksum:u128 contents_at:u64 contents_len:u64
//!   table of contents      "TOC!" count:u32 { at:u64 len:u64 name_len:u16 name }*
//!   section "tables"       levels:u8 { runs:u8 { tables:u32 { id:u64 0:u8 xxh3_128(file):u128 seqno:u64 }* }* }*
//! keyspaces/N/tables/<id>
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::damaged;
use crate::StoreError;

/// Checks every manifest and every table under `keyspaces`; `expected` is how many keyspaces there are.
pub(super) fn check(keyspaces: &Path, expected: usize) -> Result<(), StoreError> {
    let io = |e| StoreError::io(keyspaces, "list the keyspaces", e);
    let mut found = 0;
    for entry in std::fs::read_dir(keyspaces).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            check_keyspace(&path)?;
            found += 1;
        }
    }
    if found == expected {
        Ok(())
    } else {
        Err(damaged(keyspaces, format!("{found} keyspaces"), &format!("there must be {expected}")))
    }
}

fn check_keyspace(keyspace: &Path) -> Result<(), StoreError> {
    let current = read(keyspace, "current")?;
    let mut fields = Fields(&current);
    let (Some(version), Some(sum)) = (fields.u64(), fields.u128()) else {
        return Err(damaged(keyspace, "current".into(), "it is too short"));
    };
    let name = format!("v{version}");
    let manifest = read(keyspace, &name)?;
    if xxhash_rust::xxh3::xxh3_128(&manifest) != sum {
        return Err(damaged(keyspace, name, "its checksum is another"));
    }
    let tables = table_sums(&manifest).ok_or_else(|| damaged(keyspace, name, "its layout is unknown"))?;
    for (id, sum) in tables {
        let place = format!("tables/{id}");
        match hash(&keyspace.join(&place)) {
            Ok(found) if found == sum => {}
            Ok(_) => return Err(damaged(keyspace, place, "its checksum is another")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged(keyspace, place, "it is missing")),
            Err(e) => return Err(StoreError::io(keyspace.join(place), "read a table", e)),
        }
    }
    Ok(())
}

fn read(keyspace: &Path, name: &str) -> Result<Vec<u8>, StoreError> {
    std::fs::read(keyspace.join(name)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => damaged(keyspace, name.into(), "it is missing"),
        _ => StoreError::io(keyspace.join(name), "read a manifest", e),
    })
}

/// Id and checksum of each table that a manifest names.
fn table_sums(manifest: &[u8]) -> Option<Vec<(u64, u128)>> {
    let (_, trailer) = manifest.split_at_checked(manifest.len().checked_sub(38)?)?;
    let mut trailer = Fields(trailer.strip_prefix(b"SFA!\x01\x00")?);
    trailer.u128()?;
    let contents_at = usize::try_from(trailer.u64()?).ok()?;
    let mut contents = Fields(manifest.get(contents_at..)?.strip_prefix(b"TOC!")?);
    let mut tables = None;
    for _ in 0..contents.u32()? {
        let (at, len) = (usize::try_from(contents.u64()?).ok()?, usize::try_from(contents.u64()?).ok()?);
        let name_len = contents.u16()?;
        if contents.take(name_len.into())? == b"tables" {
            tables = manifest.get(at..at.checked_add(len)?);
        }
    }
    let mut tables = Fields(tables?);
    let mut sums = Vec::new();
    for _level in 0..tables.u8()? {
        for _run in 0..tables.u8()? {
            for _table in 0..tables.u32()? {
                let id = tables.u64()?;
                let kind = tables.u8()?;
                let sum = tables.u128()?;
                tables.u64()?;
                (kind == 0).then_some(())?;
                sums.push((id, sum));
            }
        }
    }
    tables.0.is_empty().then_some(sums)
}

fn hash(path: &Path) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(hasher.digest128());
        }
        hasher.update(chunk.get(..read).unwrap_or_default());
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(u8::from_le_bytes(self.chunk()?))
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.chunk()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.chunk()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.chunk()?))
    }

    fn u128(&mut self) -> Option<u128> {
        Some(u128::from_le_bytes(self.chunk()?))
    }
}
