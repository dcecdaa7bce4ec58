use std::future::Future;

use tokio::task::{LocalSet, spawn_local, yield_now};

use super::*;

/// No test waits for so long.
const LONG: Duration = Duration::from_secs(3_600);

fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(test));
}

fn device(name: &str) -> DeviceIdentity {
    DeviceIdentity::new("p", name)
}

/// Lets all that can go on do so.
async fn rest() {
    for _ in 0..8 {
        yield_now().await;
    }
}

#[test]
fn one_batch_of_a_device_is_under_way_and_one_waits() {
    on_one_thread(async {
        let all = Rc::<UnderWay>::default();
        let first = all.claim(&device("1"), LONG).await.expect("nothing is under way");
        let second = spawn_local({
            let all = Rc::clone(&all);
            async move { all.claim(&device("1"), LONG).await }
        });
        rest().await;
        assert!(!second.is_finished());
        for _ in 0..10 {
            assert!(all.claim(&device("1"), LONG).await.is_none(), "one waits already");
        }
        assert!(all.claim(&device("2"), LONG).await.is_some());
        drop(first);
        let second = second.await.expect("it runs").expect("its turn");
        assert_eq!(all.devices.borrow().len(), 1);
        assert!(all.claim(&device("1"), Duration::ZERO).await.is_none(), "it waits no longer than it may");
        drop(second);
        assert!(all.devices.borrow().is_empty() && all.waiting.borrow().is_empty());
    });
}

#[test]
fn nothing_of_a_device_that_is_no_more_goes_on_or_begins() {
    on_one_thread(async {
        for concern in [Concern::device("p", "1"), Concern::Product("p".into())] {
            let all = Rc::<UnderWay>::default();
            let old = all.claim(&device("1"), LONG).await.expect("nothing is under way");
            assert!(!old.is_void());
            assert_eq!(all.close(&concern), [(Box::<str>::from("p"), Box::<str>::from("1"))]);
            assert!(old.is_void());
            let stranger = DeviceIdentity::new("q", "1");
            assert!(all.claim(&stranger, LONG).await.is_some_and(|claim| !claim.is_void()));
            let next = spawn_local({
                let all = Rc::clone(&all);
                async move { all.claim(&device("1"), LONG).await }
            });
            let ended = spawn_local({
                let (all, concern) = (Rc::clone(&all), concern.clone());
                async move { all.ended(&concern).await }
            });
            rest().await;
            assert!(!next.is_finished() && !ended.is_finished());
            drop(old);
            ended.await.expect("it runs");
            rest().await;
            assert!(!next.is_finished(), "what is known of the old one isn't forgotten yet");
            all.open(&concern);
            assert!(next.await.expect("it runs").is_some_and(|claim| !claim.is_void()));
        }
    });
}

#[test]
fn a_device_that_went_twice_is_closed_until_both_are_forgotten() {
    on_one_thread(async {
        let all = Rc::<UnderWay>::default();
        let concern = Concern::device("p", "1");
        assert!(all.close(&concern).is_empty() && all.close(&concern).is_empty());
        all.open(&concern);
        assert!(all.claim(&device("1"), Duration::ZERO).await.is_none());
        all.open(&concern);
        assert!(all.claim(&device("1"), Duration::ZERO).await.is_some());
    });
}
