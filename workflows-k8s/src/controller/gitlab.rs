//! `driver: gitlab`.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{Error, Result, SharedClock};
use workflows_scm::gitlab::{GitLabCredentials, GitLabDriver};

use super::kinds::{BuiltConnection, CredentialWatch, DescribedConnection, DriverKind};
use crate::resources::Credentials;

/// The kind `gitlab`: GitLab.com and self-managed GitLab, with a token or nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct GitLabKind;

impl DriverKind for GitLabKind {
    fn name(&self) -> &str {
        "gitlab"
    }

    fn build(&self, connection: &DescribedConnection<'_>) -> Result<BuiltConnection> {
        const OPERATION: &str = "read a connection";
        let spec = connection.spec;
        if spec.settings.is_some() {
            return Err(Error::invalid(OPERATION, "spec.settings: driver gitlab has none"));
        }
        if spec.web_url.is_some() {
            return Err(Error::invalid(
                OPERATION,
                "spec.webUrl: GitLab says itself where the pages of its repositories are; remove it",
            ));
        }
        let none = Credentials::default();
        let credentials = match spec.credentials.as_ref().unwrap_or(&none) {
            Credentials { basic: Some(_), .. }
            | Credentials { ssh_key: Some(_), .. }
            | Credentials { app: Some(_), .. } => {
                return Err(Error::invalid(
                    OPERATION,
                    "spec.credentials: driver gitlab takes token",
                ));
            }
            Credentials { token: Some(token), .. } => GitLabCredentials::token(token.clone()),
            _ => GitLabCredentials::anonymous(),
        };
        let mut builder = GitLabDriver::builder()
            .credentials(credentials)
            .secrets(connection.tenant.clone(), Arc::clone(&connection.secrets))
            .clock(Arc::clone(&connection.clock));
        if let Some(url) = &spec.url {
            builder = builder.base(url);
        }
        if let Some(token) = &spec.clone_token {
            builder = builder.clone_token(token.clone());
        }
        if let Some(pem) = &spec.certificate_authority {
            builder = builder.root_certificate(pem.as_bytes());
        }
        for pattern in &spec.repositories {
            builder = builder.allow(pattern);
        }
        let driver = builder.build()?;
        let built = BuiltConnection::new(Arc::new(driver.clone()))
            .with_deliveries(Arc::new(driver.deliveries()), GitLabDriver::useful_events());
        let has_token = spec.credentials.as_ref().is_some_and(|one| one.token.is_some());
        if !has_token {
            return Ok(built);
        }
        Ok(built.with_credential(Arc::new(Token { driver, clock: Arc::clone(&connection.clock) })))
    }
}

#[derive(Debug)]
struct Token {
    driver: GitLabDriver,
    clock: SharedClock,
}

#[async_trait]
impl CredentialWatch for Token {
    async fn warning(&self) -> Result<Option<String>> {
        const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
        Ok(self.driver.token().await?.warning(self.clock.now(), SOON))
    }
}
