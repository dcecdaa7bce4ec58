//! What the payload cipher costs in time and memory: `cipher_figures`.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use turnpike_authz::cipher::device::DeviceCipher;
use turnpike_authz::cipher::{Cipher, CipherPolicy, Material, Suite, Terms};
use turnpike_authz::secret::Secret;
use turnpike_core::clock::Now;
use turnpike_core::gate::DeviceIdentity;

const MESSAGES: u32 = 200_000;
const UP: &str = "dev/a1B2c3D4e5F/serial-00000001/up/telemetry";

fn main() {
    println!("a session: {} bytes", size_of::<Cipher>());
    let who = Arc::new(DeviceIdentity::new("a1B2c3D4e5F", "serial-00000001"));
    let secret = Secret::generate([7; 16]);
    let policy = CipherPolicy::new(&Suite::ALL, 3600, 1_000_000_000, 60).expect("a policy");
    let now = Now::default();
    for suite in Suite::ALL {
        let terms = Terms { nonce: (*b"3f9a6c1e0b7d4e52").into(), suite, wrapped: None };
        let material = Material::Secret(&secret);
        let begin = || Cipher::begin(Arc::clone(&who), &policy, (&terms, material), (now, [1; 20]));
        time(suite, "begin and announce", 20_000, |_| drop(black_box(begin().poll(now))));
        let (mut broker, mut device) = (begin(), DeviceCipher::new(Arc::clone(&who), suite, material, &terms.nonce));
        let announcement = broker.poll(now).expect("the first epoch");
        device.hear(&announcement.payload).expect("the broker's");
        for len in [64, 1024] {
            let payload = vec![7; len];
            let frames: Vec<Vec<u8>> = (0..MESSAGES).filter_map(|_| device.seal_up(UP, &payload)).collect();
            time(suite, &format!("open_up of {len} bytes"), MESSAGES, |n| {
                assert!(broker.open_up(UP, &frames[n], now).is_ok());
                assert!(broker.poll(now).is_none());
            });
            time(suite, &format!("seal_down of {len} bytes"), MESSAGES, |_| {
                black_box(broker.seal_down(UP, &payload));
            });
        }
    }
}

fn time(suite: Suite, what: &str, times: u32, mut work: impl FnMut(usize)) {
    let start = Instant::now();
    (0..times as usize).for_each(&mut work);
    println!("{suite}, {what}: {:.2} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(times));
}
