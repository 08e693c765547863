//! What happens at GitHub, and what comes of it by each way by which it may come.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::SignedDuration;
use secrecy::SecretString;
use workflows_core::{EventSource, ManualClock, ScmDriver, repo::Webhook};
use workflows_github_standin::{AppHandle, Hub, RepoHandle, Role};
use workflows_scm::{
    github::{GitHubCredentials, GitHubDriver},
    webhook::{DeliverySweep, WebhookReceiver},
};

use crate::scenarios::{CONNECTION, Deed, Host, Names, Way, play_all};

const SECRET: &str = "the secret of the hook";
const EVENTS: &[&str] = &[
    "commit_comment",
    "create",
    "delete",
    "issue_comment",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "push",
];
/// Every scenario has one.
const PULL_REQUEST: u64 = 1;
const STRANGER: &str = "mallory";
const FORKED: &str = "patch";

struct GitHub {
    hub: Hub,
    clock: ManualClock,
    driver: GitHubDriver,
    /// Else a token, and hooks of repositories.
    app: Option<AppHandle>,
    /// How many deliveries there were before the last deed.
    told_before: usize,
}

impl GitHub {
    fn with_app() -> Self {
        Self::new(|hub| {
            let app = hub.create_app("ci");
            app.install("acme");
            let key = SecretString::from(app.private_key().to_owned());
            (GitHubCredentials::app(app.id(), key), Some(app))
        })
    }

    fn with_token() -> Self {
        Self::new(|hub| {
            hub.add_member("acme", "bot", true);
            (GitHubCredentials::token(SecretString::from(hub.token_of("bot"))), None)
        })
    }

    fn new(credential: impl FnOnce(&Hub) -> (GitHubCredentials, Option<AppHandle>)) -> Self {
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap());
        let hub = Hub::start(Arc::new(clock.clone()));
        let (credentials, app) = credential(&hub);
        let driver = GitHubDriver::builder()
            .base(hub.api())
            .credentials(credentials)
            .clock(Arc::new(clock.clone()))
            .timeouts(Duration::from_secs(10), Duration::from_secs(10))
            .build()
            .unwrap();
        Self { hub, clock, driver, app, told_before: 0 }
    }

    fn push(names: &mut Names, repo: &RepoHandle, branch: &str, commit: &str) {
        let path = format!("{commit}.txt");
        let id = repo.push(branch, &[(path.as_str(), commit)]);
        names.commit(&id, commit);
    }

    fn fork(&self, repo: &RepoHandle) -> RepoHandle {
        let name = repo.full_name().replace("acme/", &format!("{STRANGER}/"));
        self.hub.repo(&name).as_user(STRANGER)
    }
}

#[async_trait]
impl Host for GitHub {
    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    fn driver(&self) -> Arc<dyn ScmDriver> {
        Arc::new(self.driver.clone())
    }

    fn create(&mut self, name: &str) -> String {
        let name = format!("acme/{name}");
        let repo = self.hub.create_repo(&name);
        repo.set_role("alice", Some(Role::Write));
        repo.push("main", &[("README.md", "# A repository\n")]);
        name
    }

    fn does(&mut self, repo: &str, deed: Deed, names: &mut Names) {
        self.told_before = self.hub.deliveries().len();
        let repo = self.hub.repo(repo).as_user("alice");
        match deed {
            Deed::Push { branch, commit } => Self::push(names, &repo, branch, commit),
            Deed::Put { branch, at } => repo.force_push(branch, &names.id_of(at)),
            Deed::DeleteBranch { branch } => repo.delete_branch(branch),
            Deed::Tag { tag, at } => repo.tag(tag, &names.id_of(at)),
            Deed::AnnotatedTag { tag, at } => {
                repo.annotated_tag(tag, &names.id_of(at));
            }
            Deed::DeleteTag { tag } => repo.delete_tag(tag),
            Deed::Open { from, to } => {
                assert_eq!(repo.open_pull_request("Do it", from, to), PULL_REQUEST);
            }
            Deed::OpenDraft { from, to } => {
                assert_eq!(repo.open_draft("Do it soon", from, to), PULL_REQUEST);
            }
            Deed::OpenFromFork { commit, to } => {
                let repo = repo.as_user(STRANGER);
                Self::push(names, &repo.fork(), FORKED, commit);
                let head = format!("{STRANGER}:{FORKED}");
                assert_eq!(repo.open_pull_request("Trust me", &head, to), PULL_REQUEST);
            }
            Deed::PushToFork { commit } => Self::push(names, &self.fork(&repo), FORKED, commit),
            Deed::Close => repo.close(PULL_REQUEST),
            Deed::Reopen => repo.reopen(PULL_REQUEST),
            Deed::Merge { commit } => names.commit(&repo.merge(PULL_REQUEST), commit),
            Deed::Retarget { to } => repo.retarget(PULL_REQUEST, to),
            Deed::MarkReady => repo.mark_ready(PULL_REQUEST),
            Deed::ConvertToDraft => repo.convert_to_draft(PULL_REQUEST),
            Deed::Rename => repo.rename_pull_request(PULL_REQUEST, "Do it well"),
            Deed::Label { label } => repo.label(PULL_REQUEST, label),
            Deed::Unlabel { label } => repo.unlabel(PULL_REQUEST, label),
            Deed::Comment { comment } => {
                let id = repo.comment(PULL_REQUEST, "In the conversation");
                names.comment(&id.to_string(), comment);
            }
            Deed::CommentOnLine { comment } => {
                let id = repo.comment_on_line(PULL_REQUEST, "A.txt", 1, "On a line");
                names.comment(&format!("line-{id}"), comment);
            }
            Deed::Review { comment } => {
                let id = repo.review(PULL_REQUEST, "COMMENTED", "On the whole");
                names.comment(&format!("review-{id}"), comment);
            }
            Deed::CommentOnCommit { comment, on } => {
                let id = repo.comment_on_commit(&names.id_of(on), "On a commit");
                names.comment(&format!("commit-{id}"), comment);
            }
        }
    }

    fn receiver(&self) -> WebhookReceiver {
        WebhookReceiver::new("webhook", CONNECTION, self.driver.deliveries())
            .secret(SecretString::from(SECRET))
    }

    async fn tell(&self, repo: &str, address: &str) {
        if let Some(app) = &self.app {
            return app.hook(address, SECRET);
        }
        let connection = self.driver.connect(&CONNECTION.into(), repo).await.unwrap();
        let hook = Webhook {
            url: address.to_owned(),
            secret: SecretString::from(SECRET),
            events: EVENTS.iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
        };
        connection.webhook_admin().unwrap().ensure(&hook).await.unwrap();
    }

    fn cut_off(&self, is_cut_off: bool) {
        self.hub.hooks_unreachable(is_cut_off);
    }

    async fn settle(&self) {
        self.hub.settle().await;
    }

    fn tell_again(&self) {
        let told = self.hub.deliveries();
        for delivery in told.iter().skip(self.told_before).filter(|one| !one.is_redelivery) {
            assert_eq!(delivery.status, Some(202), "{} of {}", delivery.event, delivery.url);
            self.hub.redeliver(delivery.id);
        }
    }

    fn log(&self, receiver: &WebhookReceiver, repo: &str) -> Arc<dyn EventSource> {
        let sweep = match &self.app {
            Some(_) => {
                let log = self.driver.app_deliveries().unwrap();
                DeliverySweep::of_log(receiver.clone(), Arc::new(log))
            }
            None => DeliverySweep::of_repository(receiver.clone(), repo),
        };
        Arc::new(sweep.every(SignedDuration::from_mins(1)).unwrap())
    }
}

#[tokio::test]
async fn the_webhook_of_an_app_tells_the_table() {
    play_all(GitHub::with_app(), Way::Webhook).await;
}

#[tokio::test]
async fn the_webhook_of_a_repository_tells_the_table_however_often_it_is_delivered() {
    play_all(GitHub::with_token(), Way::Redelivery).await;
}

#[tokio::test]
async fn the_log_of_an_apps_deliveries_tells_the_table() {
    play_all(GitHub::with_app(), Way::Log).await;
}

#[tokio::test]
async fn the_log_of_a_repositorys_webhook_tells_the_table() {
    play_all(GitHub::with_token(), Way::Log).await;
}

#[tokio::test]
async fn who_looks_after_each_step_sees_the_table() {
    play_all(GitHub::with_token(), Way::Poll).await;
}

#[tokio::test]
async fn who_looks_when_all_is_over_sees_what_is_left() {
    play_all(GitHub::with_token(), Way::PollAtTheEnd).await;
}

#[tokio::test]
async fn all_ways_together_tell_the_table_once() {
    play_all(GitHub::with_app(), Way::All).await;
}
