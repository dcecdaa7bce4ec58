//! From a secret to the keys of an epoch: HKDF-SHA256 (RFC 5869), extracted once for a log-in and expanded for each epoch.
//!
//! The info of the expansion is `"turnpike payload v1"`, the product and the device each behind a byte with its length, the suite's
//! number, and the epoch in 4 bytes: no two of these can be mistaken for one another, and no key serves two suites.

use hkdf::Hkdf;
use sha2::Sha256;
use turnpike_core::gate::DeviceIdentity;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::policy::Suite;

/// Begins the info of each expansion.
const INFO: &[u8] = b"turnpike payload v1";

/// What the keys of a log-in's epochs are made from.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Root([u8; 32]);

impl Root {
    /// Extracts. `material`: the device's secret, or the key that came under the platform's.
    pub(crate) fn new(material: &[u8], device_nonce: &[u8], broker_nonce: &[u8; 16]) -> Self {
        let salt = [device_nonce, broker_nonce].concat();
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(&salt), material);
        let root = Self(prk.into());
        prk.zeroize();
        root
    }

    /// The keys of an epoch: up, down.
    pub(crate) fn lanes(&self, who: &DeviceIdentity, suite: Suite, epoch: u32) -> (Lane, Lane) {
        let hkdf = Hkdf::<Sha256>::from_prk(&self.0).expect("32 bytes are a key of HKDF-SHA256");
        let (product, device) = (who.product.as_bytes(), who.device.as_bytes());
        let info: [&[u8]; 7] =
            [INFO, &[length(product)], product, &[length(device)], device, &[suite as u8], &epoch.to_be_bytes()];
        let mut keys = Zeroizing::new([0; 64]);
        hkdf.expand_multi_info(&info, &mut *keys).expect("HKDF-SHA256 gives up to 8160 bytes");
        let (up, down) = keys.split_at(32);
        (Lane::new(up), Lane::new(down))
    }
}

/// The length of a name, which has at most 64 bytes.
pub(crate) fn length(name: &[u8]) -> u8 {
    u8::try_from(name.len()).unwrap_or(u8::MAX)
}

/// The keys of one direction in one epoch. AES keys are expanded for each message: kept expanded they would take 350 bytes, and
/// the expansion takes no more time than a block or two of the payload.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Lane {
    /// HMAC, in the legacy suites.
    pub(crate) mac: [u8; 16],
    /// AES.
    pub(crate) enc: [u8; 16],
}

impl Lane {
    fn new(keys: &[u8]) -> Self {
        let mut lane = Self { mac: [0; 16], enc: [0; 16] };
        let (mac, enc) = keys.split_at(16);
        lane.mac.copy_from_slice(mac);
        lane.enc.copy_from_slice(enc);
        lane
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, A.1: the extraction with this salt in two parts, and an expansion under its PRK.
    #[test]
    fn extraction_is_that_of_rfc_5869() {
        let salt = hex::decode("000102030405060708090a0b0c").expect("hex");
        let (_, hkdf) = Hkdf::<Sha256>::extract(Some(&salt), &[0x0B; 22]);
        let mut okm = [0; 42];
        hkdf.expand(&hex::decode("f0f1f2f3f4f5f6f7f8f9").expect("hex"), &mut okm).expect("42 bytes");
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
        assert_eq!(hex::encode(okm), expected);
        // A.2: a salt of 80 bytes, whose last 16 stand for the broker's nonce here.
        let material: Vec<u8> = (0..80).collect();
        let salt: Vec<u8> = (0x60..0xB0).collect();
        let root = Root::new(&material, &salt[..64], salt[64..].try_into().expect("16 bytes"));
        assert_eq!(hex::encode(root.0), "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244");
    }

    #[test]
    fn everything_makes_other_keys() {
        let who = |product: &str, device: &str| DeviceIdentity::new(product, device);
        let make = |material: &[u8], mine: &[u8], yours, who: &DeviceIdentity, suite, epoch| {
            let (up, down) = Root::new(material, mine, &[yours; 16]).lanes(who, suite, epoch);
            [up.mac, up.enc, down.mac, down.enc]
        };
        let keys = [
            make(b"secret", b"nonce", 1, &who("ab", "c"), Suite::Gcm, 1),
            make(b"secreu", b"nonce", 1, &who("ab", "c"), Suite::Gcm, 1),
            make(b"secret", b"noncf", 1, &who("ab", "c"), Suite::Gcm, 1),
            make(b"secret", b"nonce", 2, &who("ab", "c"), Suite::Gcm, 1),
            make(b"secret", b"nonce", 1, &who("a", "bc"), Suite::Gcm, 1),
            make(b"secret", b"nonce", 1, &who("abc", ""), Suite::Gcm, 1),
            make(b"secret", b"nonce", 1, &who("ab", "c"), Suite::Cbc, 1),
            make(b"secret", b"nonce", 1, &who("ab", "c"), Suite::Gcm, 2),
        ];
        let all: std::collections::HashSet<[u8; 16]> = keys.iter().flatten().copied().collect();
        assert_eq!(all.len(), 4 * keys.len());
    }
}
