//! The suite that every driver passes, over each transport.

use std::sync::Arc;

use async_trait::async_trait;
use workflows_core::{CommitId, ScmDriver, conformance::repository::RepositoryFixture};
use workflows_scm::git::{GitCredentials, GitDriver};

use crate::{
    git_ssh::StandIn,
    support::{Root, TestRepository, http::Server},
};

/// A repository that `git` makes, and what must live as long as it is served.
#[derive(Debug)]
struct Fixture {
    driver: Arc<GitDriver>,
    repository: TestRepository,
    #[expect(dead_code, reason = "dropped at the end")]
    held: Held,
}

#[expect(dead_code, reason = "dropped at the end")]
#[derive(Debug)]
enum Held {
    Root(Root),
    Server(Root, Server),
    StandIn(Root, StandIn),
}

fn repository(root: &Root) -> TestRepository {
    let repository = root.repository("acme/api");
    repository.commit_file("README.md", "hello");
    // Branches are moved that are checked out.
    repository.git(&["config", "core.logAllRefUpdates", "false"]);
    repository
}

fn in_a_directory() -> Arc<dyn RepositoryFixture> {
    let root = Root::new();
    let repository = repository(&root);
    let driver = GitDriver::at(root.path().display().to_string()).unwrap();
    Arc::new(Fixture { driver: Arc::new(driver), repository, held: Held::Root(root) })
}

async fn over_http() -> Arc<dyn RepositoryFixture> {
    let root = Root::new();
    let repository = repository(&root);
    let server = Server::start(root.path()).await;
    let driver = GitDriver::at(&*server.url).unwrap();
    Arc::new(Fixture { driver: Arc::new(driver), repository, held: Held::Server(root, server) })
}

fn over_ssh() -> Arc<dyn RepositoryFixture> {
    let root = Root::new();
    let repository = repository(&root);
    let stand_in = StandIn::new("");
    let driver = GitDriver::builder()
        .base(format!("git@host:{}", root.path().display()))
        .credentials(GitCredentials::ssh_key_file("/dev/null"))
        .ssh_program(stand_in.program())
        .build()
        .unwrap();
    Arc::new(Fixture { driver: Arc::new(driver), repository, held: Held::StandIn(root, stand_in) })
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
        let known = self.repository.git(&["branch", "--list", branch]);
        let start = if known.is_empty() { "main" } else { branch };
        self.repository.git(&["checkout", "-q", "-B", branch, start]);
        for (path, content) in files {
            match content {
                Some(content) => self.repository.write(path, content),
                None => {
                    self.repository.git(&["rm", "-q", path]);
                }
            }
        }
        self.repository.commit("A commit")
    }

    async fn tag(&self, name: &str, branch: &str) {
        self.repository.git(&["tag", "-a", "-m", "A tag", name, branch]);
    }

    async fn move_branch(&self, branch: &str, to: &CommitId) {
        self.repository.git(&["update-ref", &format!("refs/heads/{branch}"), to.as_str()]);
    }

    async fn delete_branch(&self, branch: &str) {
        self.repository.git(&["checkout", "-q", "main"]);
        self.repository.git(&["branch", "-q", "-D", branch]);
    }
}

mod directory {
    workflows_core::repository_suite!(std::future::ready(super::in_a_directory()));
}

mod http {
    workflows_core::repository_suite!(super::over_http());
}

mod ssh {
    workflows_core::repository_suite!(std::future::ready(super::over_ssh()));
}
