//! MQTT 5 properties (2.2.2). Each packet's set is a struct of its own, so a property where it isn't allowed can't be said.
//! User properties stay encoded ([`UserProperties`]); they are checked when decoded and read by iterating.

/// Encoded user properties, checked: each is identifier 0x26, name, value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UserProperties<'a> {
    pub(crate) bytes: &'a [u8],
}

/// Properties of CONNECT (3.1.2.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectProperties<'a> {
    /// Seconds; absent means 0; `u32::MAX` means never.
    pub session_expiry_s: Option<u32>,
    /// In-flight limit of the client, at least 1.
    pub receive_maximum: Option<u16>,
    /// Bytes, at least 1.
    pub maximum_packet_size: Option<u32>,
    /// Highest alias that the client accepts.
    pub topic_alias_maximum: Option<u16>,
    /// Wants response information in CONNACK.
    pub request_response_information: bool,
    /// Absent means true.
    pub request_problem_information: Option<bool>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// Its data; never without a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// Properties of the will (3.1.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WillProperties<'a> {
    /// Seconds.
    pub delay_s: u32,
    /// Seconds.
    pub message_expiry_s: Option<u32>,
    /// All that is forwarded with the message, encoded, without the two above (payload format, content type, response topic,
    /// correlation data, user properties).
    pub forwardable: Forwardable<'a>,
}

/// Encoded properties that a PUBLISH hands on unaltered [MQTT-3.3.2-4, -15, -16, -17, -18, -20]: payload format indicator,
/// content type, response topic, correlation data and user properties, in the order of the sender.
///
/// `raw` is the whole property section of the packet, checked. Where nothing else stands in it (`len == raw.len()`), it is copied as
/// it is; otherwise `copy_to` leaves out what isn't forwarded (topic alias, expiry, subscription identifiers).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forwardable<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) len: usize,
}

/// One of [`Forwardable`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardableItem<'a> {
    /// 0: bytes; 1: UTF-8.
    PayloadFormat(u8),
    /// MIME or whatever the two ends agree on.
    ContentType(&'a str),
    /// Where an answer is awaited.
    ResponseTopic(&'a str),
    /// What the answer must carry.
    CorrelationData(&'a [u8]),
    /// Name and value.
    User(&'a str, &'a str),
}

/// Properties of PUBLISH (3.3.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PublishProperties<'a> {
    /// Seconds.
    pub message_expiry_s: Option<u32>,
    /// Never 0.
    pub topic_alias: Option<u16>,
    /// What is forwarded.
    pub forwardable: Forwardable<'a>,
    /// The section that has subscription identifiers (server to client only), empty if there are none; read with
    /// [`PublishProperties::identifiers`].
    pub subscription_identifiers: &'a [u8],
}

/// Properties of CONNACK (3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnAckProperties<'a> {
    /// Seconds, where the server uses another than the client asked for.
    pub session_expiry_s: Option<u32>,
    /// The server's in-flight limit.
    pub receive_maximum: Option<u16>,
    /// 0 or 1; absent means 2.
    pub maximum_qos: Option<u8>,
    /// Absent means available.
    pub retain_available: Option<bool>,
    /// Bytes.
    pub maximum_packet_size: Option<u32>,
    /// Where the client sent none.
    pub assigned_client_id: Option<&'a str>,
    /// Highest alias that the server accepts.
    pub topic_alias_maximum: Option<u16>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Absent means available.
    pub wildcard_available: Option<bool>,
    /// Absent means available.
    pub identifiers_available: Option<bool>,
    /// Absent means available.
    pub shared_available: Option<bool>,
    /// Seconds that the client must use instead of its own.
    pub server_keep_alive_s: Option<u16>,
    /// Basis for response topics.
    pub response_information: Option<&'a str>,
    /// Another server.
    pub server_reference: Option<&'a str>,
    /// Method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// Its data.
    pub authentication_data: Option<&'a [u8]>,
}

/// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, UNSUBSCRIBE (no reason string there).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AckProperties<'a> {
    /// For people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
}

/// Properties of SUBSCRIBE (3.8.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SubscribeProperties<'a> {
    /// 1 to 268,435,455.
    pub identifier: Option<u32>,
    /// User properties.
    pub user: UserProperties<'a>,
}

/// Properties of DISCONNECT (3.14.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DisconnectProperties<'a> {
    /// Seconds; from the client only.
    pub session_expiry_s: Option<u32>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Another server; from the server only.
    pub server_reference: Option<&'a str>,
}

/// Properties of AUTH (3.15.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuthProperties<'a> {
    /// The method; always there unless the packet is the short form.
    pub method: Option<&'a str>,
    /// Its data.
    pub data: Option<&'a [u8]>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
}
