//! What is read of a repository, and with how many calls.

use std::{collections::BTreeSet, sync::Arc};

use futures::TryStreamExt;
use jiff::SignedDuration;
use secrecy::SecretString;
use workflows_core::{
    Clock, CommitId, ConnectionName, ErrorKind, ManualClock, RepoConnection, ScmDriver,
    repo::{ChangedFile, FileChange, ListOptions, Permission, ReadLimit},
};
use workflows_github_standin::{Fault, Hub, RepoHandle, Role};
use workflows_scm::github::{GitHubCredentials, GitHubDriver};

use super::world::clock;

struct World {
    hub: Hub,
    repo: RepoHandle,
    driver: GitHubDriver,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        let clock = clock();
        let hub = Hub::start(Arc::new(clock.clone()));
        let repo = hub.create_repo("acme/api");
        repo.push("main", &[("README.md", "hello")]);
        let app = hub.create_app("ci");
        app.install("acme");
        let driver = GitHubDriver::builder()
            .base(hub.api())
            .clock(Arc::new(clock.clone()))
            .credentials(GitHubCredentials::app(
                app.id(),
                SecretString::from(app.private_key().to_owned()),
            ))
            .build()
            .unwrap();
        Self { hub, repo, driver, clock }
    }

    /// A connection; the calls so far are forgotten.
    async fn connect(&self) -> Arc<dyn RepoConnection> {
        let name = ConnectionName::new("acme");
        let connection = self.driver.connect(&name, "acme/api").await.unwrap();
        self.hub.forget_calls();
        connection
    }

    fn calls(&self) -> usize {
        let calls = self.hub.calls().len();
        self.hub.forget_calls();
        calls
    }
}

fn id(text: &str) -> CommitId {
    text.parse().unwrap()
}

async fn changed(
    connection: &dyn RepoConnection,
    from: &CommitId,
    to: &CommitId,
) -> Vec<ChangedFile> {
    connection.changed_files(Some(from), to).try_collect().await.unwrap()
}

#[tokio::test]
async fn a_directory_and_its_files_are_one_call() {
    let world = World::new();
    let files: Vec<(String, String)> =
        (0..30).map(|n| (format!(".tekton/sub/{n}.yaml"), format!("number: {n}\n"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let commit = id(&world.repo.push("main", &files));
    let connection = world.connect().await;
    let listed =
        connection.list_directory(&commit, ".tekton", ListOptions::recursive()).await.unwrap();
    assert_eq!(listed.entries.len(), 31, "the files and a directory");
    for (path, text) in &files {
        let read = connection.read_file(&commit, path, ReadLimit::default()).await.unwrap();
        assert_eq!(&*read, text.as_bytes());
    }
    assert_eq!(world.calls(), 1);
    connection.list_directory(&commit, ".tekton", ListOptions::recursive()).await.unwrap();
    assert_eq!(world.calls(), 0, "what is at a commit is asked for once");

    // Of another commit, only the directory is read anew.
    let next = id(&world.repo.push("main", &[("src/a.rs", "")]));
    let same = connection.list_directory(&next, ".tekton", ListOptions::recursive()).await.unwrap();
    assert_eq!(same.digest, listed.digest);
    connection.read_file(&next, ".tekton/sub/1.yaml", ReadLimit::default()).await.unwrap();
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn what_one_query_cannot_bring_is_read_otherwise() {
    let world = World::new();
    world.repo.push("main", &[("d/a/b/c/e/f/deep.yaml", "deep"), ("d/top.yaml", "top")]);
    world.repo.push_file("main", "d/binary", &[0, 159, 146, 150], 0o100_644);
    let commit = id(&world.repo.push_file("main", "d/link", b"top.yaml", 0o120_000));
    let connection = world.connect().await;
    let listed = connection.list_directory(&commit, "d", ListOptions::recursive()).await.unwrap();
    let paths: Vec<&str> = listed.entries.iter().map(|entry| &*entry.path).collect();
    assert!(paths.contains(&"a/b/c/e/f/deep.yaml"), "{paths:?}");
    let read = |path| connection.read_file(&commit, path, ReadLimit::default());
    assert_eq!(&*read("d/a/b/c/e/f/deep.yaml").await.unwrap(), b"deep");
    assert_eq!(&*read("d/binary").await.unwrap(), [0, 159, 146, 150]);
    assert_eq!(read("d/link").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(read("d/gone").await.unwrap_err().kind(), ErrorKind::NotFound);

    // GraphQL fails, and the same is read from trees.
    world.hub.fail("POST /graphql", 100, Fault::Status(502));
    let commit = id(&world.repo.push("main", &[("other", "")]));
    let again = connection.list_directory(&commit, "d", ListOptions::recursive()).await.unwrap();
    assert_eq!(again, listed);
}

#[tokio::test]
async fn a_large_file_is_read_as_a_blob() {
    let world = World::new();
    let text = "0123456789abcdef".repeat(100_000);
    let commit = id(&world.repo.push("main", &[("large.txt", &text)]));
    let connection = world.connect().await;
    let read = connection.read_file(&commit, "large.txt", ReadLimit::bytes(2_000_000)).await;
    assert_eq!(&*read.unwrap(), text.as_bytes());
    let read = connection.read_file(&commit, "large.txt", ReadLimit::bytes(1_000)).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn changed_files_are_all_of_them_past_every_limit() {
    let world = World::new();
    let from = id(&world.repo.branch("main").unwrap());
    let to = id(&world.repo.push_commits("main", 320));
    let connection = world.connect().await;
    let paths: BTreeSet<_> =
        changed(&*connection, &from, &to).await.into_iter().map(|file| file.path).collect();
    assert_eq!(paths.len(), 320);
    assert!(paths.contains("commits/1.txt") && paths.contains("commits/320.txt"));
    assert!(world.calls() <= 5);
    assert_eq!(changed(&*connection, &from, &to).await.len(), 320);
    assert_eq!(world.calls(), 0);

    // GitHub does not compare them, nor tell the trees whole: directory by directory, then.
    let other = world.repo.push("other", &[("deep/er/x", "1"), ("commits/7.txt", "changed")]);
    world.hub.limits(|limits| limits.tree_entries = 322);
    let compare = "GET /repos/{owner}/{repo}/compare/{basehead}";
    world.hub.fail(compare, 1, Fault::Status(500));
    let expected = |path: &str, change| ChangedFile { path: path.into(), change };
    assert_eq!(
        changed(&*connection, &to, &id(&other)).await,
        [expected("commits/7.txt", FileChange::Modified), expected("deep/er/x", FileChange::Added),]
    );
    assert_eq!(world.hub.count(compare), 1);
}

#[tokio::test]
async fn a_forced_push_changed_what_it_dropped_too() {
    let world = World::new();
    let start = world.repo.branch("main").unwrap();
    let dropped = world.repo.push("topic", &[("dropped", "1"), ("both", "1")]);
    let kept = world.repo.write_commit(&start, &[("both", "2"), ("new", "1")]);
    world.repo.force_push("topic", &kept);
    let connection = world.connect().await;
    let expected = |path: &str, change| ChangedFile { path: path.into(), change };
    assert_eq!(
        changed(&*connection, &id(&dropped), &id(&kept)).await,
        [
            expected("both", FileChange::Modified),
            expected("dropped", FileChange::Deleted),
            expected("new", FileChange::Added),
        ]
    );
}

#[tokio::test]
async fn a_pull_request_changed_what_its_base_did_not_and_that_is_one_call() {
    let world = World::new();
    let head = id(&world.repo.push("topic", &[("mine", "1")]));
    let start = id(&world.repo.branch("main").unwrap());
    let base = id(&world.repo.push("main", &[("theirs", "1")]));
    let connection = world.connect().await;
    let history = connection.history().unwrap();
    assert_eq!(history.merge_base(&base, &head).await.unwrap(), Some(start.clone()));
    let mine = ChangedFile { path: "mine".into(), change: FileChange::Added };
    assert_eq!(changed(&*connection, &start, &head).await, std::slice::from_ref(&mine));
    assert_eq!(world.calls(), 1);

    // GitHub does not tell the files, which are too many for it.
    let head = id(&world.repo.push("topic", &[("mine", "2")]));
    world.hub.fail("GET /repos/{owner}/{repo}/compare/{basehead}", 1, Fault::Status(500));
    assert_eq!(history.merge_base(&base, &head).await.unwrap(), Some(start.clone()));
    assert_eq!(changed(&*connection, &start, &head).await, [mine]);
    assert_eq!(world.calls(), 3);

    // One of them is not there.
    let unknown = id(&"1".repeat(40));
    let error = history.merge_base(&base, &unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_directory_is_read_when_the_hour_of_graphql_is_used_up() {
    let world = World::new();
    world.repo.push("main", &[(".tekton/ci.yaml", "a: 1")]);
    world.hub.limits(|limits| limits.graphql = 0);
    let connection = world.connect().await;
    let commit = id(&world.repo.branch("main").unwrap());
    let options = ListOptions::recursive();
    let listed = connection.list_directory(&commit, ".tekton", options).await.unwrap();
    assert_eq!(listed.entries.len(), 1);
}

#[tokio::test]
async fn a_branch_that_was_set_back_has_what_went_away() {
    let world = World::new();
    let old = id(&world.repo.branch("main").unwrap());
    let new = id(&world.repo.push("main", &[("src/a.rs", "")]));
    world.repo.force_push("main", old.as_str());
    let connection = world.connect().await;
    let gone = ChangedFile { path: "src/a.rs".into(), change: FileChange::Deleted };
    assert_eq!(changed(&*connection, &new, &old).await, [gone]);
}

#[tokio::test]
async fn refs_are_those_of_the_prefix_and_tags_are_peeled_once() {
    let world = World::new();
    let head = world.repo.branch("main").unwrap();
    for number in 0..25 {
        world.repo.force_push(&format!("release/{number}"), &head);
    }
    world.repo.force_push("release-not", &head);
    for number in 0..3 {
        world.repo.annotated_tag(&format!("v{number}"), &head);
    }
    let connection = world.connect().await;
    let list = async |prefix: &str| -> usize {
        let refs: Vec<_> = connection.refs(&[prefix.into()]).try_collect().await.unwrap();
        assert!(refs.iter().all(|one| one.name.starts_with(prefix)));
        assert!(refs.iter().all(|one| one.commit == id(&head)));
        refs.len()
    };
    assert_eq!(list("refs/heads/release/").await, 25);
    assert_eq!(list("refs/tags/").await, 3);
    world.hub.forget_calls();
    assert_eq!(list("refs/tags/").await, 3);
    assert_eq!(world.calls(), 1, "a tag is peeled once");
}

#[tokio::test]
async fn the_commit_of_an_earlier_time_is_on_the_first_parent_line() {
    let world = World::new();
    let hour = SignedDuration::from_hours(1);
    world.clock.advance(hour);
    let early = id(&world.repo.push("main", &[("a", "1")]));
    let then = world.clock.now();
    world.clock.advance(hour);
    world.repo.push("topic", &[("b", "1")]);
    world.clock.advance(hour);
    world.repo.push("main", &[("a", "2")]);
    let number = world.repo.open_pull_request("Merge it", "topic", "main");
    world.clock.advance(hour);
    let merged = id(&world.repo.merge(number));
    let connection = world.connect().await;
    let history = connection.history().unwrap();
    let at = |instant| history.first_parent_as_of("refs/heads/main", instant);
    assert_eq!(at(world.clock.now()).await.unwrap(), Some(merged));
    // The topic's commit is older than the merge, and not on the line.
    let later = then + SignedDuration::from_mins(90);
    assert_eq!(at(later).await.unwrap(), Some(early));
    assert_eq!(at(then - SignedDuration::from_hours(100)).await.unwrap(), None);
}

#[tokio::test]
async fn people_are_asked_about_one_by_one() {
    let world = World::new();
    for (login, role) in [
        ("reader", Role::Read),
        ("sorter", Role::Triage),
        ("writer", Role::Write),
        ("keeper", Role::Maintain),
        ("owner", Role::Admin),
    ] {
        world.hub.user(login);
        world.repo.set_role(login, Some(role));
    }
    world.repo.set_custom_role("deployer", "deployer", Role::Write);
    world.hub.user("stranger");
    world.hub.add_team("acme", "reviewers", &["writer"]);
    world.hub.invite_to_team("acme", "reviewers", "invited");
    let connection = world.connect().await;
    let power = connection.permissions().unwrap();
    for (login, expected) in [
        ("reader", Permission::Read),
        ("sorter", Permission::Triage),
        ("writer", Permission::Write),
        ("keeper", Permission::Maintain),
        ("owner", Permission::Admin),
        ("deployer", Permission::Write),
        ("stranger", Permission::Read),
        ("nobody-at-all", Permission::None),
        ("../../../app", Permission::None),
        ("", Permission::None),
    ] {
        assert_eq!(power.of(login).await.unwrap(), expected, "{login}");
    }
    for (login, team, expected) in [
        ("writer", "reviewers", true),
        ("writer", "@acme/Reviewers", true),
        ("invited", "reviewers", false),
        ("reader", "reviewers", false),
        ("writer", "no-such-team", false),
        ("writer", "../../user", false),
    ] {
        let is = power.is_member(login, team).await;
        assert_eq!(is.as_ref().ok(), Some(&expected), "{login} in {team}: {is:?}");
    }
    assert!(world.hub.calls().iter().all(|call| !call.route.ends_with("/members")));
}

#[tokio::test]
async fn pull_requests_come_newest_change_first_as_far_as_asked() {
    let world = World::new();
    let mut since = world.clock.now();
    for number in 1..=130 {
        world.clock.advance(SignedDuration::from_secs(60));
        if number == 21 {
            since = world.clock.now();
        }
        let branch = format!("topic/{number}");
        world.repo.push(&branch, &[("a", &number.to_string())]);
        world.repo.open_pull_request("A change", &branch, "main");
    }
    world.repo.close(130);
    let connection = world.connect().await;
    let power = connection.pull_requests().unwrap();
    let all: Vec<_> = power.changed_since(None).try_collect().await.unwrap();
    assert_eq!(all.len(), 130);
    assert!(all.is_sorted_by(|a, b| a.updated_at >= b.updated_at));
    world.hub.forget_calls();
    let some: Vec<_> = power.changed_since(Some(since)).try_collect().await.unwrap();
    assert_eq!(some.len(), 110);
    assert_eq!(world.calls(), 3, "a few, and as those were not all, two large pages");
    let last = since + SignedDuration::from_mins(108);
    let few: Vec<_> = power.changed_since(Some(last)).try_collect().await.unwrap();
    assert_eq!(few.iter().map(|one| one.number).collect::<Vec<_>>(), [130, 129]);
    assert_eq!(world.hub.calls().iter().map(|call| call.status).collect::<Vec<_>>(), [304]);
    let one = power.get(7).await.unwrap();
    assert_eq!(&*one.head.reference, "refs/heads/topic/7");
    assert_eq!(power.get(9_999).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_an_event_told_of_too_early_is_asked_for_again() {
    let world = World::new();
    let connection = world.connect().await;
    let commit = id(&world.repo.push("main", &[(".tekton/ci.yaml", "a: 1")]));
    world.hub.fail("GET /repos/{owner}/{repo}/contents/{path}", 1, Fault::NotYetThere);
    world.hub.fail("GET /repos/{owner}/{repo}/git/commits/{commit_sha}", 1, Fault::NotYetThere);
    let read = connection.read_file(&commit, ".tekton/ci.yaml", ReadLimit::default()).await;
    assert_eq!(&*read.unwrap(), b"a: 1");
}

#[tokio::test]
async fn a_poll_of_what_did_not_change_costs_nothing_of_the_hour() {
    let world = World::new();
    let connection = world.connect().await;
    let list = async || -> usize {
        let refs: Vec<_> = connection.refs(&["refs/heads/".into()]).try_collect().await.unwrap();
        refs.len()
    };
    let remaining = || {
        let budget = world.driver.budget();
        let installation =
            budget.iter().find(|one| one.credential.starts_with("installation")).unwrap().clone();
        installation.resources.iter().find(|one| one.resource == "core").unwrap().remaining
    };
    assert_eq!(list().await, 1);
    let before = remaining();
    for _ in 0..10 {
        assert_eq!(list().await, 1);
    }
    assert_eq!(remaining(), before);
    world.repo.push("topic", &[("a", "1")]);
    assert_eq!(list().await, 2);
}
