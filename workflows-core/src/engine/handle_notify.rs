//! What a program does with notifiers.

use super::handle::EngineHandle;
use crate::{Delivered, NotificationView, NotifierName, Result, Tenant};

impl EngineHandle {
    /// Shows whether a notifier works: asks its destination whether what is configured would work,
    /// and sends it a sample. Nothing of it is kept in the ledger. `id` is the caller's; a sample
    /// with the id of an earlier one is that one.
    ///
    /// # Errors
    ///
    /// `NotFound` when the tenant has no such notifier, and what it fails with.
    pub async fn test_notifier(
        &self,
        tenant: &Tenant,
        notifier: &NotifierName,
        id: &str,
    ) -> Result<Delivered> {
        let core = &self.core;
        let notifier = core.notifiers.get(tenant, notifier)?;
        core.call("validate a notifier", notifier.validate()).await?;
        let mut sample = NotificationView::sample(id, core.clock.now());
        sample.run.tenant = tenant.clone();
        core.call("deliver a sample", notifier.deliver(&sample)).await
    }
}
