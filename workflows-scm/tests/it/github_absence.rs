//! A program that is away for an hour while things happen at GitHub.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use workflows_core::engine::EngineBuilder;
use workflows_github_standin::Role;
use workflows_scm::{
    github::GitHubDriver,
    webhook::{DeliverySweep, WebhookReceiver},
};

use crate::{
    absence::{MINUTE, People, come_back, looking},
    github_world::{As, CONTEXT, GitHub},
    process::{Outside, SECRET},
};

#[async_trait]
impl People for GitHub {
    async fn settle(&self) {
        self.hub.settle().await;
    }

    fn push(&self, branch: &str, path: &str, text: &str) -> String {
        self.repo.as_user("alice").push(branch, &[(path, text)])
    }

    fn open(&self, branch: &str) -> u64 {
        self.repo.as_user("alice").open_pull_request("Do it", branch, "main")
    }

    fn label(&self, number: u64, label: &str) {
        self.repo.as_user("alice").label(number, label);
    }

    fn tag(&self, name: &str, at: &str) {
        self.repo.as_user("alice").tag(name, at);
    }

    fn open_from_fork(&self) -> String {
        let repo = self.repo.as_user("mallory");
        let head = repo.fork().push("patch", &[("c", "1")]);
        repo.open_pull_request("Trust me", "mallory:patch", "main");
        head
    }

    fn delete_branch(&self, branch: &str) {
        self.repo.as_user("alice").delete_branch(branch);
    }

    fn close(&self, number: u64) {
        self.repo.as_user("alice").close(number);
    }

    fn comment(&self, number: u64, text: &str) {
        self.repo.as_user("alice").comment(number, text);
    }

    fn has_succeeded(&self, commit: &str) -> bool {
        let checks = self.repo.checks(commit);
        checks.iter().any(|check| check.conclusion.as_deref() == Some("success"))
            || self.repo.statuses(commit).iter().any(|status| status.state == "success")
    }

    fn waits(&self, commit: &str) -> bool {
        let waits = |conclusion: &Option<String>| conclusion.as_deref() == Some("action_required");
        let (checks, states) = (self.repo.checks(commit), self.repo.statuses(commit));
        checks.iter().any(|check| check.name == CONTEXT && waits(&check.conclusion))
            || states.iter().any(|one| one.context == CONTEXT && one.description.contains("waits"))
    }
}

fn with_people(github: GitHub) -> GitHub {
    github.repo.set_role("alice", Some(Role::Write));
    github
}

/// With an App's log besides what its webhook brings.
fn reading_the_log(
    builder: EngineBuilder,
    driver: &GitHubDriver,
    receiver: &WebhookReceiver,
) -> EngineBuilder {
    let log = Arc::new(driver.app_deliveries().unwrap());
    let sweep = DeliverySweep::of_log(receiver.clone(), log).every(MINUTE).unwrap();
    builder.source(Arc::new(sweep))
}

#[tokio::test]
async fn after_an_hour_without_the_program_whoever_looks_sees_what_is_left_and_runs_it_once() {
    let outside = Outside::of(with_people(GitHub::with_token()));
    let (left, mut runs) =
        come_back(&outside, looking::<GitHub>, &["poll", "poll-pull-requests"]).await;
    runs.sort();
    // What was overtaken meanwhile is not seen.
    let expected: Vec<String> = left.relevant.into_iter().collect();
    assert_eq!(runs, expected);
}

#[tokio::test]
async fn after_an_hour_without_the_program_the_log_brings_everything_and_it_runs_once() {
    let github = with_people(GitHub::with_app());
    let As::App(app) = &github.known_as else { unreachable!("it is an App") };
    // Where nobody listens: the log alone tells.
    app.hook("http://127.0.0.1:9/", SECRET);
    let outside = Outside::of(github);
    let (left, mut runs) = come_back(&outside, reading_the_log, &["webhook-log"]).await;
    runs.sort();
    let short =
        runs.iter().filter(|run| !left.relevant.contains(*run) && !left.overtaken.contains(*run));
    // The branch that was there for five minutes, and the pull request that was closed.
    assert_eq!(short.count(), 2, "{runs:#?}");
    let all: BTreeSet<String> = left.relevant.union(&left.overtaken).cloned().collect();
    assert!(all.is_subset(&runs.iter().cloned().collect()), "{runs:#?}");
    let mut once = runs.clone();
    once.dedup();
    assert_eq!(once, runs, "each of them runs once");
}
