//! `driver: github`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use workflows_core::{Error, Result, SecretRef, Tenant};
use workflows_scm::github::{GitHubBudget, GitHubCredentials, GitHubDriver};

use super::kinds::{BuiltConnection, DescribedConnection, DriverKind};
use crate::resources::Credentials;

/// The kind `github`: GitHub.com and GitHub Enterprise Server, with an App, a token, or nothing.
///
/// Connections of one namespace that name the same Secret share its budget, and one that is changed
/// goes on with what it had.
#[derive(Debug, Clone, Default)]
pub struct GitHubKind {
    budgets: Arc<Mutex<BTreeMap<Credential, GitHubBudget>>>,
}

/// What GitHub counts the calls of: a server, and whose secret it is shown. A secret of another
/// namespace is another one, so that nobody uses up what somebody else has.
type Credential = (Option<String>, Tenant, Option<SecretRef>);

/// What a hook of a repository is registered for: all events of which something can come.
const HOOK_EVENTS: [&str; 10] = [
    "check_run",
    "check_suite",
    "commit_comment",
    "issue_comment",
    "merge_group",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "push",
    "release",
];

impl DriverKind for GitHubKind {
    fn name(&self) -> &str {
        "github"
    }

    fn build(&self, connection: &DescribedConnection<'_>) -> Result<BuiltConnection> {
        const OPERATION: &str = "read a connection";
        let spec = connection.spec;
        if spec.settings.is_some() {
            return Err(Error::invalid(OPERATION, "spec.settings: driver github has none"));
        }
        if spec.web_url.is_some() {
            return Err(Error::invalid(
                OPERATION,
                "spec.webUrl: GitHub says itself where the pages of its repositories are; remove it",
            ));
        }
        let none = Credentials::default();
        let (credentials, secret) = match spec.credentials.as_ref().unwrap_or(&none) {
            Credentials { basic: Some(_), .. } | Credentials { ssh_key: Some(_), .. } => {
                return Err(Error::invalid(
                    OPERATION,
                    "spec.credentials: driver github takes app or token",
                ));
            }
            Credentials { app: Some(app), .. } => {
                let id = u64::try_from(app.id).map_err(|_| {
                    Error::invalid(OPERATION, "spec.credentials.app.id: an App's id is positive")
                })?;
                (GitHubCredentials::app(id, app.private_key.clone()), Some(&app.private_key))
            }
            Credentials { token: Some(token), .. } => {
                (GitHubCredentials::token(token.clone()), Some(token))
            }
            _ => (GitHubCredentials::anonymous(), None),
        };
        let has_app = spec.credentials.as_ref().is_some_and(|one| one.app.is_some());
        let mut builder = GitHubDriver::builder()
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
        let credential = (spec.url.clone(), connection.tenant.clone(), secret.cloned());
        let driver = {
            let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = budgets.get(&credential) {
                builder = builder.shared_budget(known.clone());
            }
            let driver = builder.build()?;
            budgets.entry(credential).or_insert_with(|| driver.shared_budget());
            driver
        };
        let built = BuiltConnection::new(Arc::new(driver.clone()))
            .with_deliveries(Arc::new(driver.deliveries()), HOOK_EVENTS);
        Ok(match has_app {
            true => built.with_delivery_log(Arc::new(driver.app_deliveries()?)),
            false => built,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use workflows_core::{ConnectionName, ErrorKind, StaticSecrets, SystemClock};
    use workflows_github_standin::{Hub, Role};

    use super::*;

    /// Whether the host was asked, when its answer is that the limit is reached.
    async fn asks(hub: &Hub, kind: &GitHubKind, tenant: &str, secret: &str) -> bool {
        let tenant = Tenant::new(tenant).unwrap();
        let name = ConnectionName::new("acme");
        let reference = SecretRef { name: secret.into(), key: "token".into() };
        let secrets = StaticSecrets::new().with(tenant.clone(), reference, hub.token_of("alice"));
        let spec = serde_json::from_value(json!({
            "driver": "github", "url": hub.api(), "repositories": ["acme/*"], "poll": {},
            "credentials": {"token": {"name": secret, "key": "token"}},
        }));
        let described = DescribedConnection {
            tenant: &tenant,
            name: &name,
            spec: &spec.unwrap(),
            secrets: Arc::new(secrets),
            clock: Arc::new(SystemClock),
        };
        let before = hub.calls().len();
        let built = kind.build(&described).unwrap();
        let error = built.driver.connect(&name, "acme/api").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::RateLimited { .. }), "{error}");
        hub.calls().len() > before
    }

    #[tokio::test]
    async fn connections_of_a_namespace_with_one_secret_share_what_it_may_call() {
        let hub = Hub::start(Arc::new(SystemClock));
        let repo = hub.create_repo("acme/api");
        repo.set_role("alice", Some(Role::Write));
        hub.exhaust("user:alice");
        let kind = GitHubKind::default();
        assert!(asks(&hub, &kind, "team-a", "bot").await);
        assert!(!asks(&hub, &kind, "team-a", "bot").await);
        assert!(asks(&hub, &kind, "team-a", "other").await);
        assert!(asks(&hub, &kind, "team-b", "bot").await);
        assert!(asks(&hub, &GitHubKind::default(), "team-a", "bot").await);
    }
}
