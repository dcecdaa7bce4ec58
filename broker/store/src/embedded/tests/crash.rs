use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::history::{first, part, turn_of};
use super::*;
use crate::committer::{CommitEvent, Committer, Limits};

/// Set in a child process to the folder of the store.
const FOLDER: &str = "TURNPIKE_STORE_TEST_FOLDER";

/// What the child does; as a test of its own it does nothing.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut store = EmbeddedStore::open(&folder, tiny()).unwrap();
    let last = turn_of(&mut store).unwrap();
    if last == 0 {
        store.commit(&[first()]).unwrap();
    }
    let (say, said) = mpsc::channel();
    let committer = Committer::start(
        Box::new(store),
        Limits { group_ops_max: 60, ..Limits::default() },
        Box::new(move |event| {
            let CommitEvent::Committed(tickets) = event else { panic!("{event:?}") };
            // The line is out before the next commit begins.
            let last = tickets.last().unwrap().turn.0;
            writeln!(io::stdout().lock(), "\ncommitted {last}").unwrap();
            let _ = say.send(last);
        }),
    )
    .unwrap();
    for turn in last + 1.. {
        committer.submit(part(turn));
        // A few groups ahead, no more.
        while turn > last + 200 && said.recv().unwrap() < turn - 100 {}
    }
}

fn start_child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::crash::child_that_commits_until_it_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_loses_nothing_that_it_said_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..6u64 {
        let mut child = start_child(folder.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok());
        // Rounds end at different moments, some while tables are being written.
        let until = last + 1 + round * round * 40;
        let seen = said.by_ref().find(|turn| *turn >= until).expect("the child goes on until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
        let reported = said.last().unwrap_or(seen);
        let mut store = EmbeddedStore::open(folder.path(), tiny()).unwrap();
        let found = turn_of(&mut store).unwrap();
        assert!(found >= reported, "{reported} was reported, the store is at {found}");
        last = found;
    }
}

/// A filesystem of its own, in memory and small.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(folder)),
            Ok(output) => {
                eprintln!("skipped, can't mount: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("skipped, can't mount: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Fills the disk, commits on, makes room again.
fn fill_and_free(options: Options) {
    let Some(disk) = SmallDisk::mount("48m") else { return };
    let folder = disk.0.path().join("store");
    let mut store = EmbeddedStore::open(&folder, options).unwrap();
    store.commit(&[first()]).unwrap();
    let (say, said) = mpsc::channel();
    let limits =
        Limits { retry_min: Duration::from_millis(5), retry_max: Duration::from_millis(50), ..Limits::default() };
    let on_event = move |event: CommitEvent<'_>| {
        let _ = say.send(match event {
            CommitEvent::Committed(tickets) => Ok(tickets.iter().map(|ticket| ticket.turn.0).collect::<Vec<_>>()),
            CommitEvent::Failed { error } => Err(error.to_string()),
            CommitEvent::Recovered => Err("recovered".into()),
            CommitEvent::Low | CommitEvent::Ample => return,
        });
    };
    let committer = Committer::start(Box::new(store), limits, Box::new(on_event)).unwrap();
    let wait = || said.recv_timeout(Duration::from_secs(60)).unwrap();

    let ballast = disk.0.path().join("ballast");
    let mut committed = Vec::new();
    let mut turn = 0;
    let mut submit = || {
        turn += 1;
        committer.submit(part(turn));
    };
    (0..50).for_each(|_| submit());
    while committed.len() < 50 {
        committed.extend(wait().unwrap());
    }
    let fill = || {
        let mut file = File::options().create(true).append(true).open(&ballast).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    fill();
    let failed = loop {
        submit();
        match wait() {
            Ok(turns) => committed.extend(turns),
            Err(text) => break text,
        }
    };
    assert!(failed.contains("is full"), "{failed}");
    (0..20).for_each(|_| submit());
    // Healing may free a little, and then a commit rightly succeeds: filled again, it comes to a standstill.
    let still = (0..50).any(|_| {
        fill();
        match said.recv_timeout(Duration::from_millis(200)) {
            Ok(Ok(turns)) => committed.extend(turns),
            Ok(Err(_)) => {}
            Err(_) => return true,
        }
        submit();
        false
    });
    assert!(still, "commits go on while the disk is full");
    std::fs::remove_file(&ballast).unwrap();
    let mut recovered = false;
    while committed.len() < turn as usize {
        match wait() {
            Ok(turns) => committed.extend(turns),
            Err(text) => recovered |= text == "recovered",
        }
    }
    assert!(recovered || wait() == Err("recovered".into()));
    assert_eq!(committed, (1..=turn).collect::<Vec<_>>());
    committer.shutdown(Duration::from_secs(60)).unwrap();
    assert_eq!(turn_of(&mut EmbeddedStore::open(&folder, options).unwrap()).unwrap(), turn);
}

#[test]
fn a_full_disk_stops_commits_and_room_lets_them_go_on() {
    fill_and_free(options());
}

#[test]
fn a_full_disk_stops_merging_too_and_room_lets_it_go_on() {
    fill_and_free(tiny());
}

#[test]
fn the_reserve_stops_commits_before_the_disk_is_full() {
    fill_and_free(Options { free_bytes_min: 4 << 20, ..options() });
}

#[test]
fn the_upper_half_of_the_reserve_is_for_what_makes_room() {
    let Some(disk) = SmallDisk::mount("96m") else { return };
    let folder = disk.0.path().join("store");
    let mut store = EmbeddedStore::open(&folder, Options { free_bytes_min: 16 << 20, ..options() }).unwrap();
    store.commit(&[first()]).unwrap();
    assert!(!store.is_low());
    let ballast = File::create(disk.0.path().join("ballast")).unwrap();
    let leave = |free: u64| {
        let stat = rustix::fs::statvfs(&folder).unwrap();
        let more = (stat.f_bavail * stat.f_frsize).saturating_sub(free);
        let block = vec![0; 64 << 10];
        (0..more / (64 << 10)).for_each(|_| (&ballast).write_all(&block).unwrap());
    };
    leave(12 << 20);
    store.free_space.check_now().unwrap();
    assert!(store.is_low());
    store.commit(&[part(1)]).unwrap();
    leave(6 << 20);
    assert!(matches!(store.commit(&[part(2)]), Err(StoreError::Full { .. })));
    ballast.set_len(0).unwrap();
    store.heal().unwrap();
    store.commit(&[part(2)]).unwrap();
    assert!(!store.is_low());
}
