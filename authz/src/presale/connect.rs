//! Registration by CONNECT, which aliyun's devices do: the gate asks the control plane, which alone may register ([`crate::gate`]).

use std::fmt;
use std::net::SocketAddr;

use turnpike_core::gate::{Answer, Attempt, Parting, Question, Verdict};
use turnpike_mqtt::ConnectReason;

use super::{RegisterError, aliyun};

/// What the gate asks: a CONNECT that wants a registration, not believed yet.
pub struct Asked {
    client_id: Box<str>,
    user_name: Box<str>,
    password: Box<[u8]>,
    /// The device's address.
    pub peer: SocketAddr,
    /// Whether it came through TLS.
    pub tls: bool,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("peer", &self.peer).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Asked {
    /// None if a CONNECT wants something else.
    #[must_use]
    pub fn from_attempt(attempt: &Attempt<'_>) -> Option<Self> {
        let (user_name, password) = (attempt.user_name?, attempt.password?);
        aliyun::Claim::from_connect(attempt.client_id, user_name, password)?;
        Some(Self {
            client_id: attempt.client_id.into(),
            user_name: user_name.into(),
            password: password.into(),
            peer: attempt.peer,
            tls: attempt.tls,
        })
    }

    /// What it claims.
    #[must_use]
    pub fn claim(&self) -> Option<aliyun::Claim<'_>> {
        aliyun::Claim::from_connect(&self.client_id, &self.user_name, &self.password)
    }
}

/// What the control plane answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// A device is registered; this is to be said to it.
    Registered(Parting),
    /// None is.
    Refused(RegisterError),
    /// The broker can't at the moment.
    Unavailable,
}

/// The question that a CONNECT raises, if it wants a registration.
pub(crate) fn question(attempt: &Attempt<'_>) -> Option<Question> {
    Asked::from_attempt(attempt).map(Question::new)
}

/// What becomes of a CONNECT.
///
/// # Errors
/// The answer is of another kind.
pub(crate) fn verdict(answer: Answer) -> Result<Verdict, Answer> {
    Ok(match answer.downcast::<Told>()? {
        Told::Registered(parting) => Verdict::Dismissed(Box::new(parting)),
        Told::Refused(error) => Verdict::Refused(reason(error), error.label()),
        Told::Unavailable => Verdict::Refused(ConnectReason::ServerUnavailable, "unavailable"),
    })
}

/// As CONNACK says it. MQTT 3 has fewer words: expired and not allowed are one there.
fn reason(error: RegisterError) -> ConnectReason {
    match error {
        RegisterError::Malformed | RegisterError::Unknown | RegisterError::WrongKey => {
            ConnectReason::BadUserNameOrPassword
        }
        RegisterError::NotAllowed | RegisterError::TlsRequired | RegisterError::Replayed => {
            ConnectReason::NotAuthorized
        }
        RegisterError::Expired => ConnectReason::Banned,
        RegisterError::Capacity => ConnectReason::QuotaExceeded,
        RegisterError::Exists => ConnectReason::ClientIdentifierNotValid,
        RegisterError::Sealed => ConnectReason::ServerUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt<'a>(client_id: &'a str, user_name: Option<&'a str>, password: Option<&'a [u8]>) -> Attempt<'a> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        Attempt { client_id, user_name, password, peer, tls: true, certificate: None, enhanced: None }
    }

    #[test]
    fn a_connect_that_wants_a_registration_is_kept_whole_and_not_shown() {
        let client_id = "x|authType=register,random=1,signmethod=hmacsha1|";
        let asked = Asked::from_attempt(&attempt(client_id, Some("d&p"), Some(b"00ff"))).expect("it wants one");
        let claim = asked.claim().expect("as it was");
        assert_eq!((claim.product, claim.device), ("p", "d"));
        assert_eq!(format!("{asked:?}"), "Asked { peer: 127.0.0.1:1, tls: true, .. }");
        assert!(Asked::from_attempt(&attempt("x|signmethod=hmacsha1|", Some("d&p"), Some(b"00ff"))).is_none());
        assert!(Asked::from_attempt(&attempt(client_id, None, Some(b"00ff"))).is_none());
        assert!(Asked::from_attempt(&attempt(client_id, Some("d&p"), None)).is_none());
    }

    #[test]
    fn each_answer_is_a_verdict_of_its_own_kind() {
        let parting = Parting { topic: "/ext/register".into(), payload: b"{}".to_vec() };
        let said = verdict(Answer::new(Told::Registered(parting.clone()))).expect("ours");
        assert!(matches!(said, Verdict::Dismissed(said) if *said == parting));
        for error in RegisterError::ALL {
            let said = verdict(Answer::new(Told::Refused(*error))).expect("ours");
            assert!(matches!(said, Verdict::Refused(_, label) if label == error.label()));
        }
        let codes = [RegisterError::Capacity, RegisterError::Expired, RegisterError::Exists, RegisterError::Unknown];
        let codes: std::collections::HashSet<u8> = codes.into_iter().map(|error| reason(error) as u8).collect();
        assert_eq!(codes.len(), 4, "told apart");
        assert!(verdict(Answer::new(())).is_err());
    }
}
