use std::collections::HashMap;
use std::io::Write;

use super::*;

/// A bucket in memory that can be told to fail.
#[derive(Debug, Default)]
struct Memory {
    objects: Mutex<HashMap<String, Vec<u8>>>,
    gets: AtomicU64,
    fault: Mutex<Option<ShelfError>>,
    /// Whether what is put there comes out otherwise.
    garbles: bool,
}

impl Memory {
    fn able(&self) -> Result<(), ShelfError> {
        self.fault.lock().clone().map_or(Ok(()), Err)
    }
}

impl Bucket for Arc<Memory> {
    fn put<'a>(&'a self, name: &'a str, file: &'a Arc<File>, bytes: u64) -> Doing<'a, ()> {
        Box::pin(async move {
            self.able()?;
            let mut read = files::read(file, 0, usize::try_from(bytes).expect("small")).await?;
            if self.garbles {
                read[0] ^= 1;
            }
            self.objects.lock().insert(name.to_owned(), read);
            Ok(())
        })
    }

    fn size<'a>(&'a self, name: &'a str) -> Doing<'a, Option<u64>> {
        let size = self.objects.lock().get(name).map(|bytes| bytes.len() as u64);
        Box::pin(async move { self.able().map(|()| size) })
    }

    fn get<'a>(&'a self, name: &'a str, from: u64, length: u64) -> Doing<'a, Bytes> {
        count(&self.gets);
        let found = self.objects.lock().get(name).map(|bytes| {
            let from = usize::try_from(from).expect("small");
            Bytes::copy_from_slice(&bytes[from..from + usize::try_from(length).expect("small")])
        });
        Box::pin(async move {
            self.able()?;
            tokio::task::yield_now().await;
            found.ok_or_else(|| ShelfError::Missing("404".to_owned()))
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Doing<'a, ()> {
        self.objects.lock().remove(name);
        Box::pin(async move { self.able() })
    }

    fn clear(&self) -> Doing<'_, usize> {
        Box::pin(async move { self.able().map(|()| 1) })
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A file, and what it is.
fn file(bytes: usize) -> (Vec<u8>, Arc<File>, Whole) {
    let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&content).expect("written");
    let mut digester = Digester::default();
    digester.update(&content);
    (content, Arc::new(file), digester.finish())
}

fn opened(memory: &Arc<Memory>, whole: &Whole) -> (Arc<Remote>, Opened) {
    let remote = Arc::new(Remote::new(Box::new(Arc::clone(memory)), 4 * PAGE_BYTES));
    let object = Object { id: FirmwareId(1), name: "one".to_owned(), bytes: whole.bytes };
    (Arc::clone(&remote), Opened::Object(remote, Arc::new(object)))
}

#[test]
fn an_object_reads_as_its_file_does_and_each_page_is_fetched_once() {
    let (content, file, whole) = file(700_001);
    let memory = Arc::new(Memory::default());
    let (remote, object) = opened(&memory, &whole);
    run(async {
        remote.bring("one", &file, &whole).await.expect("brought");
        let compared = memory.gets.load(Relaxed);
        for opened in [Opened::File(Arc::clone(&file)), object] {
            for (from, to) in [(0, 700_001), (1, 2), (262_143, 262_145), (262_144, 524_288), (699_999, 700_001)] {
                let mut read = Vec::new();
                while from + (read.len() as u64) < to {
                    let next = opened.next(from + read.len() as u64, to).await.expect("bytes");
                    assert!(!next.is_empty() && next.len() <= CHUNK_BYTES);
                    read.extend_from_slice(&next);
                }
                let (first, end) = (usize::try_from(from).expect("small"), usize::try_from(to).expect("small"));
                assert!(read == content[first..end]);
                assert!(opened.read(from, end - first).await.expect("bytes") == read);
            }
        }
        assert_eq!(memory.gets.load(Relaxed) - compared, 3);
        assert_eq!(remote.counts.fetched_bytes.load(Relaxed), 700_001);
        // What is there already isn't brought again.
        *memory.objects.lock().get_mut("one").expect("an object") = content.clone();
        remote.bring("one", &file, &whole).await.expect("there");
    });
}

#[test]
fn what_comes_out_otherwise_is_removed_and_not_taken_for_the_file() {
    let (content, file, whole) = file(10_000);
    let memory = Arc::new(Memory { garbles: true, ..Memory::default() });
    let (remote, _) = opened(&memory, &whole);
    run(async {
        assert_eq!(remote.bring("one", &file, &whole).await, Err(ShelfError::Damaged));
        assert!(memory.objects.lock().is_empty());
        for wrong in [content[1..].to_vec(), vec![0; 10_000]] {
            memory.objects.lock().insert("one".to_owned(), wrong);
            assert_eq!(remote.bring("one", &file, &whole).await, Err(ShelfError::Damaged));
        }
        memory.objects.lock().insert("one".to_owned(), content);
        assert_eq!(remote.bring("one", &file, &whole).await, Ok(()));
        assert_eq!(remote.counts.all()[0], ("stored", 1));
    });
}

#[test]
fn devices_hear_at_once_that_a_bucket_is_out_of_reach_and_each_fault_is_its_own() {
    let (_, file, whole) = file(10_000);
    let memory = Arc::new(Memory::default());
    let mut remote = Remote::new(Box::new(Arc::clone(&memory)), PAGE_BYTES);
    remote.pause = Duration::from_secs(3600);
    let object = Arc::new(Object { id: FirmwareId(1), name: "one".to_owned(), bytes: whole.bytes });
    run(async {
        remote.bring("one", &file, &whole).await.expect("brought");
        let remote = Arc::new(remote);
        let opened = Opened::Object(Arc::clone(&remote), object);
        let gets = || memory.gets.load(Relaxed);
        let before = gets();
        for fault in [ShelfError::Denied("403".to_owned()), ShelfError::Missing("404".to_owned())] {
            *memory.fault.lock() = Some(fault.clone());
            assert_eq!(opened.next(0, 1).await, Err(fault));
        }
        assert_eq!(gets() - before, 2);
        let unreachable = ShelfError::Unreachable("refused".to_owned());
        *memory.fault.lock() = Some(unreachable.clone());
        let (first, second) = tokio::join!(opened.next(0, 1), opened.next(0, 1));
        assert_eq!((first, second), (Err(unreachable.clone()), Err(unreachable.clone())));
        assert_eq!((gets() - before, remote.clear().await), (3, Err(unreachable)));
        // An hour later it is reached again.
        *memory.fault.lock() = None;
        *remote.out_of_reach.lock() = None;
        assert!(opened.next(0, 1).await.is_ok() && remote.clear().await.is_ok());
        let counts = remote.counts.all();
        assert_eq!(counts[5..], [("unreachable", 2), ("denied", 1), ("missing", 1), ("failed", 0)]);
    });
}
