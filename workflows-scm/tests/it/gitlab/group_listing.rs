//! Merge requests of several projects that are polled through their group.

use std::{collections::BTreeMap, sync::Arc};

use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use workflows_core::{Clock, ErrorKind, RepoConnection, ScmDriver};
use workflows_gitlab_standin::{Access, Fault, ProjectHandle};
use workflows_scm::gitlab::GitLabDriver;

use super::world::World;

const OF_PROJECT: &str = "GET /projects/{id}/merge_requests";
const OF_GROUP: &str = "GET /groups/{id}/merge_requests";

/// A project that is looked at as a poller does.
struct Polled {
    project: ProjectHandle,
    connection: Arc<dyn RepoConnection>,
    /// The latest change that was seen.
    newest: Timestamp,
    /// The titles that were seen last, by number.
    seen: BTreeMap<u64, String>,
}

impl Polled {
    async fn new(world: &World, driver: &GitLabDriver, path: &str) -> Self {
        let project = world.gitlab.create_project(path);
        project.push("main", &[("README.md", "# It\n")]);
        let connection = driver.connect(&"gitlab".into(), path).await.unwrap();
        let newest = world.clock.now();
        Self { project, connection, newest, seen: BTreeMap::new() }
    }

    fn open(&self, number: usize) -> u64 {
        let branch = format!("topic-{number}");
        self.project.push(&branch, &[(branch.as_str(), "")]);
        self.project.open(&format!("Change {number}"), &branch, "main")
    }

    /// What changed since the last look, with some overlap; what was seen is remembered.
    async fn look(&mut self) -> Vec<u64> {
        let found = self.peek().await;
        for one in &found {
            self.newest = self.newest.max(one.updated_at);
            self.seen.insert(one.number, one.title.clone());
        }
        found.iter().map(|one| one.number).collect()
    }

    async fn peek(&self) -> Vec<workflows_core::event::PullRequest> {
        let since = self.newest - SignedDuration::from_secs(120);
        let power = self.connection.pull_requests().unwrap();
        power.changed_since(Some(since)).try_collect().await.unwrap()
    }
}

/// Some projects of a group, looked at until the group is what is asked.
async fn polled(world: &World, driver: &GitLabDriver) -> Vec<Polled> {
    let mut all = Vec::new();
    for name in ["one", "two", "three", "four"] {
        all.push(Polled::new(world, driver, &format!("acme/apps/{name}")).await);
    }
    for (number, one) in all.iter().enumerate() {
        one.open(number);
    }
    for _ in 0..3 {
        for one in &mut all {
            one.look().await;
        }
        world.later(20);
    }
    world.gitlab.forget_calls();
    all
}

#[tokio::test]
async fn projects_of_one_group_are_looked_at_with_one_call() {
    let world = World::new();
    let mut all = polled(&world, &world.driver()).await;
    world.later(200);
    for one in &mut all {
        one.look().await;
    }
    assert_eq!(world.calls(), [OF_GROUP]);

    all[1].project.rename(1, "Better");
    let new = all[2].open(10);
    world.later(20);
    assert_eq!(all[0].look().await, [1], "the overlap tells again what was seen");
    assert_eq!(all[1].look().await, [1]);
    assert_eq!(all[1].seen[&1], "Better");
    assert_eq!(all[2].look().await, [new, 1]);
    assert_eq!(world.calls(), [OF_GROUP]);

    // What was not taken in is told again.
    all[3].project.rename(1, "Worse");
    world.later(20);
    for _ in 0..2 {
        let told = all[3].peek().await;
        assert_eq!(told.iter().map(|one| &*one.title).collect::<Vec<_>>(), ["Worse"]);
    }
    assert_eq!(world.calls(), [OF_GROUP]);
}

#[tokio::test]
async fn a_project_that_is_looked_at_seldom_misses_nothing() {
    let world = World::new();
    let mut all = polled(&world, &world.driver()).await;
    all[3].project.rename(1, "Renamed long ago");
    for number in 0..50 {
        world.later(180);
        all[0].project.rename(1, &format!("Name {number}"));
        all[0].look().await;
        all[1].look().await;
    }
    world.gitlab.forget_calls();
    all[3].look().await;
    assert_eq!(all[3].seen[&1], "Renamed long ago");
    assert_eq!(world.calls(), [OF_PROJECT], "the group's list does not reach back so far");
}

#[tokio::test]
async fn where_the_group_cannot_be_read_each_project_is_asked() {
    let world = World::new();
    let mut all = polled(&world, &world.driver()).await;
    let until = world.clock.now() + SignedDuration::from_hours(9);
    world.gitlab.fail_until(OF_GROUP, until, Fault::Status(404));
    for round in 0..5 {
        world.later(60);
        all[0].project.rename(1, &format!("Round {round}"));
        for one in &mut all {
            one.look().await;
        }
        assert_eq!(all[0].seen[&1], format!("Round {round}"));
    }
    assert_eq!(world.gitlab.count(OF_GROUP), 1, "it is asked once in an hour");
    assert_eq!(world.gitlab.count(OF_PROJECT), 20);
    world.later(3_600);
    all[0].look().await;
    assert_eq!(world.gitlab.count(OF_GROUP), 2);
}

#[tokio::test]
async fn a_group_that_fails_in_passing_is_an_error_and_nothing_is_missed() {
    let world = World::new();
    let mut all = polled(&world, &world.driver()).await;
    world.later(60);
    all[0].project.rename(1, "Meanwhile");
    world.gitlab.fail(OF_GROUP, 1, Fault::Status(502));
    let since = all[0].newest - SignedDuration::from_secs(120);
    let power = all[0].connection.pull_requests().unwrap();
    let failed: Result<Vec<_>, _> = power.changed_since(Some(since)).try_collect().await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Transient);
    all[0].look().await;
    assert_eq!(all[0].seen[&1], "Meanwhile");
}

#[tokio::test]
async fn a_busy_group_is_not_read_for_a_few_of_its_projects() {
    let world = World::new();
    let mut all = polled(&world, &world.driver()).await;
    let other = world.gitlab.create_project("acme/apps/busy");
    other.push("main", &[("README.md", "# It\n")]);
    for number in 0..301 {
        let branch = format!("b{number}");
        other.push(&branch, &[(branch.as_str(), "")]);
        other.open("A change", &branch, "main");
    }
    world.later(60);
    all[0].project.rename(1, "Found");
    all[0].look().await;
    assert_eq!(all[0].seen[&1], "Found");
    let calls = world.calls();
    assert_eq!(calls.iter().filter(|call| *call == OF_GROUP).count(), 3, "{calls:?}");
    all[1].look().await;
    assert_eq!(world.calls(), [OF_PROJECT]);
}

#[tokio::test]
async fn who_sees_a_project_and_not_its_group_still_sees_the_project() {
    let world = World::new();
    let owner = world.driver();
    let mut all = polled(&world, &owner).await;
    for one in &all {
        one.project.set_public(false);
        one.project.set_access("carol", Some(Access::Reporter));
    }
    let carol = world.driver_with(&world.gitlab.token_of("carol"));
    for one in &mut all {
        let path = one.project.path();
        one.connection = carol.connect(&"gitlab".into(), &path).await.unwrap();
    }
    for round in 0..4 {
        world.later(60);
        all[3].project.rename(1, &format!("Round {round}"));
        for one in &mut all {
            one.look().await;
        }
        assert_eq!(all[3].seen[&1], format!("Round {round}"));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(usize),
    Rename(usize),
    Look(usize),
    Later(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..4_usize).prop_map(Step::Open),
        2 => (0..4_usize).prop_map(Step::Rename),
        4 => (0..4_usize).prop_map(Step::Look),
        3 => prop_oneof![Just(1), Just(10), Just(45), Just(600), Just(4_000)].prop_map(Step::Later),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However changes and looks follow each other, each project is seen as it is in the end.
    #[test]
    fn every_change_of_every_project_is_seen(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let world = World::new();
            let mut all = polled(&world, &world.driver()).await;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Open(at) => { all[at].open(100 + number); }
                    Step::Rename(at) => all[at].project.rename(1, &format!("Name {number}")),
                    Step::Look(at) => { all[at].look().await; }
                    Step::Later(seconds) => world.later(seconds),
                }
            }
            world.later(30);
            for one in &mut all {
                one.look().await;
                let truth: Vec<_> = one.connection.pull_requests().unwrap()
                    .changed_since(None).try_collect().await.unwrap();
                let truth: BTreeMap<u64, String> =
                    truth.into_iter().map(|one| (one.number, one.title)).collect();
                assert_eq!(one.seen, truth);
            }
        });
    }
}
