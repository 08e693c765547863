//! The suite that every driver passes, with a token and without.

use std::sync::Arc;

use async_trait::async_trait;
use workflows_core::{CommitId, ScmDriver, conformance::repository::RepositoryFixture};
use workflows_scm::gitlab::GitLabDriver;

use super::world::{PROJECT, World};

struct Fixture {
    world: World,
    driver: Arc<GitLabDriver>,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").field("driver", &self.driver).finish_non_exhaustive()
    }
}

fn with_a_token() -> Arc<dyn RepositoryFixture> {
    let world = World::new();
    let driver = Arc::new(world.driver());
    Arc::new(Fixture { world, driver })
}

fn without_a_credential() -> Arc<dyn RepositoryFixture> {
    let world = World::new();
    let driver = Arc::new(world.builder().build().unwrap());
    Arc::new(Fixture { world, driver })
}

#[async_trait]
impl RepositoryFixture for Fixture {
    fn driver(&self) -> Arc<dyn ScmDriver> {
        self.driver.clone()
    }

    fn repo(&self) -> String {
        PROJECT.to_owned()
    }

    fn missing_repo(&self) -> String {
        "acme/platform/missing".to_owned()
    }

    async fn commit(&self, branch: &str, files: &[(&str, Option<&str>)]) -> CommitId {
        let project = &self.world.project;
        let written: Vec<(&str, &str)> =
            files.iter().filter_map(|(path, text)| Some((*path, (*text)?))).collect();
        let removed: Vec<&str> =
            files.iter().filter(|(_, text)| text.is_none()).map(|(path, _)| *path).collect();
        let mut commit = None;
        if !written.is_empty() {
            commit = Some(project.push(branch, &written));
        }
        if !removed.is_empty() {
            commit = Some(project.push_deleting(branch, &removed));
        }
        commit.expect("a commit has files").parse().unwrap()
    }

    async fn tag(&self, name: &str, branch: &str) {
        let head = self.world.project.branch(branch).unwrap();
        self.world.project.annotated_tag(name, &head);
    }

    async fn move_branch(&self, branch: &str, to: &CommitId) {
        self.world.project.force_push(branch, to.as_str());
    }

    async fn delete_branch(&self, branch: &str) {
        self.world.project.delete_branch(branch);
    }
}

mod token {
    workflows_core::repository_suite!(std::future::ready(super::with_a_token()));
}

mod anonymous {
    workflows_core::repository_suite!(std::future::ready(super::without_a_credential()));
}
