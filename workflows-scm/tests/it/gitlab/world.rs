//! A project at a GitLab on loopback, and a driver that reaches it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use workflows_core::{
    ManualClock, RepoConnection, Result, ScmDriver, SecretRef, SecretStore, Tenant,
};
use workflows_gitlab_standin::{Access, Instance, ProjectHandle};
use workflows_scm::gitlab::{GitLabCredentials, GitLabDriver, GitLabDriverBuilder};

pub(super) const PROJECT: &str = "acme/platform/api";

pub(super) struct World {
    pub(super) gitlab: Instance,
    pub(super) clock: ManualClock,
    pub(super) project: ProjectHandle,
    pub(super) token: Kept,
}

/// A token that is kept where it can be replaced.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<String>>);

impl Kept {
    pub(super) fn replace(&self, token: String) {
        *self.0.lock().unwrap() = token;
    }
}

#[async_trait]
impl SecretStore for Kept {
    async fn get(&self, _: &Tenant, _: &SecretRef) -> Result<SecretString> {
        Ok(self.0.lock().unwrap().clone().into())
    }
}

impl World {
    /// `bot` is a Maintainer of the group, `alice` a Developer of the project.
    pub(super) fn new() -> Self {
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap());
        let gitlab = Instance::start(Arc::new(clock.clone()));
        let project = gitlab.create_project(PROJECT);
        gitlab.set_group_access("acme", "bot", Some(Access::Owner));
        project.set_access("alice", Some(Access::Developer));
        project.push("main", &[("README.md", "# API\n")]);
        let token = Kept::default();
        token.replace(gitlab.token_of("bot"));
        Self { gitlab, clock, project, token }
    }

    pub(super) fn builder(&self) -> GitLabDriverBuilder {
        GitLabDriver::builder()
            .base(self.gitlab.root())
            .clock(Arc::new(self.clock.clone()))
            .timeouts(Duration::from_secs(5), Duration::from_secs(5))
    }

    pub(super) fn driver_with(&self, token: &str) -> GitLabDriver {
        let token = SecretString::from(token.to_owned());
        self.builder().credentials(GitLabCredentials::token(token)).build().unwrap()
    }

    pub(super) fn driver(&self) -> GitLabDriver {
        let token = SecretRef { name: "gitlab".into(), key: "token".into() };
        let store = Arc::new(self.token.clone());
        let builder = self.builder().secrets(Tenant::default(), store);
        builder.credentials(GitLabCredentials::token(token)).build().unwrap()
    }

    /// A connection; the calls so far are forgotten.
    pub(super) async fn connect(&self) -> Arc<dyn RepoConnection> {
        let connection = self.driver().connect(&"gitlab".into(), PROJECT).await.unwrap();
        self.gitlab.forget_calls();
        connection
    }

    /// What was asked since the last time: method and route.
    pub(super) fn calls(&self) -> Vec<String> {
        let calls = self.gitlab.calls();
        self.gitlab.forget_calls();
        calls.iter().map(|call| format!("{} {}", call.method, call.route)).collect()
    }

    pub(super) fn later(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }
}
