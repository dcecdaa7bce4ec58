//! What a platform's user may do, as somebody else knows it.

use super::{PlatId, UserId};
use crate::names::{DeviceName, ProductKey};

/// Decides for the users of platforms. Asked after the platform's own grants have said yes, by the HTTP side: it may look things up in memory, and must not
/// wait.
pub trait Users: Send + Sync + std::fmt::Debug {
    /// Whether a platform's user may read a device, or control it.
    fn may(&self, platform: PlatId, user: &UserId, device: (&ProductKey, &DeviceName), control: bool) -> bool;
}

/// The platform decides: it knows its users and what they have bound, and answers for them. What it is granted bounds them all.
#[derive(Clone, Copy, Debug)]
pub struct PlatformDecides;

impl Users for PlatformDecides {
    fn may(&self, _platform: PlatId, _user: &UserId, _device: (&ProductKey, &DeviceName), _control: bool) -> bool {
        true
    }
}
