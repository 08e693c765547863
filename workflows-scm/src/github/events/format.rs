//! GitHub's deliveries as the shared receiver takes them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::SecretString;
use workflows_core::{DeliveryId, Result, Verified};

use super::{decode, delivery_id};
use crate::{
    github::GitHubDriver,
    webhook::{AccessChange, Delivery, DeliveryFormat, DeliveryHeaders, verify_sha256},
};

/// Deliveries of GitHub, for [`WebhookReceiver`](crate::webhook::WebhookReceiver). What is about a
/// repository that the driver does not allow is recorded as not ours.
///
/// ```
/// use workflows_scm::{github::GitHubDriver, webhook::WebhookReceiver};
/// # use secrecy::SecretString;
///
/// # fn main() -> workflows_core::Result<()> {
/// let driver = GitHubDriver::builder().allow("acme/*").build()?;
/// let receiver = WebhookReceiver::new("github-webhook", "acme", driver.deliveries())
///     .secret(SecretString::from("the webhook's secret"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GitHubDeliveries {
    driver: GitHubDriver,
}

impl GitHubDeliveries {
    pub(in crate::github) fn of(driver: GitHubDriver) -> Self {
        Self { driver }
    }
}

#[async_trait]
impl DeliveryFormat for GitHubDeliveries {
    /// Checks `X-Hub-Signature-256`
    /// (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
    fn verify(
        &self,
        headers: &DeliveryHeaders,
        body: Bytes,
        secrets: &[SecretString],
    ) -> Result<Verified> {
        verify_sha256(body, headers.get("x-hub-signature-256"), secrets)
    }

    fn decode(&self, headers: &DeliveryHeaders, body: &Verified) -> Result<Delivery> {
        decode(&self.driver, headers, body)
    }

    fn label(&self, headers: &DeliveryHeaders, body: &Bytes) -> (DeliveryId, Arc<str>) {
        let event = headers.get("x-github-event").unwrap_or("unknown");
        let event: String = event.chars().take(100).collect();
        (delivery_id(headers, body), event.into())
    }

    fn serves(&self, repo: &str) -> bool {
        self.driver.allows(repo)
    }

    async fn access_changed(&self, change: &AccessChange) {
        if let Some(owner) = &change.owner {
            self.driver.forget_installation(owner).await;
        }
    }
}
