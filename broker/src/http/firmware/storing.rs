//! What is answered while a file is on its way to the bucket.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use turnpike_authz::names::ProductKey;
use turnpike_ota::firmware::State as Held;
use turnpike_ota::ids::FirmwareId;

use super::super::{Api, Problem};
use super::{OnItsWay, view_of};
use crate::ota::ShelfError;

/// How long an answer waits for the file to be in the bucket.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// When to ask again.
const AGAIN_S: &str = "10";

impl Api {
    /// Waits a while for a file to be in the bucket, and says how it is.
    pub(super) async fn stored(&self, product: &ProductKey, id: FirmwareId) -> Result<Response, Problem> {
        let ota = self.ota()?;
        let stage = ota.stored(id, WAIT_MAX).await;
        if let OnItsWay::Waiting(error) = &stage {
            return Ok(([(header::RETRY_AFTER, AGAIN_S)], Problem::from(error)).into_response());
        }
        let (_, found) = self.existing_firmware(product.as_str(), &id.to_string())?;
        if let Held::Refused { why } = &found.state {
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", why.to_string()));
        }
        let status = if stage == OnItsWay::Over { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok((status, Json(view_of(ota, &found))).into_response())
    }
}

impl From<&ShelfError> for Problem {
    fn from(error: &ShelfError) -> Self {
        let status = match error {
            ShelfError::Unreachable(_) | ShelfError::File(_) => StatusCode::SERVICE_UNAVAILABLE,
            ShelfError::Denied(_) | ShelfError::Missing(_) | ShelfError::Damaged | ShelfError::Failed(_) => {
                StatusCode::BAD_GATEWAY
            }
        };
        let message = format!("{error}; the file is accepted and kept, and is brought there as soon as it can be");
        Self::new(status, error.code(), message)
    }
}
