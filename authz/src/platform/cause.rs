//! Why a platform's request isn't done: all of it for the audit, and of that a code for the platform (4.1.4).

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $status:literal;)*) => {
        /// What a platform hears. A number, and an HTTP status that follows from it; nothing else.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number in the answer's body.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The status of HTTP.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// Not one of the requests: the path, the method.
    Unknown = 1001, 404;
    /// Not `application/json` in UTF-8.
    MediaType = 1002, 415;
    /// Too long.
    TooLarge = 1003, 413;
    /// No JSON, or a field that is unknown, missing, given twice, of the wrong type, length or characters.
    Malformed = 1004, 400;
    /// The platform, its certificate and its signature don't belong together.
    Identity = 2001, 401;
    /// Right, and the operator has disabled the platform.
    Disabled = 2002, 403;
    /// The timestamp is more than ten minutes from the broker's clock.
    Time = 2003, 401;
    /// The nonce has been used.
    Nonce = 2004, 401;
    /// The AccessToken or the RefreshToken isn't good, or isn't any more.
    Token = 2005, 401;
    /// Not a device that the platform is granted, or not in this way.
    NotGranted = 3001, 403;
    /// The user has no data key that is good.
    DataKey = 3002, 403;
    /// Too many requests; try later.
    TooMany = 4001, 429;
    /// The broker can't do it now; try later.
    Unavailable = 5001, 503;
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal => $code:ident,)*) => {
        /// Why a request isn't done.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As the audit has it.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What the platform hears.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

causes! {
    /// No such path or method.
    UnknownRequest = "unknown_request" => Unknown,
    /// The header says something else.
    MediaType = "media_type" => MediaType,
    /// The body is too long.
    TooLarge = "too_large" => TooLarge,
    /// See [`Code::Malformed`].
    Malformed = "malformed" => Malformed,
    /// It isn't registered.
    UnknownPlatform = "unknown_platform" => Identity,
    /// Another's certificate.
    WrongCertificate = "wrong_certificate" => Identity,
    /// A certificate that is valid for more than 24 months.
    LongCertificate = "long_certificate" => Identity,
    /// A certificate before or after its time: TLS has taken it while it was good.
    ExpiredCertificate = "expired_certificate" => Identity,
    /// The signature is another's, or something was altered.
    WrongSignature = "wrong_signature" => Identity,
    /// The AuthToken doesn't open: another master key, a damaged record.
    Sealed = "sealed" => Unavailable,
    /// By the operator.
    Disabled = "disabled" => Disabled,
    /// The timestamp.
    StaleTimestamp = "stale_timestamp" => Time,
    /// The nonce.
    NonceReused = "nonce_reused" => Nonce,
    /// No room to remember the nonce.
    NoncesFull = "nonces_full" => TooMany,
    /// The AccessToken: unknown, expired, replaced, logged out.
    WrongAccess = "wrong_access_token" => Token,
    /// The RefreshToken: unknown, expired, logged out.
    WrongRefresh = "wrong_refresh_token" => Token,
    /// The RefreshToken has been used, or another was made up: its family has ended.
    RefreshReused = "refresh_token_reused" => Token,
    /// The product isn't granted, or not for that, or there is no such device.
    NotGranted = "not_granted" => NotGranted,
    /// The user may not.
    UserNotAllowed = "user_not_allowed" => NotGranted,
    /// The user has none, or it has ended.
    NoDataKey = "no_data_key" => DataKey,
    /// Too many users have one.
    DataKeysFull = "data_keys_full" => TooMany,
    /// Over a rate.
    TooMany = "too_many" => TooMany,
    /// The store takes no changes.
    Store = "store_unavailable" => Unavailable,
    /// The audit can't be written, and nothing is done that isn't on record.
    Audit = "not_audited" => Unavailable,
    /// The message could not be taken.
    NotTaken = "not_taken" => Unavailable,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_labels_are_unique() {
        let numbers: HashSet<u16> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
        let labels: HashSet<&str> = Cause::ALL.iter().map(|cause| cause.label()).collect();
        assert_eq!(labels.len(), Cause::ALL.len());
        assert!(Code::ALL.iter().all(|code| (400..600).contains(&code.status())));
    }
}
