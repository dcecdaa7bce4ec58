use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.replace([' ', '\n'], "")).expect("hex")
}

fn lane(mac: &str, enc: &str) -> Lane {
    let key = |text| hex(text).try_into().expect("16 bytes");
    Lane { mac: key(mac), enc: key(enc) }
}

/// RFC 7518, B.1: the legacy suites' composition of cipher, IV, associated data and tag.
#[test]
fn cbc_is_that_of_rfc_7518() {
    let lane = lane("000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f");
    let payload = b"A cipher system must not be required to be secret, and it must be able to fall into the hands of \
        the enemy without inconvenience";
    let iv = hex("1af38c2dc2b96ffdd86694092341bc04").try_into().expect("16 bytes");
    let associated = b"The second principle of Auguste Kerckhoffs";
    let text = encrypt(Suite::Cbc, &lane, &iv, payload);
    let expected = "c80edfa32ddf39d5ef00c0b468834279a2e46a1b8049f792f76bfe54b903a9c9
        a94ac9b47ad2655c5f10f9aef71427e2fc6f9b3f399a221489f16362c7032336
        09d45ac69864e3321cf82935ac4096c86e133314c54019e8ca7980dfa4b9cf1b
        384c486f3a54c51078158ee5d79de59fbd34d848b3d69550a67646344427ade5
        4b8851ffb598f7f80074b9473c82e2db";
    assert_eq!(text, hex(expected));
    let tag = mac(&lane, associated, &iv, &text).finalize().into_bytes();
    assert_eq!(tag[..TAG], hex("652c3fa36b0a7c5b3219fab3a30bc1c4"));
    assert_eq!(decrypt(Suite::Cbc, &lane, &iv, &text).as_deref(), Some(&payload[..]));
}

/// NIST SP 800-38A, F.3.13 (CFB128-AES128), and F.1.1 (ECB-AES128) for the IV.
#[test]
fn cfb_and_the_block_cipher_are_those_of_sp_800_38a() {
    let lane = lane(&"00".repeat(16), "2b7e151628aed2a6abf7158809cf4f3c");
    let payload = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
        30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    let iv = std::array::from_fn(|n| u8::try_from(n).expect("small"));
    let expected = hex("3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b
        26751f67a3cbb140b1808cf187a4f4dfc04b05357c5d1c0eeac4c66f9ff7f2e6");
    assert_eq!(encrypt(Suite::Cfb, &lane, &iv, &payload), expected);
    assert_eq!(decrypt(Suite::Cfb, &lane, &iv, &expected), Some(payload));
}

/// The GCM specification's test case 4, so that a feature of the crate that changes the nonce or the tag would be noticed.
#[test]
fn gcm_is_that_of_sp_800_38d() {
    let cipher = Aes128Gcm::new_from_slice(&hex("feffe9928665731c6d6a8f9467308308")).expect("16 bytes");
    let mut text = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
        1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888").try_into().expect("12 bytes");
    let associated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let tag = cipher
        .encrypt_inout_detached(&Nonce::from(nonce), &associated, text.as_mut_slice().into())
        .expect("a short text");
    let expected = hex("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
        21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091");
    assert_eq!(text, expected);
    assert_eq!(tag[..], hex("5bc94fbc3221a5db94fae95ae7121a47"));
}

fn who() -> DeviceIdentity {
    DeviceIdentity::new("p1", "d1")
}

fn context(who: &DeviceIdentity) -> Context<'_> {
    Context { direction: Direction::Up, who, topic: "dev/p1/d1/up/t" }
}

fn unsealed(lane: &Lane, context: Context<'_>, frame: &[u8]) -> Result<Vec<u8>, CipherError> {
    let (header, body) = Header::parse(frame)?;
    open(lane, header, context, body)
}

#[test]
fn the_context_is_authenticated() {
    let (lane, who) = (lane("000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f"), who());
    let context = context(&who);
    for suite in Suite::ALL {
        let frame = seal(&lane, Header { suite, epoch: 1, counter: 2 }, context, b"20.5");
        assert_eq!(unsealed(&lane, context, &frame), Ok(b"20.5".to_vec()));
        let other = |product: &str, device: &str| DeviceIdentity::new(product, device);
        let others = [other("p1", "d2"), other("p2", "d1"), other("p1d", "1"), other("p", "1d1")];
        for who in &others {
            assert_eq!(unsealed(&lane, Context { who, ..context }, &frame), Err(CipherError::Altered));
        }
        let down = Context { direction: Direction::Down, ..context };
        let topic = Context { topic: "dev/p1/d1/up/u", ..context };
        for context in [down, topic] {
            assert_eq!(unsealed(&lane, context, &frame), Err(CipherError::Altered));
        }
    }
}

#[test]
fn an_authentic_text_without_padding_is_refused() {
    let (lane, who) = (lane("000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f"), who());
    let header = Header { suite: Suite::Cbc, epoch: 1, counter: 2 };
    for text in [&[][..], &[7; 15], &[7; 16]] {
        let associated = header.associated(Direction::Up, &who, "dev/p1/d1/up/t");
        let tag = mac(&lane, &associated, &header.iv(&lane), text).finalize().into_bytes();
        let frame = [&header.bytes()[..], text, &tag[..TAG]].concat();
        assert_eq!(unsealed(&lane, context(&who), &frame), Err(CipherError::Altered));
    }
}

fn keys() -> impl Strategy<Value = Lane> {
    any::<([u8; 16], [u8; 16])>().prop_map(|(mac, enc)| Lane { mac, enc })
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lane(…)")
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_and_nothing_else_does(
        lane in keys(), suite in proptest::sample::select(&Suite::ALL), epoch: u32, counter in 0..u64::MAX,
        payload in proptest::collection::vec(any::<u8>(), 0..100), at: prop::sample::Index, bit in 0..8_u32,
    ) {
        let who = who();
        let context = context(&who);
        let frame = seal(&lane, Header { suite, epoch, counter }, context, &payload);
        let padding = if suite == Suite::Cbc { 16 - payload.len() % 16 } else { 0 };
        prop_assert_eq!(frame.len(), HEADER + payload.len() + padding + TAG);
        prop_assert_eq!(unsealed(&lane, context, &frame), Ok(payload));
        let at = at.index(frame.len());
        let mut altered = frame.clone();
        altered[at] ^= 1 << bit;
        prop_assert!(unsealed(&lane, context, &altered).is_err());
        prop_assert!(unsealed(&lane, context, &frame[..at]).is_err());
        prop_assert!(unsealed(&lane, context, &[&frame[..], &[0]].concat()).is_err());
    }

    #[test]
    fn no_bytes_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..80), suite in 0..5_u8) {
        let (lane, who) = (Lane { mac: [1; 16], enc: [2; 16] }, who());
        frame.iter_mut().zip([1, suite]).for_each(|(byte, value)| *byte = value);
        prop_assert!(matches!(
            unsealed(&lane, context(&who), &frame),
            Err(CipherError::Malformed | CipherError::Altered)
        ));
    }
}
