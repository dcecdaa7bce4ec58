//! Log-in, refresh, log-out (4.1.2.2).

use turnpike_core::clock::Now;

use super::record::Change;
use super::table::Platforms;
use super::token::{Access, Family, FamilyId, Token, TokenHash};
use super::{ACCESS_MS, Cause, FAMILIES_MAX, PlatId, REFRESH_MS};

/// Fresh random bytes for a log-in or a refresh.
#[derive(Clone, Copy)]
pub struct LogInRandom {
    /// Names the family.
    pub family: [u8; 8],
    /// For the AccessToken.
    pub access: [u8; 32],
    /// For the RefreshToken.
    pub refresh: [u8; 32],
}

/// Tokens that a platform gets, once the changes have been committed and applied.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Good for [`ACCESS_MS`].
    pub access: Token,
    /// Good for [`REFRESH_MS`], and once.
    pub refresh: Token,
    /// To be committed together, and applied.
    pub changes: Vec<Change>,
}

/// What becomes of a refresh.
#[derive(Clone, Debug)]
pub enum Refresh {
    /// New tokens.
    Issued(Issued),
    /// The token is of a family that is there, and isn't its RefreshToken: it has been used, or made up. To be committed and applied: the end of the family.
    Reused(Change),
    /// There is no such family, or its time is over.
    Unknown,
}

impl Platforms {
    /// Logs a platform in that has been admitted. Log-ins whose time is over end, and the oldest one where there is no room.
    ///
    /// # Errors
    /// [`Cause::UnknownPlatform`]: it has gone meanwhile.
    pub fn plan_log_in(&self, id: PlatId, random: &LogInRandom, now: Now) -> Result<Issued, Cause> {
        let entry = self.entry(id).ok_or(Cause::UnknownPlatform)?;
        let families = entry.families.read();
        let (over, mut live): (Vec<&Family>, Vec<&Family>) =
            families.iter().partition(|family| family.until_ms <= now.unix_ms);
        let crowded = (live.len() + 1).saturating_sub(FAMILIES_MAX);
        let ended = over.into_iter().chain(live.drain(..crowded));
        let mut changes: Vec<Change> = ended.map(|family| Change::EndFamily(id, family.id)).collect();
        let (issued, family) = issue(id, FamilyId(random.family), random, now);
        changes.push(Change::PutFamily(id, family));
        Ok(Issued { changes, ..issued })
    }

    /// Uses a RefreshToken of a platform that has been admitted.
    #[must_use]
    pub fn plan_refresh(&self, id: PlatId, token: &str, random: &LogInRandom, now: Now) -> Refresh {
        let (Some(entry), Some(family)) = (self.entry(id), FamilyId::of(token)) else { return Refresh::Unknown };
        let families = entry.families.read();
        let Some(known) = families.iter().find(|known| known.id == family) else { return Refresh::Unknown };
        if known.refresh != TokenHash::of(token) {
            return Refresh::Reused(Change::EndFamily(id, family));
        }
        if known.until_ms <= now.unix_ms {
            return Refresh::Unknown;
        }
        let (issued, renewed) = issue(id, family, random, now);
        Refresh::Issued(Issued { changes: vec![Change::PutFamily(id, renewed)], ..issued })
    }

    /// Ends the log-in of an AccessToken.
    #[must_use]
    pub fn plan_log_out(&self, id: PlatId, family: FamilyId) -> Change {
        Change::EndFamily(id, family)
    }

    /// Ends all log-ins of a platform.
    #[must_use]
    pub fn plan_end_all(&self, id: PlatId) -> Vec<Change> {
        let Some(entry) = self.entry(id) else { return Vec::new() };
        let families = entry.families.read();
        families.iter().map(|family| Change::EndFamily(id, family.id)).collect()
    }

    /// The family of an AccessToken that is good.
    pub(super) fn check_access(&self, id: PlatId, token: &str, now: Now) -> Result<FamilyId, Cause> {
        let (Some(entry), Some(family)) = (self.entry(id), FamilyId::of(token)) else { return Err(Cause::WrongAccess) };
        let hash = TokenHash::of(token);
        let families = entry.families.read();
        let known = families.iter().find(|known| known.id == family).and_then(|known| known.access.as_ref());
        let is_good = known.is_some_and(|access| access.hash == hash && access.until_mono_ms > now.mono_ms);
        if is_good { Ok(family) } else { Err(Cause::WrongAccess) }
    }
}

fn issue(id: PlatId, family: FamilyId, random: &LogInRandom, now: Now) -> (Issued, Family) {
    let access = Token::of_family(&random.access, "AccessToken", id, family, now.unix_ms);
    let refresh = Token::of_family(&random.refresh, "RefreshToken", id, family, now.unix_ms);
    let family = Family {
        id: family,
        refresh: TokenHash::of(refresh.expose()),
        until_ms: now.unix_ms.saturating_add(REFRESH_MS),
        access: Some(Access {
            hash: TokenHash::of(access.expose()),
            until_mono_ms: now.mono_ms.saturating_add(ACCESS_MS),
        }),
    };
    (Issued { access, refresh, changes: Vec::new() }, family)
}
