//! Asymmetric log-in: a device has a private key, the broker its public key.
//!
//! | key | signature | by |
//! |---|---|---|
//! | RSA, 2048, 3072 or 4096 bits | PKCS#1 v1.5 or PSS, SHA-256; PSS with a salt of any length | `ring`, `rsa` for salts that aren't 32 bytes |
//! | RSA, 1024 bits, where [`crate::product::ProductPolicy`] allows it | the same | `rsa` |
//! | ECDSA P-256 | SHA-256, ASN.1 or the 64 bytes of r and s | `ring` |
//! | Ed25519 | 64 bytes | `ring` |
//!
//! With a password: client id, user name and text are those of `native` ([`crate::profile`]), and the password is
//! `v1r;{timestamp_ms};{nonce};{base64}` with a signature of the text. The key says how it is checked: nothing in the password does, so
//! nothing in it can be chosen. An RSA signature is tried both ways, by PSS twice, so a refusal takes three times as long as the quickest yes.
//!
//! By challenge (MQTT 5): methods `RSA-SHA256`, `ECDSA-SHA256` and `ED25519`, the text is that of `HMAC-SHA256`, and the answer is the signature,
//! as it is or in base64.
//!
//! A signature that fits no key, of a device that exists or of none, is checked against a decoy of its length, so a refusal takes about
//! as long either way. What its time can tell a patient stranger is whether a device has several keys of that length, or an RSA key with an
//! unusual exponent.

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
