//! Why nobody was let in: all of it for metrics and logs, and of that what the client hears.

use turnpike_mqtt::ConnectReason;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $label:literal => $reason:ident,)*) => {
        /// Why nobody was let in.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As a label of a metric.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What the client hears.
            #[must_use]
            pub fn reason(self) -> ConnectReason {
                match self { $(Self::$name => ConnectReason::$reason,)* }
            }
        }
    };
}

refusals! {
    /// No user name or password.
    NoCredentials = "no_credentials" => BadUserNameOrPassword,
    /// Of no known format.
    Malformed = "malformed" => BadUserNameOrPassword,
    /// The product isn't in the registry.
    UnknownProduct = "unknown_product" => BadUserNameOrPassword,
    /// The device isn't in the registry.
    UnknownDevice = "unknown_device" => BadUserNameOrPassword,
    /// The signature is another's.
    WrongSignature = "wrong_signature" => BadUserNameOrPassword,
    /// More than ten minutes from the broker's clock.
    StaleTimestamp = "stale_timestamp" => BadUserNameOrPassword,
    /// Right, and used before.
    NonceReused = "nonce_reused" => BadUserNameOrPassword,
    /// Right credentials, and no room to remember their nonce.
    NoncesFull = "nonces_full" => QuotaExceeded,
    /// Right credentials, and too many others of this device have been used within twenty minutes.
    TooManyLogIns = "too_many_log_ins" => ConnectionRateExceeded,
    /// Right credentials, and the device or its product is disabled.
    Disabled = "disabled" => NotAuthorized,
    /// Right credentials, of a profile that the product doesn't take.
    ProfileNotAllowed = "profile_not_allowed" => NotAuthorized,
    /// The app isn't known.
    UnknownApp = "unknown_app" => BadUserNameOrPassword,
    /// The app has no such user.
    UnknownUser = "unknown_user" => BadUserNameOrPassword,
    /// The service isn't known.
    UnknownService = "unknown_service" => BadUserNameOrPassword,
    /// The session code was never issued, or is over, or another user's.
    UnknownCode = "unknown_code" => BadUserNameOrPassword,
    /// The token names no key that the app has, or an algorithm that isn't taken.
    UnknownTokenKey = "unknown_token_key" => BadUserNameOrPassword,
    /// The token names a key that isn't in the app's set, which is being fetched anew.
    KeysAwaited = "keys_awaited" => ServerUnavailable,
    /// The token is rightly signed, for another audience or user, or by another issuer.
    ForeignToken = "foreign_token" => BadUserNameOrPassword,
    /// The token is rightly signed, and over or not yet begun.
    TokenExpired = "token_expired" => NotAuthorized,
    /// A service's secret itself, without TLS.
    PlainSecret = "plain_secret" => BadUserNameOrPassword,
    /// The right secret, from outside the service's networks.
    WrongNetwork = "wrong_network" => NotAuthorized,
    /// Right credentials, by an RSA key of 1024 bits that the product doesn't take.
    WeakKey = "weak_key" => NotAuthorized,
    /// Right credentials, without TLS, of a product that demands it.
    TlsRequired = "tls_required" => NotAuthorized,
    /// Right credentials, without a certificate, of a product that demands one.
    CertificateRequired = "certificate_required" => NotAuthorized,
    /// The certificate is another's, or of no known device.
    WrongCertificate = "wrong_certificate" => BadUserNameOrPassword,
    /// The device's certificate, before or after its time.
    CertificateExpired = "certificate_expired" => NotAuthorized,
    /// An authentication method that isn't offered.
    BadMethod = "bad_method" => BadAuthenticationMethod,
    /// Its product's verifier says that the proof isn't right.
    VerifierRefused = "verifier_refused" => BadUserNameOrPassword,
    /// Its product names a verifier that this broker doesn't have.
    VerifierMissing = "verifier_missing" => ServerUnavailable,
    /// The call-out's breaker is open: it has failed lately.
    CalloutBroken = "callout_broken" => ServerUnavailable,
    /// Too many calls are under way.
    CalloutBusy = "callout_busy" => ServerUnavailable,
    /// The call-out can't be reached.
    CalloutFailed = "callout_failed" => ServerUnavailable,
    /// The call-out hasn't answered in time.
    CalloutTimedOut = "callout_timed_out" => ServerUnavailable,
    /// The call-out has answered what can't be understood.
    CalloutGarbage = "callout_garbage" => ServerUnavailable,
    /// Right credentials of a product that demands a statement of firmware and module, and none is there, or none is expected.
    AttestationMissing = "attestation_missing" => NotAuthorized,
    /// Right credentials, and a statement of firmware and module that isn't the expected one.
    AttestationMismatch = "attestation_mismatch" => NotAuthorized,
    /// The sealed secret doesn't open: the master key is another, or the record is damaged.
    SecretSealed = "secret_sealed" => ServerUnavailable,
}
