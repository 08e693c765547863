//! What is read of a project, and with how many calls.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use jiff::SignedDuration;
use workflows_core::{
    Clock, CommitId, ErrorKind, RepoConnection, ScmDriver,
    repo::{ChangedFile, FileChange, ListOptions, Permission, ReadLimit},
};
use workflows_gitlab_standin::{Access, Fault};

use super::world::{PROJECT, World};

const TREE: &str = "GET /projects/{id}/repository/tree";
const COMPARE: &str = "GET /projects/{id}/repository/compare";
const GRAPHQL: &str = "POST /graphql";
const LIST: &str = "GET /projects/{id}/merge_requests";

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
async fn a_directory_and_its_files_are_two_calls() {
    let world = World::new();
    let files: Vec<(String, String)> =
        (0..30).map(|n| (format!(".tekton/sub/{n}.yaml"), format!("number: {n}\n"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let commit = id(&world.project.push("main", &files));
    let connection = world.connect().await;
    let options = ListOptions::recursive();
    let listed = connection.list_directory(&commit, ".tekton", options).await.unwrap();
    assert_eq!(listed.entries.len(), 31, "the files and a directory");
    for (path, text) in &files {
        let read = connection.read_file(&commit, path, ReadLimit::default()).await.unwrap();
        assert_eq!(&*read, text.as_bytes());
    }
    assert_eq!(world.calls(), [TREE, GRAPHQL]);
    connection.list_directory(&commit, ".tekton", options).await.unwrap();
    assert_eq!(world.calls(), [""; 0], "what is at a commit is asked for once");

    // Of another commit, only the directory is read anew.
    let next = id(&world.project.push("main", &[("src/a.rs", "")]));
    let same = connection.list_directory(&next, ".tekton", options).await.unwrap();
    assert_eq!(same.digest, listed.digest);
    connection.read_file(&next, ".tekton/sub/1.yaml", ReadLimit::default()).await.unwrap();
    assert_eq!(world.calls(), [TREE]);
}

#[tokio::test]
async fn what_one_query_cannot_bring_is_read_otherwise() {
    let world = World::new();
    world.project.push("main", &[("d/top.yaml", "top"), ("d/other.yaml", "other")]);
    world.project.push_file("main", "d/binary", &[0, 159, 146, 150], 0o100_644);
    let commit = id(&world.project.push_file("main", "d/link", b"top.yaml", 0o120_000));
    let connection = world.connect().await;
    world.gitlab.fail(GRAPHQL, 1, Fault::Status(502));
    connection.list_directory(&commit, "d", ListOptions::recursive()).await.unwrap();
    let read = |path| connection.read_file(&commit, path, ReadLimit::default());
    assert_eq!(&*read("d/top.yaml").await.unwrap(), b"top");
    assert_eq!(&*read("d/binary").await.unwrap(), [0, 159, 146, 150]);
    assert_eq!(read("d/link").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(read("d/gone").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_directory_of_many_pages_is_read_whole() {
    let world = World::new();
    let files: Vec<String> = (0..250).map(|n| format!("many/{n:03}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "")).collect();
    let commit = id(&world.project.push("main", &files));
    let connection = world.connect().await;
    let listed = connection.list_directory(&commit, "many", ListOptions::default()).await.unwrap();
    assert_eq!(listed.entries.len(), 250);
    assert_eq!(world.calls().iter().filter(|call| *call == TREE).count(), 3);
}

#[tokio::test]
async fn changed_files_are_all_of_them_past_every_limit() {
    let world = World::new();
    let from = id(&world.project.branch("main").unwrap());
    // More commits than a push tells, and more files than a comparison does.
    let mut last = from.to_string();
    for number in 0..25 {
        let path = format!("commits/{number}.txt");
        last = world.project.write_commit(&last, &[(path.as_str(), "1")]);
    }
    world.project.force_push("main", &last);
    let to = id(&last);
    let connection = world.connect().await;
    assert_eq!(changed(&*connection, &from, &to).await.len(), 25);
    assert_eq!(world.calls(), [COMPARE]);
    assert_eq!(changed(&*connection, &from, &to).await.len(), 25);
    assert_eq!(world.calls(), [""; 0]);

    let files: Vec<String> = (0..600).map(|n| format!("deep/er/{n}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "")).collect();
    world.gitlab.limits(|limits| limits.compared_files = 550);
    let many = id(&world.project.push("main", &files));
    let found: BTreeSet<_> =
        changed(&*connection, &to, &many).await.into_iter().map(|file| file.path).collect();
    assert_eq!(found.len(), 600, "the list was cut, and directories were compared");

    // GitLab does not compare them at all: directory by directory, then, those that differ alone.
    let other = world.project.push("other", &[("deep/er/x", "1"), ("commits/7.txt", "changed")]);
    world.gitlab.forget_calls();
    world.gitlab.fail(COMPARE, 1, Fault::Status(500));
    let expected = |path: &str, change| ChangedFile { path: path.into(), change };
    assert_eq!(
        changed(&*connection, &many, &id(&other)).await,
        [expected("commits/7.txt", FileChange::Modified), expected("deep/er/x", FileChange::Added)]
    );
}

#[tokio::test]
async fn a_forced_push_changed_what_it_dropped_too() {
    let world = World::new();
    let start = world.project.branch("main").unwrap();
    let dropped = world.project.push("topic", &[("dropped", "1"), ("both", "1")]);
    let kept = world.project.write_commit(&start, &[("both", "2"), ("new", "1")]);
    world.project.force_push("topic", &kept);
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
async fn refs_are_those_of_the_prefix_page_by_page() {
    let world = World::new();
    let head = world.project.branch("main").unwrap();
    for number in 0..130 {
        world.project.force_push(&format!("release/{number}"), &head);
    }
    world.project.force_push("release-not", &head);
    world.project.force_push("Release/upper", &head);
    world.project.annotated_tag("v1", &head);
    let connection = world.connect().await;
    let list = async |prefix: &str| -> usize {
        let refs: Vec<_> = connection.refs(&[prefix.into()]).try_collect().await.unwrap();
        assert!(refs.iter().all(|one| one.name.starts_with(prefix)), "{refs:?}");
        assert!(refs.iter().all(|one| one.commit == id(&head)));
        refs.len()
    };
    assert_eq!(list("refs/heads/release/").await, 130);
    assert_eq!(world.calls().len(), 2);
    assert_eq!(list("refs/tags/").await, 1);
    assert_eq!(list("refs/heads/main").await, 1);
    world.gitlab.forget_calls();
    assert_eq!(list("refs/heads/main").await, 1);
    let statuses: Vec<u16> = world.gitlab.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [304], "what did not change is asked for with its tag");
}

#[tokio::test]
async fn the_commit_of_an_earlier_time_is_on_the_first_parent_line() {
    let world = World::new();
    let hour = SignedDuration::from_hours(1);
    world.clock.advance(hour);
    let early = id(&world.project.push("main", &[("a", "1")]));
    let then = world.clock.now();
    world.clock.advance(hour);
    world.project.push("topic", &[("b", "1")]);
    world.clock.advance(hour);
    world.project.push("main", &[("a", "2")]);
    let number = world.project.open("Merge it", "topic", "main");
    world.clock.advance(hour);
    let merged = id(&world.project.merge(number));
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
async fn people_have_what_they_are_given_and_what_they_inherit() {
    let world = World::new();
    for (name, access) in [
        ("guest", Access::Guest),
        ("planner", Access::Planner),
        ("reporter", Access::Reporter),
        ("developer", Access::Developer),
        ("keeper", Access::Maintainer),
        ("owner", Access::Owner),
    ] {
        world.project.set_access(name, Some(access));
    }
    world.gitlab.set_group_access("acme/platform", "inherits", Some(Access::Developer));
    world.gitlab.set_group_access("acme", "above", Some(Access::Maintainer));
    world.gitlab.set_group_access("acme/reviewers", "writer", Some(Access::Reporter));
    world.project.set_access("blocked", Some(Access::Owner));
    world.gitlab.block("blocked");
    world.gitlab.user("stranger");
    let connection = world.connect().await;
    let power = connection.permissions().unwrap();
    for (name, expected) in [
        ("guest", Permission::Read),
        ("planner", Permission::Triage),
        ("reporter", Permission::Triage),
        ("developer", Permission::Write),
        ("keeper", Permission::Maintain),
        ("owner", Permission::Admin),
        ("inherits", Permission::Write),
        ("above", Permission::Maintain),
        ("blocked", Permission::Read),
        ("stranger", Permission::Read),
        ("nobody-at-all", Permission::None),
        ("../../../user", Permission::None),
        ("", Permission::None),
    ] {
        assert_eq!(power.of(name).await.unwrap(), expected, "{name}");
    }
    for (name, team, expected) in [
        ("writer", "acme/reviewers", true),
        ("writer", "reviewers", true),
        ("writer", "@acme/reviewers", true),
        ("above", "acme/reviewers", true),
        ("above", "acme", true),
        ("stranger", "acme/reviewers", false),
        ("writer", "acme/no-such-group", false),
        ("writer", "../../user", false),
    ] {
        let is = power.is_member(name, team).await;
        assert_eq!(is.as_ref().ok(), Some(&expected), "{name} in {team}: {is:?}");
    }
    world.project.set_public(false);
    let connection = world.connect().await;
    let power = connection.permissions().unwrap();
    assert_eq!(power.of("stranger").await.unwrap(), Permission::None, "the project is private");
}

#[tokio::test]
async fn merge_requests_come_newest_change_first_as_far_as_asked() {
    let world = World::new();
    let mut since = world.clock.now();
    for number in 1..=130 {
        world.clock.advance(SignedDuration::from_secs(60));
        if number == 21 {
            since = world.clock.now();
        }
        let branch = format!("topic/{number}");
        world.project.push(&branch, &[("a", &number.to_string())]);
        world.project.open("A change", &branch, "main");
    }
    let connection = world.connect().await;
    let power = connection.pull_requests().unwrap();
    let all: Vec<_> = power.changed_since(None).try_collect().await.unwrap();
    assert_eq!(all.len(), 130);
    assert!(all.is_sorted_by(|a, b| a.updated_at >= b.updated_at));
    world.gitlab.forget_calls();
    let some: Vec<_> = power.changed_since(Some(since)).try_collect().await.unwrap();
    assert_eq!(some.len(), 110);
    assert_eq!(world.calls(), [LIST; 3], "a few, and as those were not all, two large pages");
    let last = since + SignedDuration::from_mins(108);
    let few: Vec<_> = power.changed_since(Some(last)).try_collect().await.unwrap();
    assert_eq!(few.iter().map(|one| one.number).collect::<Vec<_>>(), [130, 129]);
    let statuses: Vec<u16> = world.gitlab.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [304]);
    let open: Vec<_> = power.open().try_collect().await.unwrap();
    assert_eq!(open.len(), 130);
    let one = power.get(7).await.unwrap();
    assert_eq!(&*one.head.reference, "refs/heads/topic/7");
    assert!(!one.base.sha.is_null(), "alone, it tells where its base stands");
    assert_eq!(power.get(9_999).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_an_event_told_of_too_early_is_asked_for_again() {
    let world = World::new();
    let connection = world.connect().await;
    let commit = id(&world.project.push("main", &[(".tekton/ci.yaml", "a: 1")]));
    world.gitlab.fail("GET /projects/{id}/repository/files/*", 1, Fault::NotYetThere);
    world.gitlab.fail("GET /projects/{id}/repository/commits/{sha}", 1, Fault::NotYetThere);
    let read = connection.read_file(&commit, ".tekton/ci.yaml", ReadLimit::default()).await;
    assert_eq!(&*read.unwrap(), b"a: 1");
}

#[tokio::test]
async fn a_project_that_was_moved_is_reached_by_its_old_path_and_keeps_its_identity() {
    let world = World::new();
    let before = world.connect().await.repo().id.clone();
    world.project.move_to("acme/services/backend");
    let connection = world.connect().await;
    assert_eq!(connection.repo().id, before);
    assert_eq!(&*connection.repo().name, PROJECT);
    connection.resolve("refs/heads/main").await.unwrap();
}

#[tokio::test]
async fn the_limit_of_a_minute_is_kept_once_it_is_told() {
    let world = World::new();
    world.gitlab.limits(|limits| limits.calls_a_minute = Some(10));
    let driver = world.driver();
    let connection = driver.connect(&"gitlab".into(), PROJECT).await.unwrap();
    let mut refused = None;
    for _ in 0..30 {
        if let Err(error) = connection.default_branch().await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("a call is held back");
    let ErrorKind::RateLimited { until: Some(until) } = refused.kind() else {
        panic!("{refused}");
    };
    assert_eq!(until, world.clock.now() + SignedDuration::from_mins(1));
    assert!(world.gitlab.calls().iter().all(|call| call.status != 429), "none was refused");
    let budget = driver.budget();
    assert_eq!((budget[0].credential.as_str(), budget[0].resources[0].limit), ("token", 10));
    world.later(61);
    connection.default_branch().await.unwrap();

    // One that comes without a warning is heeded.
    world.gitlab.limits(|limits| limits.calls_a_minute = None);
    world.gitlab.fail("GET /projects/{id}", 1, Fault::TooManyRequests(Some(30)));
    let error = connection.default_branch().await.unwrap_err();
    let expected =
        ErrorKind::RateLimited { until: Some(world.clock.now() + SignedDuration::from_secs(30)) };
    assert_eq!(error.kind(), expected);
    world.gitlab.forget_calls();
    assert_eq!(connection.default_branch().await.unwrap_err().kind(), expected);
    assert_eq!(world.calls(), [""; 0]);
}

#[tokio::test]
async fn what_fails_says_what_kind_it_is() {
    let world = World::new();
    let connection = world.connect().await;
    for (fault, kind) in [
        (Fault::Status(400), ErrorKind::Invalid),
        (Fault::Status(401), ErrorKind::Denied),
        (Fault::Status(403), ErrorKind::Denied),
        (Fault::Status(404), ErrorKind::NotFound),
        (Fault::Status(409), ErrorKind::Conflict),
        (Fault::Status(500), ErrorKind::Transient),
        (Fault::Status(502), ErrorKind::Transient),
        (Fault::Truncated, ErrorKind::Transient),
    ] {
        world.gitlab.fail("GET /projects/{id}", 1, fault);
        let error = connection.default_branch().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert_eq!(world.calls().len(), 1, "nothing is repeated: {fault:?}");
    }
}
