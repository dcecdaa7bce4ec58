//! Pages of objects that were read, for the next device: in a campaign all of them want the same. A page is fetched once, however many want it at the time,
//! and a block over MQTT takes the whole page that it is in, so that the blocks after it are at hand.
//!
//! Finding a page costs a look-up; making room looks at all of them, of which there are a few hundred, and comes before a request to the bucket.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use axum::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use turnpike_ota::ids::FirmwareId;

use super::shelf::ShelfError;

/// Bytes of a page; an object's last one may be shorter.
pub(super) const PAGE_BYTES: u64 = 256 << 10;

type Place = (FirmwareId, u64);

/// The pages.
#[derive(Debug)]
pub(super) struct Pages {
    pages_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pages: HashMap<Place, Page>,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug, Default)]
struct Page {
    used: u64,
    bytes: Arc<OnceCell<Bytes>>,
}

impl Pages {
    /// Keeps up to so many bytes, at least a page.
    pub(super) fn new(bytes: u64) -> Self {
        let pages_max = usize::try_from(bytes / PAGE_BYTES).unwrap_or(usize::MAX).max(1);
        Self { pages_max, kept: Mutex::default() }
    }

    /// A page. `fetch` is called if nobody has it or is fetching it; where that fails, the next who waits for it tries.
    pub(super) async fn page<F>(&self, place: Place, fetch: impl FnOnce() -> F) -> Result<Bytes, ShelfError>
    where
        F: Future<Output = Result<Bytes, ShelfError>>,
    {
        let page = self.kept.lock().cell(place, self.pages_max);
        page.get_or_try_init(fetch).await.cloned()
    }
}

impl Kept {
    fn cell(&mut self, place: Place, pages_max: usize) -> Arc<OnceCell<Bytes>> {
        if !self.pages.contains_key(&place) && self.pages.len() >= pages_max {
            // Whoever waits for it, or is being sent it, has it all the same.
            let oldest = self.pages.iter().min_by_key(|(_, page)| page.used).map(|(place, _)| *place);
            oldest.map(|place| self.pages.remove(&place));
        }
        self.uses += 1;
        let page = self.pages.entry(place).or_default();
        page.used = self.uses;
        Arc::clone(&page.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    #[test]
    fn a_page_is_fetched_once_and_the_least_used_goes() {
        let pages = Pages::new(2 * PAGE_BYTES + 1);
        let fetched = Cell::new(0);
        let (kept, fetches) = (&pages, &fetched);
        let want = |number: u64| async move {
            let fetch = || async move {
                fetches.set(fetches.get() + 1);
                tokio::task::yield_now().await;
                Ok(Bytes::from(number.to_string()))
            };
            kept.page((FirmwareId(1), number), fetch).await.expect("a page")
        };
        run(async {
            let (a, b, c) = tokio::join!(want(0), want(0), want(1));
            assert_eq!((&*a, &*b, &*c, fetched.get()), (&b"0"[..], &b"0"[..], &b"1"[..], 2));
            assert_eq!(want(0).await, "0");
            // 1 was used least recently, and makes room.
            assert_eq!(want(2).await, "2");
            assert_eq!((want(0).await, fetched.get()), (Bytes::from("0"), 3));
            assert_eq!((want(1).await, fetched.get()), (Bytes::from("1"), 4));
            assert_eq!(pages.kept.lock().pages.len(), 2);
        });
    }

    #[test]
    fn a_page_that_failed_is_tried_by_the_next() {
        let pages = Pages::new(0);
        let tries = Cell::new(0);
        let want = || {
            pages.page((FirmwareId(1), 0), || async {
                tries.set(tries.get() + 1);
                tokio::task::yield_now().await;
                if tries.get() == 1 { Err(ShelfError::Damaged) } else { Ok(Bytes::from("page")) }
            })
        };
        run(async {
            let (first, second) = tokio::join!(want(), want());
            assert_eq!((first, second), (Err(ShelfError::Damaged), Ok(Bytes::from("page"))));
            assert_eq!((want().await, tries.get()), (Ok(Bytes::from("page")), 2));
        });
    }
}
