//! Changes of how fast devices may be.

use std::sync::Arc;

use crate::limits::{WrittenFlow, WrittenLimits};
use crate::names::{DeviceName, ProductKey};
use crate::plan::{Change, PlanError};
use crate::registry::Registry;

impl Registry {
    /// Gives a product limits of its own, or takes them away.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_limit_product(&self, key: &ProductKey, limits: Option<WrittenLimits>) -> Result<Change, PlanError> {
        self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::LimitProduct(key.clone(), limits.map(Arc::new)))
    }

    /// Gives a device a limit of its own, or takes it away.
    ///
    /// # Errors
    /// [`PlanError::NoSuchDevice`].
    pub fn plan_limit_device(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        flow: Option<WrittenFlow>,
    ) -> Result<Change, PlanError> {
        self.device(product.as_str(), name.as_str()).ok_or(PlanError::NoSuchDevice)?;
        Ok(Change::LimitDevice(product.clone(), name.clone(), flow.map(Arc::new)))
    }
}
