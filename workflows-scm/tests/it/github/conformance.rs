//! The suite that every driver passes, with each kind of credential.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use workflows_core::{
    CommitId, ScmDriver, SystemClock, conformance::repository::RepositoryFixture,
};
use workflows_github_standin::{Hub, RepoHandle};
use workflows_scm::github::{GitHubCredentials, GitHubDriver};

#[derive(Debug)]
struct Fixture {
    #[expect(dead_code, reason = "serves until the end")]
    hub: Hub,
    repo: RepoHandle,
    driver: Arc<GitHubDriver>,
}

fn hub() -> (Hub, RepoHandle) {
    let hub = Hub::start(Arc::new(SystemClock));
    let repo = hub.create_repo("acme/api");
    repo.push("main", &[("README.md", "hello")]);
    (hub, repo)
}

fn fixture(
    hub: Hub,
    repo: RepoHandle,
    credentials: GitHubCredentials,
) -> Arc<dyn RepositoryFixture> {
    let driver = GitHubDriver::builder().base(hub.api()).credentials(credentials).build().unwrap();
    Arc::new(Fixture { hub, repo, driver: Arc::new(driver) })
}

fn as_an_app() -> Arc<dyn RepositoryFixture> {
    let (hub, repo) = hub();
    let app = hub.create_app("ci");
    app.install("acme");
    let key = SecretString::from(app.private_key().to_owned());
    let credentials = GitHubCredentials::app(app.id(), key);
    fixture(hub, repo, credentials)
}

fn with_a_token() -> Arc<dyn RepositoryFixture> {
    let (hub, repo) = hub();
    let token = SecretString::from(hub.token_of("octocat"));
    fixture(hub, repo, GitHubCredentials::token(token))
}

fn without_a_credential() -> Arc<dyn RepositoryFixture> {
    let (hub, repo) = hub();
    fixture(hub, repo, GitHubCredentials::anonymous())
}

#[async_trait]
impl RepositoryFixture for Fixture {
    fn driver(&self) -> Arc<dyn ScmDriver> {
        self.driver.clone()
    }

    fn repo(&self) -> String {
        "acme/api".to_owned()
    }

    fn missing_repo(&self) -> String {
        "acme/missing".to_owned()
    }

    async fn commit(&self, branch: &str, files: &[(&str, Option<&str>)]) -> CommitId {
        let written: Vec<(&str, &str)> =
            files.iter().filter_map(|(path, text)| Some((*path, (*text)?))).collect();
        let removed: Vec<&str> =
            files.iter().filter(|(_, text)| text.is_none()).map(|(path, _)| *path).collect();
        let mut commit = None;
        if !written.is_empty() {
            commit = Some(self.repo.push(branch, &written));
        }
        if !removed.is_empty() {
            commit = Some(self.repo.push_deleting(branch, &removed));
        }
        commit.expect("a commit has files").parse().unwrap()
    }

    async fn tag(&self, name: &str, branch: &str) {
        let head = self.repo.branch(branch).unwrap();
        self.repo.annotated_tag(name, &head);
    }

    async fn move_branch(&self, branch: &str, to: &CommitId) {
        self.repo.force_push(branch, to.as_str());
    }

    async fn delete_branch(&self, branch: &str) {
        self.repo.delete_branch(branch);
    }
}

mod app {
    workflows_core::repository_suite!(std::future::ready(super::as_an_app()));
}

mod token {
    workflows_core::repository_suite!(std::future::ready(super::with_a_token()));
}

mod anonymous {
    workflows_core::repository_suite!(std::future::ready(super::without_a_credential()));
}
