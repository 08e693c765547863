//! What `type` of a Notifier may be.

use std::sync::Arc;

use workflows_core::{Error, Notifier, Result};
use workflows_k8s::controller::{DescribedNotifier, NotifierKind};
use workflows_notify::LogNotifier;

/// `type: log`: a line in the controller's log.
#[derive(Debug)]
pub(crate) struct Log;

impl NotifierKind for Log {
    fn name(&self) -> &str {
        "log"
    }

    fn build(&self, notifier: &DescribedNotifier<'_>) -> Result<Arc<dyn Notifier>> {
        if notifier.spec.settings.is_some() || !notifier.spec.secrets.is_empty() {
            return Err(Error::invalid(
                "read a notifier",
                "type log has no settings and no secrets",
            ));
        }
        Ok(Arc::new(LogNotifier))
    }
}
