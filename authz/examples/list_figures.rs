//! What a listed identifier costs in memory: `list_figures [identifiers]`. Each kind comes in ascending order, which packs a B-tree worst, and scattered.

#![allow(clippy::print_stdout)]

use std::error::Error;

use turnpike_authz::names::ProductKey;
use turnpike_authz::presale::{Book, Change, Identifier, Kind, PackageId};

fn main() -> Result<(), Box<dyn Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let kinds = [(Kind::Mac, 0), (Kind::Imei, 0), (Kind::Serial, 24), (Kind::Serial, 28)];
    for (kind, len) in kinds {
        for (order, step) in [("ascending", 1), ("scattered", 7_368_787)] {
            let product = ProductKey::parse("figures")?;
            let mut book = Book::new();
            let before = resident_bytes()?;
            for n in 0..count {
                let n = n * step % count.next_power_of_two();
                let identifier = match kind {
                    Kind::Mac => Identifier::Mac(0x001A_2B00_0000 + n),
                    Kind::Imei => Identifier::Imei(490_154_203_000_000 + n),
                    Kind::Serial => Identifier::parse(kind, &format!("SN{n:0>width$}", width = len - 2))?,
                };
                book.apply(Change::List(product.clone(), identifier, PackageId::FIRST, None));
            }
            let bytes = (resident_bytes()? - before) / count;
            let what =
                if len == 0 { kind.as_str().to_owned() } else { format!("{} of {len} characters", kind.as_str()) };
            println!("{what}, {order}: {bytes} bytes each, {} listed", book.listed_count());
            // Freed memory that is used again by the next would hide what that costs.
            std::mem::forget(book);
        }
    }
    Ok(())
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).ok_or("statm has a second field")?.parse()?;
    Ok(pages * 4096)
}
