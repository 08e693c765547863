//! What happens at GitLab, and what comes of it by each way by which it may come.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::SignedDuration;
use secrecy::SecretString;
use workflows_core::{
    EventSource, ManualClock, ScmDriver,
    repo::{Webhook, WebhookAdmin},
};
use workflows_gitlab_standin::{Access, Instance, ProjectHandle};
use workflows_scm::{
    gitlab::{GitLabCredentials, GitLabDriver},
    webhook::{DeliverySweep, WebhookReceiver},
};

use crate::scenarios::{CONNECTION, Deed, Host, Names, Way, play_all};

const SECRET: &str = "the secret of the hook";
const SIGNING: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// Every scenario has one.
const MERGE_REQUEST: u64 = 1;
const STRANGER: &str = "mallory";
const FORKED: &str = "patch";

struct GitLab {
    gitlab: Instance,
    clock: ManualClock,
    driver: GitLabDriver,
    secret: &'static str,
    /// Whether one hook of the group tells of all projects.
    of_group: bool,
    told_before: usize,
}

impl GitLab {
    fn new() -> Self {
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap());
        let gitlab = Instance::start(Arc::new(clock.clone()));
        gitlab.set_group_access("acme", "bot", Some(Access::Owner));
        gitlab.set_group_access("acme", "alice", Some(Access::Developer));
        let token = SecretString::from(gitlab.token_of("bot"));
        let driver = GitLabDriver::builder()
            .base(gitlab.root())
            .credentials(GitLabCredentials::token(token))
            .clock(Arc::new(clock.clone()))
            .timeouts(Duration::from_secs(10), Duration::from_secs(10))
            .build()
            .unwrap();
        Self { gitlab, clock, driver, secret: SECRET, of_group: false, told_before: 0 }
    }

    fn signing() -> Self {
        Self { secret: SIGNING, ..Self::new() }
    }

    fn with_a_hook_of_the_group() -> Self {
        Self { of_group: true, ..Self::new() }
    }

    fn push(names: &mut Names, project: &ProjectHandle, branch: &str, commit: &str) {
        let path = format!("{commit}.txt");
        let id = project.push(branch, &[(path.as_str(), commit)]);
        names.commit(&id, commit);
    }

    fn fork(&self, project: &ProjectHandle) -> ProjectHandle {
        project.as_user(STRANGER).fork()
    }
}

#[async_trait]
impl Host for GitLab {
    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    fn driver(&self) -> Arc<dyn ScmDriver> {
        Arc::new(self.driver.clone())
    }

    fn create(&mut self, name: &str) -> String {
        let name = format!("acme/{name}");
        let project = self.gitlab.create_project(&name);
        project.push("main", &[("README.md", "# A repository\n")]);
        name
    }

    fn does(&mut self, repo: &str, deed: Deed, names: &mut Names) {
        self.told_before = self.gitlab.deliveries().len();
        let project = self.gitlab.project(repo).as_user("alice");
        match deed {
            Deed::Push { branch, commit } => Self::push(names, &project, branch, commit),
            Deed::Put { branch, at } => project.force_push(branch, &names.id_of(at)),
            Deed::DeleteBranch { branch } => project.delete_branch(branch),
            Deed::Tag { tag, at } => project.tag(tag, &names.id_of(at)),
            Deed::AnnotatedTag { tag, at } => {
                project.annotated_tag(tag, &names.id_of(at));
            }
            Deed::DeleteTag { tag } => project.delete_tag(tag),
            Deed::Open { from, to } => {
                assert_eq!(project.open("Do it", from, to), MERGE_REQUEST);
            }
            Deed::OpenDraft { from, to } => {
                assert_eq!(project.open("Draft: Do it soon", from, to), MERGE_REQUEST);
            }
            Deed::OpenFromFork { commit, to } => {
                let fork = self.fork(&project);
                Self::push(names, &fork, FORKED, commit);
                let number = project.as_user(STRANGER).open_from(&fork, "Trust me", FORKED, to);
                assert_eq!(number, MERGE_REQUEST);
            }
            Deed::PushToFork { commit } => {
                Self::push(names, &self.fork(&project), FORKED, commit);
            }
            Deed::Close => project.close(MERGE_REQUEST),
            Deed::Reopen => project.reopen(MERGE_REQUEST),
            Deed::Merge { commit } => names.commit(&project.merge(MERGE_REQUEST), commit),
            Deed::Retarget { to } => project.retarget(MERGE_REQUEST, to),
            Deed::MarkReady => project.rename(MERGE_REQUEST, "Do it soon"),
            Deed::ConvertToDraft => project.rename(MERGE_REQUEST, "Draft: Do it soon"),
            Deed::Rename => project.rename(MERGE_REQUEST, "Do it well"),
            Deed::Label { label } => project.label(MERGE_REQUEST, label),
            Deed::Unlabel { label } => project.unlabel(MERGE_REQUEST, label),
            Deed::Comment { comment } => {
                let id = project.note(MERGE_REQUEST, "In the conversation");
                names.comment(&id.to_string(), comment);
            }
            Deed::CommentOnLine { comment } => {
                let id = project.note_on_line(MERGE_REQUEST, "On a line");
                names.comment(&id.to_string(), comment);
            }
            // What is written with a whole review is a note like any other.
            Deed::Review { comment } => {
                project.approve(MERGE_REQUEST);
                let id = project.note(MERGE_REQUEST, "On the whole");
                names.comment(&id.to_string(), comment);
            }
            Deed::CommentOnCommit { comment, on } => {
                let id = project.note_on_commit(&names.id_of(on), "On a commit");
                names.comment(&format!("commit-{id}"), comment);
            }
        }
    }

    fn receiver(&self) -> WebhookReceiver {
        WebhookReceiver::new("webhook", CONNECTION, self.driver.deliveries())
            .secret(SecretString::from(self.secret))
    }

    async fn tell(&self, repo: &str, address: &str) {
        let hook = Webhook {
            url: address.to_owned(),
            secret: SecretString::from(self.secret),
            events: GitLabDriver::useful_events().map(ToOwned::to_owned).collect(),
        };
        if self.of_group {
            let hooks = self.driver.group_hooks("acme").unwrap();
            hooks.ensure(&hook).await.unwrap();
            return;
        }
        let connection = self.driver.connect(&CONNECTION.into(), repo).await.unwrap();
        connection.webhook_admin().unwrap().ensure(&hook).await.unwrap();
    }

    fn cut_off(&self, is_cut_off: bool) {
        // An address that nobody answers GitLab would soon tell nothing more.
        self.gitlab.hooks_lost(is_cut_off);
    }

    async fn settle(&self) {
        self.gitlab.settle().await;
    }

    fn tell_again(&self) {
        let told = self.gitlab.deliveries();
        for delivery in told.iter().skip(self.told_before).filter(|one| !one.is_again) {
            // The hook of a scenario that is over has nobody to answer.
            if delivery.status == Some(202) {
                self.gitlab.resend(delivery.id);
            } else {
                assert!(self.of_group, "{} of {}", delivery.event, delivery.url);
            }
        }
    }

    fn log(&self, receiver: &WebhookReceiver, repo: &str) -> Arc<dyn EventSource> {
        let sweep = DeliverySweep::of_repository(receiver.clone(), repo);
        Arc::new(sweep.every(SignedDuration::from_mins(1)).unwrap())
    }

    fn shows_reviews_to_polls(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_signed_webhook_of_a_project_tells_the_table() {
    play_all(GitLab::signing(), Way::Webhook).await;
}

#[tokio::test]
async fn the_webhook_of_a_group_tells_the_table() {
    play_all(GitLab::with_a_hook_of_the_group(), Way::Webhook).await;
}

#[tokio::test]
async fn the_webhook_of_a_project_tells_the_table_however_often_it_is_delivered() {
    play_all(GitLab::new(), Way::Redelivery).await;
}

#[tokio::test]
async fn the_log_of_a_projects_webhook_tells_the_table() {
    play_all(GitLab::signing(), Way::Log).await;
}

#[tokio::test]
async fn who_looks_after_each_step_sees_the_table() {
    play_all(GitLab::new(), Way::Poll).await;
}

#[tokio::test]
async fn who_looks_when_all_is_over_sees_what_is_left() {
    play_all(GitLab::new(), Way::PollAtTheEnd).await;
}

#[tokio::test]
async fn all_ways_together_tell_the_table_once() {
    play_all(GitLab::signing(), Way::All).await;
}
