//! A repository at a GitHub on loopback, and a driver that reaches it.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use workflows_core::{
    CommitId, ManualClock, RepoConnection, Result, ScmDriver,
    repo::{EarlierReport, ReportedStatus, Status, StatusState},
};
use workflows_github_standin::{AppHandle, Hub, RepoHandle};
use workflows_scm::{
    github::{GitHubCredentials, GitHubDriver},
    webhook::WebhookReceiver,
};

use crate::process::Site;

pub(crate) const CONTEXT: &str = "workflows/ci";

/// What GitHub knows the driver by.
#[derive(Debug)]
pub(crate) enum As {
    App(AppHandle),
    Token(String),
}

/// A repository, and a driver that reaches it.
#[derive(Debug)]
pub(crate) struct GitHub {
    pub(crate) hub: Hub,
    pub(crate) clock: ManualClock,
    pub(crate) repo: RepoHandle,
    pub(crate) known_as: As,
    /// The newest commit of `main`.
    pub(crate) commit: CommitId,
}

impl GitHub {
    pub(crate) fn with_app() -> Self {
        Self::new(|hub| {
            let app = hub.create_app("ci");
            app.install("acme");
            As::App(app)
        })
    }

    pub(crate) fn with_token() -> Self {
        Self::new(|hub| As::Token(hub.token_of("bot")))
    }

    fn new(credential: impl FnOnce(&Hub) -> As) -> Self {
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap());
        let hub = Hub::start(Arc::new(clock.clone()));
        let repo = hub.create_repo("acme/api");
        repo.set_role("bot", Some(workflows_github_standin::Role::Write));
        let commit = repo.push("main", &[("README.md", "# API\n")]).parse().unwrap();
        let known_as = credential(&hub);
        Self { hub, clock, repo, known_as, commit }
    }

    /// Another driver, as another process has it.
    pub(crate) fn driver(&self) -> GitHubDriver {
        let held = |text: &str| SecretString::from(text.to_owned());
        let credentials = match &self.known_as {
            As::App(app) => GitHubCredentials::app(app.id(), held(app.private_key())),
            As::Token(token) => GitHubCredentials::token(held(token)),
        };
        GitHubDriver::builder()
            .base(self.hub.api())
            .credentials(credentials)
            .clock(Arc::new(self.clock.clone()))
            .timeouts(Duration::from_secs(5), Duration::from_secs(5))
            .build()
            .unwrap()
    }

    pub(crate) async fn connect(&self) -> Arc<dyn RepoConnection> {
        self.driver().connect(&"github".into(), "acme/api").await.unwrap()
    }

    pub(crate) fn clock_now(&self) -> Timestamp {
        workflows_core::Clock::now(&self.clock)
    }

    pub(crate) fn later(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    pub(crate) fn status(&self, state: StatusState, external_id: &str) -> Status {
        status(&self.commit, state, external_id)
    }
}

impl Site for GitHub {
    type Driver = GitHubDriver;
    const CONNECTION: &'static str = "github";
    const REPOSITORY: &'static str = "acme/api";

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn driver(&self) -> GitHubDriver {
        Self::driver(self)
    }

    fn receiver(driver: &GitHubDriver) -> WebhookReceiver {
        WebhookReceiver::new("webhook", Self::CONNECTION, driver.deliveries())
    }

    fn take_calls(&self) -> Vec<String> {
        let calls = self.hub.calls();
        self.hub.forget_calls();
        calls.iter().map(|call| format!("{} {}", call.method, call.route)).collect()
    }
}

pub(crate) fn status(commit: &CommitId, state: StatusState, external_id: &str) -> Status {
    let ended = state.is_final();
    let at = |text: &str| text.parse::<Timestamp>().ok();
    Status {
        commit: commit.clone(),
        context: CONTEXT.into(),
        state,
        title: format!("It is {state:?}"),
        summary: "A summary".to_owned(),
        details: String::new(),
        annotations: Vec::new(),
        actions: Vec::new(),
        link: Some("https://ci.example.com/runs/1".to_owned()),
        external_id: external_id.into(),
        started_at: (state != StatusState::Queued).then(|| at("2026-03-01T12:00:10Z")).flatten(),
        finished_at: ended.then(|| at("2026-03-01T12:01:10Z")).flatten(),
    }
}

/// Reports as the engine does when the last answer was recorded.
pub(crate) async fn report(
    connection: &Arc<dyn RepoConnection>,
    status: &Status,
    before: Option<&ReportedStatus>,
) -> Result<ReportedStatus> {
    let earlier =
        before.map_or_else(EarlierReport::default, |one| EarlierReport::recorded(&one.id));
    connection.status_reporter().unwrap().report(status, earlier).await
}

/// Reports as the engine does when an answer since was lost.
pub(crate) async fn report_again(
    connection: &Arc<dyn RepoConnection>,
    status: &Status,
    before: Option<&ReportedStatus>,
) -> Result<ReportedStatus> {
    let earlier =
        before.map_or_else(EarlierReport::default, |one| EarlierReport::recorded(&one.id));
    connection.status_reporter().unwrap().report(status, earlier.and_maybe_another()).await
}
