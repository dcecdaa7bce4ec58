//! A sealed payload: a header of 14 bytes, the ciphertext, a tag of 16 bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | suite |
//! | 4 | epoch, big-endian |
//! | 8 | counter, big-endian: from 0, one for each message of this direction in this epoch |
//! | n | ciphertext |
//! | 16 | tag |
//!
//! Authenticated with it, in this order: the header, the direction (`U` or `D`), the product and the device each behind a byte with its
//! length, the topic.
//!
//! - AES-128-GCM: the nonce is epoch and counter, 12 bytes.
//! - The legacy suites are `AEAD_AES_128_CBC_HMAC_SHA_256` (RFC 7518, 5.2.3: the tag is the first half of the HMAC over
//!   associated data, IV, ciphertext and the associated data's length in bits), in CFB with CFB-128 in place of CBC and its padding. Its IV
//!   is the encryption under the same key of the nonce behind four zero bytes, as NIST SP 800-38A, appendix C, makes an unpredictable one.

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Nonce, Tag};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use turnpike_core::gate::DeviceIdentity;

use super::CipherError;
use super::keys::{Lane, length};
use super::policy::Suite;

/// First byte of each frame, and of what else goes over the topic of keys.
pub(crate) const VERSION: u8 = 1;

/// Bytes before the ciphertext.
pub const HEADER: usize = 14;

/// Bytes behind the ciphertext.
pub const TAG: usize = 16;

/// Which way a message goes; as it is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Direction {
    /// From the device.
    Up = b'U',
    /// To the device.
    Down = b'D',
}

/// What stands before the ciphertext.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) suite: Suite,
    pub(crate) epoch: u32,
    pub(crate) counter: u64,
}

impl Header {
    /// Takes a frame apart: header, then ciphertext and tag.
    pub(crate) fn parse(frame: &[u8]) -> Result<(Self, &[u8]), CipherError> {
        let (header, body) = frame.split_first_chunk::<HEADER>().ok_or(CipherError::Malformed)?;
        let [version, suite, e0, e1, e2, e3, counter @ ..] = *header;
        let suite = Suite::from_number(suite).filter(|_| version == VERSION).ok_or(CipherError::Malformed)?;
        let (epoch, counter) = (u32::from_be_bytes([e0, e1, e2, e3]), u64::from_be_bytes(counter));
        // The highest counter has no next one.
        if body.len() < TAG || counter == u64::MAX {
            return Err(CipherError::Malformed);
        }
        Ok((Self { suite, epoch, counter }, body))
    }

    fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [VERSION; HEADER];
        let (head, nonce) = bytes.split_at_mut(2);
        head.copy_from_slice(&[VERSION, self.suite as u8]);
        nonce.copy_from_slice(&self.nonce());
        bytes
    }

    fn nonce(self) -> [u8; 12] {
        let mut nonce = [0; 12];
        let (epoch, counter) = nonce.split_at_mut(4);
        epoch.copy_from_slice(&self.epoch.to_be_bytes());
        counter.copy_from_slice(&self.counter.to_be_bytes());
        nonce
    }

    fn iv(self, lane: &Lane) -> [u8; 16] {
        let mut block = [0; 16];
        let (_, nonce) = block.split_at_mut(4);
        nonce.copy_from_slice(&self.nonce());
        let mut block = block.into();
        Aes128::new(&lane.enc.into()).encrypt_block(&mut block);
        block.into()
    }

    fn associated(self, direction: Direction, who: &DeviceIdentity, topic: &str) -> Vec<u8> {
        let (product, device) = (who.product.as_bytes(), who.device.as_bytes());
        let parts: [&[u8]; 7] = [
            &self.bytes(),
            &[direction as u8],
            &[length(product)],
            product,
            &[length(device)],
            device,
            topic.as_bytes(),
        ];
        parts.concat()
    }
}

/// Whose message it is, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) direction: Direction,
    pub(crate) who: &'a DeviceIdentity,
    pub(crate) topic: &'a str,
}

/// Seals a payload. The counter has not been used under these keys.
pub(crate) fn seal(lane: &Lane, header: Header, context: Context<'_>, payload: &[u8]) -> Vec<u8> {
    let associated = header.associated(context.direction, context.who, context.topic);
    let mut frame = Vec::with_capacity(HEADER + payload.len() + 16 + TAG);
    frame.extend(header.bytes());
    match header.suite {
        Suite::Gcm => {
            frame.extend(payload);
            let (_, text) = frame.split_at_mut(HEADER);
            let tag = Aes128Gcm::new(&lane.enc.into())
                .encrypt_inout_detached(&Nonce::from(header.nonce()), &associated, text.into())
                .expect("an MQTT payload is shorter than the 64 GiB that AES-GCM takes");
            frame.extend(tag);
        }
        Suite::Cfb | Suite::Cbc => {
            let iv = header.iv(lane);
            let text = encrypt(header.suite, lane, &iv, payload);
            let tag = mac(lane, &associated, &iv, &text).finalize().into_bytes();
            frame.extend(text);
            frame.extend(tag.iter().take(TAG));
        }
    }
    frame
}

/// Opens what [`Header::parse`] left.
pub(crate) fn open(lane: &Lane, header: Header, context: Context<'_>, body: &[u8]) -> Result<Vec<u8>, CipherError> {
    let (text, tag) = body.split_last_chunk::<TAG>().ok_or(CipherError::Malformed)?;
    let associated = header.associated(context.direction, context.who, context.topic);
    match header.suite {
        Suite::Gcm => {
            let mut payload = text.to_vec();
            Aes128Gcm::new(&lane.enc.into())
                .decrypt_inout_detached(
                    &Nonce::from(header.nonce()),
                    &associated,
                    payload.as_mut_slice().into(),
                    &Tag::from(*tag),
                )
                .map_err(|_| CipherError::Altered)?;
            Ok(payload)
        }
        Suite::Cfb | Suite::Cbc => {
            let iv = header.iv(lane);
            mac(lane, &associated, &iv, text).verify_truncated_left(tag).map_err(|_| CipherError::Altered)?;
            decrypt(header.suite, lane, &iv, text).ok_or(CipherError::Altered)
        }
    }
}

fn encrypt(suite: Suite, lane: &Lane, iv: &[u8; 16], payload: &[u8]) -> Vec<u8> {
    let (key, iv) = (&lane.enc.into(), &(*iv).into());
    let mut text = payload.to_vec();
    if suite == Suite::Cfb {
        cfb_mode::Encryptor::<Aes128>::new(key, iv).encrypt(&mut text);
        return text;
    }
    text.resize(payload.len() + 16, 0);
    let sealed = cbc::Encryptor::<Aes128>::new(key, iv)
        .encrypt_padded::<Pkcs7>(&mut text, payload.len())
        .expect("there is room for a block of padding");
    let sealed_len = sealed.len();
    text.truncate(sealed_len);
    text
}

/// What is authentic and yet isn't padded was sealed by a device that can't pad.
fn decrypt(suite: Suite, lane: &Lane, iv: &[u8; 16], text: &[u8]) -> Option<Vec<u8>> {
    let (key, iv) = (&lane.enc.into(), &(*iv).into());
    let mut payload = text.to_vec();
    if suite == Suite::Cfb {
        cfb_mode::Decryptor::<Aes128>::new(key, iv).decrypt(&mut payload);
        return Some(payload);
    }
    let opened = cbc::Decryptor::<Aes128>::new(key, iv).decrypt_padded::<Pkcs7>(&mut payload).ok()?;
    let opened_len = opened.len();
    payload.truncate(opened_len);
    Some(payload)
}

fn mac(lane: &Lane, associated: &[u8], iv: &[u8; 16], text: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&lane.mac).expect("HMAC takes a key of any length");
    let bits = u64::try_from(associated.len() * 8).expect("a length in bits fits 8 bytes");
    for part in [associated, iv, text, &bits.to_be_bytes()] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests;
