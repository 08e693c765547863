//! `driver: git`.

use std::sync::Arc;

use workflows_core::{Error, Result};
use workflows_scm::git::{GitCredentials, GitDriver};

use super::{
    kinds::{BuiltConnection, DescribedConnection, DriverKind},
    limited::Limited,
};
use crate::resources::Credentials;

/// The kind `git`: any server of git over https or ssh, by polling, without pull requests and
/// statuses.
#[derive(Debug, Clone, Copy, Default)]
pub struct GitKind;

impl DriverKind for GitKind {
    fn name(&self) -> &str {
        "git"
    }

    fn build(&self, connection: &DescribedConnection<'_>) -> Result<BuiltConnection> {
        const OPERATION: &str = "read a connection";
        let refuse = |message: &str| Err(Error::invalid(OPERATION, message.to_owned()));
        let spec = connection.spec;
        if spec.settings.is_some() {
            return refuse("spec.settings: driver git has none");
        }
        if spec.webhook.is_some() {
            return refuse("spec.webhook: plain git delivers nothing; use poll");
        }
        if spec.clone_token.is_some() {
            return refuse("spec.cloneToken: driver git hands runs no credential; remove it");
        }
        let Some(url) = &spec.url else {
            return refuse("spec.url: driver git needs the address that repositories are below of");
        };
        // What is a file here is the controller's own, and nobody else's to read.
        if !["https://", "http://", "ssh://"].iter().any(|scheme| url.starts_with(scheme)) {
            return refuse("spec.url: it must begin with https://, http:// or ssh://");
        }
        let mut builder = GitDriver::builder()
            .base(url)
            .secrets(connection.tenant.clone(), Arc::clone(&connection.secrets))
            .clock(Arc::clone(&connection.clock));
        if let Some(web) = &spec.web_url {
            builder = builder.web_base(web);
        }
        match spec.credentials.as_ref() {
            None => {}
            Some(Credentials { app: Some(_), .. }) => {
                return refuse("spec.credentials.app: only driver github has Apps");
            }
            Some(Credentials { token: Some(token), .. }) => {
                builder = builder.credentials(GitCredentials::bearer(token.clone()));
            }
            Some(Credentials { basic: Some(basic), .. }) => {
                let credentials = GitCredentials::basic(&basic.username, basic.password.clone());
                builder = builder.credentials(credentials);
            }
            Some(Credentials { ssh_key: Some(key), .. }) => {
                builder = builder.credentials(GitCredentials::ssh_key(key.clone()));
            }
            Some(_) => return refuse("spec.credentials: one of token, basic and sshKey"),
        }
        if let Some(pem) = &spec.certificate_authority {
            builder = builder.root_certificate(pem.as_bytes());
        }
        let driver = Limited::to(Arc::new(builder.build()?), &spec.repositories)?;
        Ok(BuiltConnection::new(driver))
    }
}
