//! Reason codes (MQTT 5, 2.4), and what becomes of them in MQTT 3.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// A reason code of MQTT 5. Codes that share a number (0x00) share a name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum ReasonCode { $($(#[$doc])* $name = $code,)* }

        impl TryFrom<u8> for ReasonCode {
            type Error = u8;
            fn try_from(code: u8) -> Result<Self, u8> {
                match code { $($code => Ok(Self::$name),)* other => Err(other) }
            }
        }
    };
}

reasons! {
    /// Success, normal disconnection, granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// DISCONNECT: publish the will all the same.
    DisconnectWithWill = 0x04,
    /// PUBACK, PUBREC: nobody has subscribed.
    NoMatchingSubscribers = 0x10,
    /// UNSUBACK: there was nothing to take away.
    NoSubscriptionExisted = 0x11,
    /// AUTH.
    ContinueAuthentication = 0x18,
    /// AUTH.
    ReAuthenticate = 0x19,
    /// Unspecified.
    UnspecifiedError = 0x80,
    /// Can't be decoded.
    MalformedPacket = 0x81,
    /// Decodes, and isn't allowed.
    ProtocolError = 0x82,
    /// Allowed, and not by this server.
    ImplementationSpecificError = 0x83,
    /// CONNACK.
    UnsupportedProtocolVersion = 0x84,
    /// CONNACK.
    ClientIdentifierNotValid = 0x85,
    /// CONNACK.
    BadUserNameOrPassword = 0x86,
    /// No permit.
    NotAuthorized = 0x87,
    /// CONNACK.
    ServerUnavailable = 0x88,
    /// Try later.
    ServerBusy = 0x89,
    /// CONNACK.
    Banned = 0x8A,
    /// DISCONNECT.
    ServerShuttingDown = 0x8B,
    /// CONNACK, DISCONNECT.
    BadAuthenticationMethod = 0x8C,
    /// DISCONNECT.
    KeepAliveTimeout = 0x8D,
    /// DISCONNECT.
    SessionTakenOver = 0x8E,
    /// Well formed, and not accepted.
    TopicFilterInvalid = 0x8F,
    /// Well formed, and not accepted.
    TopicNameInvalid = 0x90,
    /// Acknowledgements.
    PacketIdentifierInUse = 0x91,
    /// PUBREL, PUBCOMP.
    PacketIdentifierNotFound = 0x92,
    /// DISCONNECT.
    ReceiveMaximumExceeded = 0x93,
    /// DISCONNECT.
    TopicAliasInvalid = 0x94,
    /// Larger than announced.
    PacketTooLarge = 0x95,
    /// DISCONNECT.
    MessageRateTooHigh = 0x96,
    /// A limit of the server's.
    QuotaExceeded = 0x97,
    /// DISCONNECT.
    AdministrativeAction = 0x98,
    /// The payload isn't what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// CONNACK, DISCONNECT.
    RetainNotSupported = 0x9A,
    /// CONNACK, DISCONNECT.
    QosNotSupported = 0x9B,
    /// CONNACK, DISCONNECT.
    UseAnotherServer = 0x9C,
    /// CONNACK, DISCONNECT.
    ServerMoved = 0x9D,
    /// SUBACK, DISCONNECT.
    SharedSubscriptionsNotSupported = 0x9E,
    /// CONNACK, DISCONNECT.
    ConnectionRateExceeded = 0x9F,
    /// DISCONNECT.
    MaximumConnectTime = 0xA0,
    /// SUBACK, DISCONNECT.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// SUBACK, DISCONNECT.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// 0x80 and above say that something wasn't done.
    #[must_use]
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }
}

macro_rules! connect_reasons {
    ($($(#[$doc:meta])* $name:ident => $return_code:literal,)*) => {
        /// The reasons that a CONNACK may carry (MQTT 5, 3.2.2.2).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum ConnectReason { $($(#[$doc])* $name = ReasonCode::$name as u8,)* }

        impl ConnectReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The return code that says most nearly the same to an MQTT 3 client (3.1.1, 3.2.2.3).
            /// Implements [MQTT3-3.1.3-9] [MQTT3-3.2.2-6].
            #[must_use]
            pub fn return_code(self) -> u8 {
                match self { $(Self::$name => $return_code,)* }
            }
        }

        impl From<ConnectReason> for ReasonCode {
            fn from(reason: ConnectReason) -> Self {
                match reason { $(ConnectReason::$name => Self::$name,)* }
            }
        }

        impl TryFrom<ReasonCode> for ConnectReason {
            type Error = ReasonCode;
            fn try_from(reason: ReasonCode) -> Result<Self, ReasonCode> {
                match reason { $(ReasonCode::$name => Ok(Self::$name),)* other => Err(other) }
            }
        }
    };
}

connect_reasons! {
    /// Accepted.
    Success => 0,
    /// Unspecified.
    UnspecifiedError => 3,
    /// The CONNECT can't be decoded.
    MalformedPacket => 3,
    /// The CONNECT isn't allowed as it is.
    ProtocolError => 3,
    /// Not by this server.
    ImplementationSpecificError => 3,
    /// Level not offered.
    UnsupportedProtocolVersion => 1,
    /// Client id not accepted.
    ClientIdentifierNotValid => 2,
    /// Credentials wrong or unknown.
    BadUserNameOrPassword => 4,
    /// Known, and not allowed in.
    NotAuthorized => 5,
    /// Not now.
    ServerUnavailable => 3,
    /// Try later.
    ServerBusy => 3,
    /// Shut out.
    Banned => 5,
    /// Method unknown or not the same.
    BadAuthenticationMethod => 4,
    /// Will topic.
    TopicNameInvalid => 3,
    /// Larger than allowed.
    PacketTooLarge => 3,
    /// A limit of the server's.
    QuotaExceeded => 3,
    /// Will payload.
    PayloadFormatInvalid => 3,
    /// Will.
    RetainNotSupported => 3,
    /// Will.
    QosNotSupported => 3,
    /// For now.
    UseAnotherServer => 3,
    /// For good.
    ServerMoved => 3,
    /// Too many connects.
    ConnectionRateExceeded => 3,
}

impl TryFrom<u8> for ConnectReason {
    type Error = u8;
    fn try_from(code: u8) -> Result<Self, u8> {
        ReasonCode::try_from(code).and_then(|reason| Self::try_from(reason).map_err(|reason| reason as u8))
    }
}
