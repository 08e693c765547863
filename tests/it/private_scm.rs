//! A private source-code host passes the suite for drivers.

use std::sync::Arc;

use async_trait::async_trait;
use workflows_core::{CommitId, ScmDriver, conformance::repository::RepositoryFixture};
use workflows_tests::private_scm::PrivateScm;

#[derive(Debug)]
struct Fixture(PrivateScm);

#[async_trait]
impl RepositoryFixture for Fixture {
    fn driver(&self) -> Arc<dyn ScmDriver> {
        Arc::new(self.0.clone())
    }

    fn repo(&self) -> String {
        "team/project".to_owned()
    }

    fn missing_repo(&self) -> String {
        "team/nothing".to_owned()
    }

    async fn commit(&self, branch: &str, files: &[(&str, Option<&str>)]) -> CommitId {
        self.0.save("team/project", branch, files)
    }

    async fn tag(&self, name: &str, branch: &str) {
        self.0.mark("team/project", name, branch);
    }

    async fn move_branch(&self, branch: &str, to: &CommitId) {
        self.0.move_branch("team/project", branch, to);
    }

    async fn delete_branch(&self, branch: &str) {
        self.0.delete_branch("team/project", branch);
    }
}

fn fixture() -> Arc<dyn RepositoryFixture> {
    let scm = PrivateScm::default();
    scm.create("team/project", &[("README.md", "# A project\n")]);
    Arc::new(Fixture(scm))
}

workflows_core::repository_suite!(std::future::ready(fixture()));
