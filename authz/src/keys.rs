//! Asymmetric log-in: a device has a private key, the broker its public key.
//!
//! | key | signature | by |
//! |---|---|---|
//! | RSA, 2048, 3072 or 4096 bits | PKCS#1 v1.5 or PSS, SHA-256; PSS with a salt of 32 bytes | `ring` |
//! | RSA, 1024 bits, where [`crate::product::ProductPolicy`] allows it | the same | `rsa` |
//! | ECDSA P-256 | SHA-256, ASN.1 or the 64 bytes of r and s | `ring` |
//! | Ed25519 | 64 bytes | `ring` |
//!
//! With a password: client id, user name and text are those of `native` ([`crate::profile`]), and the password is
//! `v1r;{timestamp_ms};{nonce};{base64}` with a signature of the text. The key says how it is checked: nothing in the password does, so
//! nothing in it can be chosen. An RSA signature is tried both ways.
//!
//! By challenge (MQTT 5): methods `RSA-SHA256`, `ECDSA-SHA256` and `ED25519`, the text is that of `HMAC-SHA256`, and the answer is the signature,
//! as it is or in base64.
//!
//! What a stranger learns from the time that a refusal takes: nothing of whether a device exists or has a key, since a signature that fits none
//! is checked against a decoy of its length; of a device that exists, how many of its keys fit that length.

mod login;
mod private;
mod proofs;
mod public;
mod verify;

pub use login::Method;
pub(crate) use login::{Signed, answer_bytes};
pub use private::{PrivateKey, PrivateKeyError, SignError};
pub use proofs::{Proof, Proofs, ProofsError};
pub use public::{KeyError, KeyKind, PublicKey};
pub(crate) use verify::signer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
