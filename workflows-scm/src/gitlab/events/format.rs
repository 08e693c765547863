//! GitLab's deliveries as the shared receiver takes them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::SecretString;
use workflows_core::{DeliveryId, Result, Verified};

use super::{decode, delivery_id};
use crate::{
    gitlab::GitLabDriver,
    webhook::{Delivery, DeliveryFormat, DeliveryHeaders, StandardSignature, verify_standard},
};

/// Deliveries of GitLab, for [`WebhookReceiver`](crate::webhook::WebhookReceiver): of webhooks of
/// projects and groups, and of system hooks. What is about a project that the driver does not allow is
/// recorded as not ours.
///
/// ```
/// use workflows_scm::{gitlab::GitLabDriver, webhook::WebhookReceiver};
/// # use secrecy::SecretString;
///
/// # fn main() -> workflows_core::Result<()> {
/// let driver = GitLabDriver::builder().allow("acme/**").build()?;
/// let receiver = WebhookReceiver::new("gitlab-webhook", "acme", driver.deliveries())
///     .secret(SecretString::from("the webhook's secret"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GitLabDeliveries {
    driver: GitLabDriver,
}

impl GitLabDeliveries {
    pub(in crate::gitlab) fn of(driver: GitLabDriver) -> Self {
        Self { driver }
    }
}

#[async_trait]
impl DeliveryFormat for GitLabDeliveries {
    /// Checks the signature, where a secret is a signing token (`whsec_...`), and else the secret token
    /// (<https://docs.gitlab.com/user/project/integrations/webhooks/>).
    fn verify(
        &self,
        headers: &DeliveryHeaders,
        body: Bytes,
        secrets: &[SecretString],
    ) -> Result<Verified> {
        let signature = StandardSignature {
            id: headers.get("webhook-id"),
            timestamp: headers.get("webhook-timestamp"),
            signature: headers.get("webhook-signature"),
        };
        let token = headers.get("x-gitlab-token");
        verify_standard(body, signature, token, secrets, self.driver.now())
    }

    fn decode(&self, headers: &DeliveryHeaders, body: &Verified) -> Result<Delivery> {
        decode(&self.driver, headers, body)
    }

    fn label(&self, headers: &DeliveryHeaders, body: &Bytes) -> (DeliveryId, Arc<str>) {
        let event = headers.get("x-gitlab-event").unwrap_or("unknown");
        let event: String = event.chars().take(100).collect();
        (delivery_id(headers, body), event.into())
    }

    fn serves(&self, repo: &str) -> bool {
        self.driver.allows(repo)
    }
}
