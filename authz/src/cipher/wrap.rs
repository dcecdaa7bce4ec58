//! A key from the device under the platform's RSA key: RSAES-OAEP with SHA-256 for both its hashes and no label (RFC 8017, 7.1).
//!
//! Opening one takes milliseconds: it is work for the control plane, not for a shard. It is blinded with random bytes of the
//! caller's, since its time would otherwise depend on what a stranger sent.

use std::fmt;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use rsa::traits::PublicKeyParts;
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Why a key can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WrapError {
    /// Not a key in PEM: PKCS#8 for a private one, SPKI for a public one.
    #[error("this isn't an RSA key in PEM (PKCS#8)")]
    Key,
    /// Too weak, or so large that opening takes too long.
    #[error("the platform's RSA key has 2048 to 4096 bits")]
    Size,
    /// Not wrapped under this key, or altered; nobody is told more.
    #[error("a wrapped key doesn't open")]
    Open,
}

/// A key that a device made: 32 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeviceKey(pub(crate) [u8; 32]);

impl DeviceKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}

fn sized(key: &impl PublicKeyParts) -> Result<(), WrapError> {
    if (2048..=4096).contains(&key.n().bits()) { Ok(()) } else { Err(WrapError::Size) }
}

/// The platform's RSA key.
#[derive(Clone)]
pub struct PlatformKey(RsaPrivateKey);

impl PlatformKey {
    /// From PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`WrapError::Key`], [`WrapError::Size`].
    pub fn from_pem(text: &str) -> Result<Self, WrapError> {
        let key = RsaPrivateKey::from_pkcs8_pem(text).map_err(|_| WrapError::Key)?;
        sized(&key).map(|()| Self(key))
    }

    /// The half that devices are given.
    #[must_use]
    pub fn public(&self) -> PublicPlatformKey {
        PublicPlatformKey(self.0.to_public_key())
    }

    /// Opens a wrapped key. `random` is fresh.
    ///
    /// # Errors
    /// [`WrapError::Open`].
    pub fn open(&self, wrapped: &[u8], random: [u8; 32]) -> Result<DeviceKey, WrapError> {
        let mut rng = ChaCha20Rng::from_seed(random);
        let opened = self.0.decrypt_blinded(&mut rng, Oaep::<Sha256>::new(), wrapped).map_err(|_| WrapError::Open)?;
        let opened = Zeroizing::new(opened);
        opened.as_slice().try_into().map(DeviceKey).map_err(|_| WrapError::Open)
    }
}

impl fmt::Debug for PlatformKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformKey({} bits)", self.0.n().bits())
    }
}

/// The half of the platform's RSA key that devices are given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicPlatformKey(RsaPublicKey);

impl PublicPlatformKey {
    /// From SPKI in PEM.
    ///
    /// # Errors
    /// [`WrapError::Key`], [`WrapError::Size`].
    pub fn from_pem(text: &str) -> Result<Self, WrapError> {
        let key = RsaPublicKey::from_public_key_pem(text).map_err(|_| WrapError::Key)?;
        sized(&key).map(|()| Self(key))
    }

    /// SPKI in PEM, for whoever builds devices.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("an RSA key can be written")
    }

    /// Wraps a key, as a device does. `random` is fresh.
    #[must_use]
    pub fn wrap(&self, key: &DeviceKey, random: [u8; 32]) -> Vec<u8> {
        let mut rng = ChaCha20Rng::from_seed(random);
        self.0.encrypt(&mut rng, Oaep::<Sha256>::new(), &key.0).expect("OAEP under 2048 bits takes 190 bytes")
    }
}

#[cfg(test)]
mod tests {
    use rsa::pkcs8::EncodePrivateKey;

    use super::*;

    fn pem(bits: usize) -> String {
        let mut rng = ChaCha20Rng::from_seed([u8::try_from(bits / 256).expect("small"); 32]);
        let key = RsaPrivateKey::new(&mut rng, bits).expect("a key");
        key.to_pkcs8_pem(LineEnding::LF).expect("a key can be written").to_string()
    }

    // One test, since making a key takes a while.
    #[test]
    fn a_key_opens_under_the_platforms_and_unaltered() {
        let platform = PlatformKey::from_pem(&pem(2048)).expect("a key");
        let public = PublicPlatformKey::from_pem(&platform.public().to_pem()).expect("a public key");
        assert_eq!(public, platform.public());
        let wrapped = public.wrap(&DeviceKey::new([7; 32]), [1; 32]);
        assert_eq!(platform.open(&wrapped, [2; 32]).expect("wrapped").0, [7; 32]);
        assert_ne!(public.wrap(&DeviceKey::new([7; 32]), [3; 32]), wrapped);

        for at in [0, 1, 128, 255] {
            let mut altered = wrapped.clone();
            altered[at] ^= 1;
            assert_eq!(platform.open(&altered, [2; 32]).err(), Some(WrapError::Open), "byte {at}");
        }
        for bytes in [&[][..], &wrapped[1..], &[0; 256], &[0xFF; 256], &[0; 512]] {
            assert_eq!(platform.open(bytes, [2; 32]).err(), Some(WrapError::Open));
        }
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let short = public.0.encrypt(&mut rng, Oaep::<Sha256>::new(), &[7; 31]).expect("short enough");
        assert_eq!(platform.open(&short, [2; 32]).err(), Some(WrapError::Open), "another length");
        assert!(!format!("{platform:?} {:?}", DeviceKey::new([0xAB; 32])).contains("ab"));
    }

    #[test]
    fn a_weak_key_is_refused() {
        assert_eq!(PlatformKey::from_pem(&pem(1024)).err(), Some(WrapError::Size));
        assert_eq!(PlatformKey::from_pem("").err(), Some(WrapError::Key));
        assert_eq!(PublicPlatformKey::from_pem("-----BEGIN PUBLIC KEY-----").err(), Some(WrapError::Key));
    }
}
