//! Runs to tell about, and a Slack to tell.

use std::{path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use workflows_core::{
    Delivered, DeliveryKey, ManualClock, NotificationView, Notifier, Result, RunState, RunView,
    TaskStatus, Transition, run::FailedStep, sink::TaskPhase,
};
use workflows_notify::slack::{SlackBuilder, SlackNotifier};
use workflows_slack_standin::Workspace;

pub(crate) const SCOPES: [&str; 2] = ["chat:write", "channels:history"];

pub(crate) fn secret(text: impl Into<String>) -> SecretString {
    SecretString::from(text.into())
}

pub(crate) fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

pub(crate) fn start() -> Timestamp {
    "2026-11-01T14:03:06Z".parse().unwrap()
}

fn task(name: &str, phase: TaskPhase) -> TaskStatus {
    TaskStatus {
        name: name.into(),
        phase,
        message: String::new(),
        started_at: Some(start()),
        finished_at: Some(start() + seconds(12)),
        link: Some(format!("https://ci.example.com/runs/7#{name}")),
        steps: Vec::new(),
    }
}

/// A run of `ci` for a pull request of alice.
pub(crate) fn run(key: &str, state: RunState) -> RunView {
    let mut run = RunView::new(key, "acme/api", "ci", state, start());
    run.trigger = "pull-request".into();
    run.reference = Some("refs/heads/feature/x".into());
    run.pull_request = Some(7);
    run.pull_request_url = Some("https://git.example.com/acme/api/pull/7".into());
    run.repo_url = Some("https://git.example.com/acme/api".into());
    run.title = Some("Parse the header".into());
    run.author = Some("alice".into());
    run.commit = Some("3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse().unwrap());
    run.link = Some("https://ci.example.com/runs/7".into());
    if !matches!(state, RunState::Planned | RunState::Queued | RunState::Refused) {
        run.started_at = Some(start());
    }
    if state.is_terminal() {
        run.finished_at = Some(start() + seconds(72));
    }
    run
}

/// A run that failed in `test / run`, whose last line is that.
pub(crate) fn failed(key: &str, last_line: &str) -> RunView {
    let mut run = run(key, RunState::Failed);
    run.tasks = vec![task("build", TaskPhase::Succeeded), task("test", TaskPhase::Failed)];
    run.failure = Some(FailedStep {
        task: "test".into(),
        step: "run".into(),
        exit_code: Some(1),
        last_lines: vec!["running 2 tests".into(), last_line.into()],
        annotations: Vec::new(),
    });
    run
}

pub(crate) fn told(transition: Transition, run: RunView) -> NotificationView {
    let key = DeliveryKey::new(format!("{}/{transition}", run.key));
    let at = run.finished_at.or(run.started_at).unwrap_or(run.created_at);
    NotificationView::new(key, transition, at, run)
}

/// A channel of a Slack, and the clock of both sides.
pub(crate) struct Chat {
    pub(crate) slack: Workspace,
    pub(crate) channel: String,
    pub(crate) token: String,
    pub(crate) clock: ManualClock,
}

impl Chat {
    pub(crate) fn new() -> Self {
        Self::with(&SCOPES)
    }

    pub(crate) fn with(scopes: &[&str]) -> Self {
        let clock = ManualClock::at(start());
        let slack = Workspace::start(Arc::new(clock.clone()));
        let channel = slack.create_channel("ci");
        let token = slack.create_bot(scopes);
        slack.invite(&token, &channel);
        Self { slack, channel, token, clock }
    }

    pub(crate) fn builder(&self) -> SlackBuilder {
        SlackNotifier::bot(secret(&*self.token), &*self.channel)
            .base(self.slack.api())
            .clock(Arc::new(self.clock.clone()))
    }

    pub(crate) fn notifier(&self) -> SlackNotifier {
        self.builder().build().unwrap()
    }

    /// Delivers a second later than whatever was before.
    pub(crate) async fn deliver(
        &self,
        notifier: &dyn Notifier,
        notification: &NotificationView,
    ) -> Result<Delivered> {
        self.clock.advance(seconds(2));
        notifier.deliver(notification).await
    }
}

/// Compares with what is kept in a file; `UPDATE_GOLDEN=1` keeps it anew.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == text, "{name} is not what is kept; look at it with UPDATE_GOLDEN=1:\n{text}");
}
