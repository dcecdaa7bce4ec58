//! What is taken from a request. The framework's own words about a fault are plain text and may repeat what was sent; these say it as
//! the API says everything.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Problem;

/// How long a bounded body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Parts of the path, percent-decoded.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let taken = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(value) = taken.map_err(|_| Problem::invalid("the path isn't percent-encoded UTF-8"))?;
        Ok(Self(value))
    }
}

/// What a query may ask for.
pub(super) trait Queried: DeserializeOwned {
    /// Said where it asks for anything else.
    const MESSAGE: &'static str;
}

/// The query of a request.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: Queried> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let taken = axum::extract::Query::from_request_parts(parts, state).await;
        taken.map(|axum::extract::Query(asked)| Self(asked)).map_err(|_| Problem::invalid(T::MESSAGE))
    }
}

/// Which page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    pub(super) limit: Option<usize>,
    pub(super) after: Option<String>,
}

impl Queried for Page {
    const MESSAGE: &'static str =
        "the query takes limit, a whole number from 1 to 1000, and after, each once, and nothing else";
}

/// A body of bounded size.
pub(super) struct Bounded(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Bounded {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = tokio::time::timeout(BODY_TIME_MAX, Bytes::from_request(request, state)).await;
        let body = body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took too long"))?;
        body.map(Self).map_err(|rejection| match rejection.status() {
            status @ StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(status, "too_large", "the body has more bytes than this takes")
            }
            _ => Problem::invalid("the body broke off"),
        })
    }
}

/// No body, or an empty object: whoever sends more means something that isn't done here, and isn't to be told that it was.
pub(super) struct Bodiless;

impl<S: Send + Sync> FromRequest<S> for Bodiless {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Bounded(bytes) = Bounded::from_request(request, state).await?;
        let is_nothing =
            bytes.is_empty() || serde_json::from_slice::<Map<String, Value>>(&bytes).is_ok_and(|map| map.is_empty());
        if is_nothing { Ok(Self) } else { Err(Problem::invalid("this takes no body")) }
    }
}

/// What a JSON body may ask for.
pub(super) trait Asked: DeserializeOwned {
    /// Its fields.
    const FIELDS: &'static [&'static str];
}

/// Reads a body that may be empty.
pub(super) fn body<T: Asked + Default>(bytes: &Bytes) -> Result<T, Problem> {
    if bytes.is_empty() { Ok(T::default()) } else { whole_body(bytes) }
}

/// Reads a body.
pub(super) fn whole_body<T: Asked>(bytes: &Bytes) -> Result<T, Problem> {
    // The parser takes a list for an object whose fields stand in order.
    let is_list = bytes.trim_ascii_start().first() == Some(&b'[');
    let read = if is_list { None } else { Some(serde_json::from_slice(bytes)) };
    match read {
        Some(Ok(asked)) => Ok(asked),
        Some(Err(error)) if !error.is_data() => {
            let (line, column) = (error.line(), error.column());
            Err(Problem::invalid(format!("the body is no JSON, at line {line} column {column}")))
        }
        _ => Err(Problem::invalid(fault::<T>(bytes))),
    }
}

/// What is wrong with JSON that isn't what was asked for, in our own words: the parser's would repeat what was sent.
fn fault<T: Asked>(bytes: &[u8]) -> String {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(bytes) else {
        return "the body must be a JSON object".to_owned();
    };
    if object.keys().any(|key| !T::FIELDS.contains(&key.as_str())) {
        return format!("the body has a field that isn't known; the fields are {}", T::FIELDS.join(", "));
    }
    let is_read = |field: &str| match object.get(field) {
        Some(value) => T::deserialize(Value::Object(Map::from_iter([(field.to_owned(), value.clone())]))),
        None => T::deserialize(Value::Object(Map::new())),
    };
    // Beside a field of the wrong type another may be missing: that is said of the one only.
    let is_missing = |error: &serde_json::Error| error.to_string().starts_with("missing field");
    for field in T::FIELDS {
        match (object.contains_key(*field), is_read(field)) {
            (true, Err(error)) if !is_missing(&error) => return format!("the field {field} has the wrong type"),
            (false, Err(error)) if error.to_string().starts_with(&format!("missing field `{field}`")) => {
                return format!("the field {field} is missing");
            }
            _ => {}
        }
    }
    "the body has a field twice".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only what can't be read is looked at")]
    struct Both {
        enabled: bool,
        secret: Option<String>,
    }

    impl Asked for Both {
        const FIELDS: &'static [&'static str] = &["secret", "enabled"];
    }

    #[test]
    fn faults_of_json_name_our_fields_and_repeat_nothing() {
        for (sent, said) in [
            (
                r#"{"enabled": true, "s3nt": 1}"#,
                "the body has a field that isn't known; the fields are secret, enabled",
            ),
            (r#"{"secret": "s3nt"}"#, "the field enabled is missing"),
            (r#"{"enabled": "s3nt"}"#, "the field enabled has the wrong type"),
            (r#"{"enabled": null}"#, "the field enabled has the wrong type"),
            (r#"{"enabled": true, "secret": 5}"#, "the field secret has the wrong type"),
            (r#"{"secret": ["s3nt"]}"#, "the field secret has the wrong type"),
            (r#"{"enabled": true, "enabled": false}"#, "the body has a field twice"),
            (r#"[true, "s3nt"]"#, "the body must be a JSON object"),
            (r#""s3nt""#, "the body must be a JSON object"),
            (r#"{"enabled": s3nt}"#, "the body is no JSON, at line 1 column 13"),
        ] {
            let problem = whole_body::<Both>(&Bytes::from_static(sent.as_bytes())).expect_err(sent);
            assert_eq!((problem.status, problem.message.as_str()), (StatusCode::BAD_REQUEST, said), "{sent}");
        }
        assert!(whole_body::<Both>(&Bytes::from_static(b"{\"enabled\": true}")).is_ok());
    }
}
