//! The git driver over HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use workflows_core::{
    CommitId, ConnectionName, Error, ErrorKind, ManualClock, RepoConnection, ScmDriver, SecretRef,
    SecretStore, StaticSecrets, Tenant,
    repo::{EntryKind, FileChange, ListOptions, ReadLimit},
};
use workflows_scm::git::{GitCredentials, GitDriver};

use crate::support::{
    Root, changed, connect,
    http::{Server, status},
    refs,
};

fn anonymous(server: &Server) -> GitDriver {
    GitDriver::at(&*server.url).unwrap()
}

async fn kind_of(connection: &dyn RepoConnection) -> ErrorKind {
    connection.resolve("refs/heads/main").await.unwrap_err().kind()
}

#[tokio::test]
async fn refs_of_every_kind_are_listed_and_resolved() {
    let root = Root::new();
    let repo = root.repository("acme/api");
    let first = repo.commit_file("a", "1");
    repo.git(&["tag", "light"]);
    repo.git(&["tag", "-a", "-m", "Heavy", "heavy"]);
    repo.git(&["tag", "-a", "-m", "Heavier", "heavier", "heavy"]);
    repo.git(&["branch", "feature/größe"]);
    let second = repo.commit_file("a", "2");
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "acme/api").await;

    assert_eq!(&*connection.default_branch().await.unwrap(), "refs/heads/main");
    assert_eq!(connection.repo().id.as_str(), format!("{}/acme/api", server.url));
    let listed: Vec<(String, CommitId)> = refs(&*connection, &["refs/heads/", "refs/tags/"])
        .await
        .into_iter()
        .map(|position| (position.name.to_string(), position.commit))
        .collect();
    let at = |name: &str, commit: &CommitId| (name.to_owned(), commit.clone());
    assert_eq!(
        listed,
        [
            at("refs/heads/feature/größe", &first),
            at("refs/heads/main", &second),
            at("refs/tags/heavier", &first),
            at("refs/tags/heavy", &first),
            at("refs/tags/light", &first),
        ]
    );
    assert_eq!(connection.resolve("refs/tags/heavier").await.unwrap(), first);
    assert_eq!(connection.resolve("HEAD").await.unwrap(), second);
    assert_eq!(connection.resolve(first.as_str()).await.unwrap(), first);
    for missing in ["refs/heads/mai", "refs/heads/main2", &"ab".repeat(20)] {
        let error = connection.resolve(missing).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    for odd in ["main", "refs/heads/../x", "refs/heads/a b", "refs/heads/a\nb"] {
        let error = connection.resolve(odd).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn a_repeated_listing_of_one_among_ten_thousand_refs_is_one_small_request() {
    let root = Root::new();
    let repo = root.repository("api");
    let head = repo.commit_file("a", "1");
    let packed: String =
        (0..10_000).map(|number| format!("{head} refs/pull/{number}/head\n")).collect();
    std::fs::write(repo.path.join(".git/packed-refs"), packed).unwrap();
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;
    refs(&*connection, &["refs/heads/main"]).await;
    server.take_seen();

    let listed = refs(&*connection, &["refs/heads/main"]).await;

    assert_eq!(listed.len(), 1);
    let seen = server.take_seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].uri.path(), "/api/git-upload-pack");
    assert!(seen[0].answered <= 100, "{seen:?}");
    assert!(seen[0].sent <= 250, "{seen:?}");
    assert_eq!(refs(&*connection, &["refs/pull/"]).await.len(), 10_000);
}

#[tokio::test]
async fn a_listing_over_the_limit_is_refused() {
    let root = Root::new();
    let repo = root.repository("api");
    repo.commit_file("a", "1");
    for branch in ["b", "c", "d"] {
        repo.git(&["branch", branch]);
    }
    let server = Server::start(root.path()).await;
    let driver = GitDriver::builder().base(&*server.url).max_refs(3).build().unwrap();
    let connection = connect(&driver, "api").await;
    let listed: Result<Vec<_>, _> = connection.refs(&["refs/".into()]).try_collect().await;
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.message(),
        "the server lists more than 3 refs or 1048576 bytes; narrow the branches and tags, or raise the driver's limit"
    );
    assert_eq!(refs(&*connection, &["refs/heads/b"]).await.len(), 1);
}

#[tokio::test]
async fn an_empty_repository_has_a_default_branch_and_no_refs() {
    let root = Root::new();
    root.repository("api");
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;
    assert_eq!(&*connection.default_branch().await.unwrap(), "refs/heads/main");
    assert!(refs(&*connection, &["refs/"]).await.is_empty());
    assert_eq!(kind_of(&*connection).await, ErrorKind::NotFound);
}

#[tokio::test]
async fn files_and_directories_are_read_at_a_commit_with_few_bytes() {
    let root = Root::new();
    let repo = root.repository("api");
    repo.write(".tekton/ci.yaml", "kind: Workflow");
    repo.write(".tekton/lib/größe.yaml", "kind: Pipeline");
    repo.write("big", vec![7; 3 << 20]);
    std::os::unix::fs::symlink("/etc/passwd", repo.path.join(".tekton/link")).unwrap();
    let commit = repo.commit("First");
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},.tekton/sub")]);
    repo.git(&["commit", "-q", "-m", "Second"]);
    let commit = repo.head();
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;

    let listed =
        connection.list_directory(&commit, ".tekton", ListOptions::recursive()).await.unwrap();
    let entries: Vec<(&str, EntryKind)> =
        listed.entries.iter().map(|entry| (&*entry.path, entry.kind)).collect();
    assert_eq!(
        entries,
        [
            ("ci.yaml", EntryKind::File),
            ("lib", EntryKind::Directory),
            ("lib/größe.yaml", EntryKind::File),
            ("link", EntryKind::Link),
            ("sub", EntryKind::Submodule),
        ]
    );
    assert_eq!(
        listed.digest.as_deref(),
        Some(&*repo.git(&["rev-parse", "HEAD:.tekton"])),
        "the digest is the tree's id"
    );
    let limit = ReadLimit::default();
    let content = connection.read_file(&commit, ".tekton/lib/größe.yaml", limit).await.unwrap();
    assert_eq!(content, "kind: Pipeline");
    let answered: usize = server.take_seen().iter().map(|seen| seen.answered).sum();
    assert!(answered < 3_000, "{answered} bytes: the big file came along");

    let again = connection.list_directory(&commit, ".tekton/", ListOptions::recursive()).await;
    assert_eq!(again.unwrap(), listed);
    connection.read_file(&commit, ".tekton/lib/größe.yaml", limit).await.unwrap();
    assert_eq!(server.take_seen(), [], "what is at a commit is asked for once");

    let root_listing =
        connection.list_directory(&commit, "", ListOptions::default()).await.unwrap();
    assert_eq!(root_listing.entries.len(), 2);
    let absent = connection.list_directory(&commit, "nothing", ListOptions::default()).await;
    assert_eq!(absent.unwrap().digest, None);
    for (path, kind) in [
        (".tekton/none", ErrorKind::NotFound),
        (".tekton/ci.yaml/x", ErrorKind::NotFound),
        (".tekton", ErrorKind::Invalid),
        (".tekton/link", ErrorKind::Invalid),
        (".tekton/sub", ErrorKind::Invalid),
        ("../etc/passwd", ErrorKind::Invalid),
        ("/etc/passwd", ErrorKind::Invalid),
        ("big", ErrorKind::Invalid),
    ] {
        let error = connection.read_file(&commit, path, limit).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let small = ReadLimit::bytes(3);
    let error = connection.read_file(&commit, ".tekton/lib/größe.yaml", small).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "a cached file is held against the limit too");
}

#[tokio::test]
async fn a_server_without_filters_serves_as_well() {
    let root = Root::new();
    let repo = root.repository("api");
    repo.git(&["config", "uploadpack.allowFilter", "false"]);
    let first = repo.commit_file("a/b", "1");
    let second = repo.commit_file("a/b", "2");
    let third = repo.commit_file("c", "3");
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;

    let history = connection.history().unwrap();
    assert!(history.is_ancestor(&first, &third).await.unwrap());
    assert!(!history.is_ancestor(&third, &first).await.unwrap());
    for (commit, content) in [(&first, "1"), (&second, "2"), (&third, "2")] {
        let read = connection.read_file(commit, "a/b", ReadLimit::default()).await.unwrap();
        assert_eq!(read, content);
    }
    assert_eq!(
        changed(&*connection, Some(&second), &third).await,
        [("c".to_owned(), FileChange::Added)]
    );
}

#[tokio::test]
async fn concurrent_readings_of_one_commit_share_their_requests() {
    let root = Root::new();
    let repo = root.repository("api");
    for number in 0..20 {
        repo.write(&format!("{number}"), format!("content of {number}"));
    }
    let commit = repo.commit("Many");
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;

    let paths: Vec<String> = (0..40).map(|number| (number % 20).to_string()).collect();
    let reads = paths.iter().map(|path| connection.read_file(&commit, path, ReadLimit::default()));
    for (read, path) in futures::future::join_all(reads).await.into_iter().zip(&paths) {
        assert_eq!(read.unwrap(), format!("content of {path}"));
    }

    let seen = server.take_seen();
    // What is offered, the trees, the first file, and the others together.
    assert!(seen.len() <= 6, "{} requests", seen.len());
}

#[tokio::test]
async fn changed_files_cover_all_commits_between() {
    let root = Root::new();
    let repo = root.repository("api");
    repo.write("kept", "1");
    repo.write("old/name", "some content that moves");
    repo.write("turns", "a file");
    let first = repo.commit("First");
    repo.commit_file("in/between", "1");
    repo.git(&["mv", "old/name", "new-name"]);
    repo.git(&["rm", "-q", "turns"]);
    repo.write("turns/into", "a directory");
    let last = repo.commit_file("kept", "2");
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;

    let expect = |list: &[(&str, FileChange)]| -> Vec<(String, FileChange)> {
        list.iter().map(|(path, change)| ((*path).to_owned(), *change)).collect()
    };
    use FileChange::{Added, Deleted, Modified};
    assert_eq!(
        changed(&*connection, Some(&first), &last).await,
        expect(&[
            ("in/between", Added),
            ("kept", Modified),
            ("new-name", Added),
            ("old/name", Deleted),
            ("turns", Deleted),
            ("turns/into", Added),
        ])
    );
    assert_eq!(
        changed(&*connection, None, &first).await,
        expect(&[("kept", Added), ("old/name", Added), ("turns", Added)])
    );
    assert_eq!(changed(&*connection, Some(&first), &first).await, []);
}

#[tokio::test]
async fn a_commit_that_was_rewritten_away_is_not_found_and_poisons_nothing() {
    let root = Root::new();
    let repo = root.repository("api");
    repo.commit_file("a", "1");
    let lost = repo.commit_file("a", "lost");
    repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let kept = repo.commit_file("a", "kept");
    repo.forget_unreachable();
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;

    let found: Result<Vec<_>, _> = connection.changed_files(Some(&lost), &kept).try_collect().await;
    let error = found.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(lost.as_str()), "{error}");
    let read = connection.read_file(&lost, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
    let history = connection.history().unwrap();
    assert!(!history.is_ancestor(&lost, &kept).await.unwrap());
    let read = connection.read_file(&kept, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "kept");

    repo.git(&["update-ref", "-d", "refs/heads/main"]);
    assert_eq!(kind_of(&*connection).await, ErrorKind::NotFound);
    std::fs::remove_dir_all(&repo.path).unwrap();
    assert_eq!(kind_of(&*connection).await, ErrorKind::NotFound);
    let again = root.repository("api");
    let reborn = again.commit_file("a", "reborn");
    assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), reborn);
    let read = connection.read_file(&reborn, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "reborn");
}

#[tokio::test]
async fn ancestry_costs_the_commits_between() {
    let root = Root::new();
    let repo = root.repository("api");
    for number in 0..60 {
        repo.commit_file("a", format!("{number}"));
    }
    let before = repo.head();
    repo.git(&["checkout", "-q", "-b", "side"]);
    let side = repo.commit_file("b", "1");
    repo.git(&["checkout", "-q", "main"]);
    let after = repo.commit_file("a", "next");
    repo.git(&["merge", "-q", "--no-ff", "-m", "Merge", "side"]);
    let merged = repo.head();
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;
    let history = connection.history().unwrap();

    assert!(history.is_ancestor(&before, &after).await.unwrap());
    let seen = server.take_seen();
    let answered: usize = seen.iter().map(|seen| seen.answered).sum();
    assert!(seen.len() <= 3 && answered < 1_000, "{seen:?}");
    for (ancestor, descendant, expected) in [
        (&after, &before, false),
        (&side, &after, false),
        (&side, &merged, true),
        (&before, &merged, true),
        (&merged, &side, false),
        (&side, &side, true),
    ] {
        assert_eq!(history.is_ancestor(ancestor, descendant).await.unwrap(), expected);
    }
    for (one, other, expected) in [
        (&after, &side, &before),
        (&side, &after, &before),
        (&merged, &side, &side),
        (&merged, &after, &after),
        (&merged, &merged, &merged),
        (&before, &merged, &before),
    ] {
        let found = history.merge_base(one, other).await.unwrap();
        assert_eq!(found.as_ref(), Some(expected), "{one} {other}");
    }
    let nowhere: CommitId = "12".repeat(20).parse().unwrap();
    assert!(!history.is_ancestor(&nowhere, &merged).await.unwrap());
    let error = history.is_ancestor(&merged, &nowhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn history_tells_commits_and_who_was_first_parent_at_a_time() {
    let root = Root::new();
    let repo = root.repository("api");
    let mut commits = Vec::new();
    for day in 1..=28 {
        let date = format!("2026-01-{day:02}T12:00:00Z");
        commits.push(repo.commit_at(&date, &format!("Day {day}\n\nMore about it")));
    }
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;
    let history = connection.history().unwrap();

    let info = history.commit(&commits[9]).await.unwrap();
    assert_eq!(&*info.title, "Day 10");
    assert_eq!(&*info.author, "Ann Author");
    assert_eq!(info.committed_at, "2026-01-10T12:00:00Z".parse::<Timestamp>().unwrap());
    assert_eq!(info.parents, [commits[8].clone()]);

    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let as_of = |instant: Timestamp| history.first_parent_as_of("refs/heads/main", instant);
    assert_eq!(as_of(at("2026-02-01T00:00:00Z")).await.unwrap().as_ref(), commits.last());
    assert_eq!(as_of(at("2026-01-20T12:00:00Z")).await.unwrap(), Some(commits[19].clone()));
    assert_eq!(as_of(at("2026-01-20T11:59:59Z")).await.unwrap(), Some(commits[18].clone()));
    assert_eq!(as_of(at("2025-12-31T00:00:00Z")).await.unwrap(), None);
}

#[tokio::test]
async fn a_question_about_too_much_history_is_refused() {
    let root = Root::new();
    let repo = root.repository("api");
    let first = repo.commit_file("a", "0");
    for number in 1..10 {
        repo.commit_file("a", format!("{number}"));
    }
    let server = Server::start(root.path()).await;
    let driver = GitDriver::builder().base(&*server.url).max_history(5).build().unwrap();
    let connection = connect(&driver, "api").await;
    let history = connection.history().unwrap();
    let too_much = "more than 5 commits would have to be looked at";
    let error = history.is_ancestor(&first, &repo.head()).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, too_much));
    let long_ago = Timestamp::UNIX_EPOCH;
    let error = history.first_parent_as_of("refs/heads/main", long_ago).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, too_much));
}

#[tokio::test]
async fn the_end_of_a_shallow_repository_is_not_taken_for_the_end_of_history() {
    let root = Root::new();
    let origin = root.repository("origin");
    let first = origin.commit_file("a", "1");
    origin.commit_file("a", "2");
    let last = origin.commit_file("a", "3");
    let url = format!("file://{}", origin.path.display());
    origin.git(&["clone", "-q", "--depth", "1", &url, "../shallow"]);
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "shallow").await;

    let read = connection.read_file(&last, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "3");
    let error = connection.resolve(first.as_str()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let history = connection.history().unwrap();
    let error =
        history.first_parent_as_of("refs/heads/main", Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_damaged_cache_is_built_again() {
    let root = Root::new();
    let repo = root.repository("api");
    let first = repo.commit_file("a", "1");
    let second = repo.commit_file("a", "2");
    let server = Server::start(root.path()).await;
    let cache = tempfile::tempdir().unwrap();
    let driver =
        || GitDriver::builder().base(&*server.url).cache_directory(cache.path()).build().unwrap();
    let read = async |driver: &GitDriver, commit: &CommitId| {
        let connection = connect(driver, "api").await;
        connection.read_file(commit, "a", ReadLimit::default()).await.unwrap()
    };
    assert_eq!(read(&driver(), &first).await, "1");
    server.take_seen();
    assert_eq!(read(&driver(), &first).await, "1");
    assert_eq!(server.take_seen(), [], "the directory is used by the next process");

    let damages: [fn(&std::path::Path); 3] = [
        |file| std::fs::write(file, b"nonsense").unwrap(),
        |file| std::fs::write(file, b"").unwrap(),
        |file| std::fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        let mut damaged = 0;
        let mut open = vec![cache.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let mut permissions = path.metadata().unwrap().permissions();
                    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
                    std::fs::set_permissions(&path, permissions).unwrap();
                    damage(&path);
                    damaged += 1;
                }
            }
        }
        assert!(damaged > 3);
        let driver = driver();
        assert_eq!(read(&driver, &first).await, "1");
        assert_eq!(read(&driver, &second).await, "2");
    }
}

fn secret() -> SecretRef {
    SecretRef { name: "git".into(), key: "token".into() }
}

fn secrets() -> Arc<StaticSecrets> {
    Arc::new(StaticSecrets::new().with(Tenant::default(), secret(), "hunter2\n"))
}

/// A server that lets in who says `hunter2`.
async fn guarded(root: &Root, expected: &'static str) -> Server {
    Server::with(root.path(), move |_, _, headers| {
        let given = headers.get("authorization").map(|value| value.to_str().unwrap());
        (given != Some(expected)).then(|| status(StatusCode::UNAUTHORIZED))
    })
    .await
}

#[tokio::test]
async fn credentials_are_shown_and_stay_out_of_everything_else() {
    let root = Root::new();
    let commit = root.repository("api").commit_file("a", "1");
    for (credentials, expected) in [
        (GitCredentials::basic("oauth2", secret()), "Basic b2F1dGgyOmh1bnRlcjI="),
        (GitCredentials::bearer(secret()), "Bearer hunter2"),
    ] {
        let server = guarded(&root, expected).await;
        let driver = GitDriver::builder()
            .base(&*server.url)
            .credentials(credentials)
            .secrets(Tenant::default(), secrets())
            .build()
            .unwrap();
        let connection = connect(&driver, "api").await;
        assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), commit);
        assert!(!format!("{driver:?} {connection:?}").contains("hunter2"));
        assert!(!connection.links().clone_url.contains("hunter2"));

        let stranger = connect(&anonymous(&server), "api").await;
        assert_eq!(kind_of(&*stranger).await, ErrorKind::Denied);

        let wrong = GitDriver::builder()
            .base(&*server.url)
            .credentials(GitCredentials::bearer(secret()))
            .secrets(
                Tenant::default(),
                Arc::new(StaticSecrets::new().with(Tenant::default(), secret(), "guessed")),
            )
            .build()
            .unwrap();
        let connection = connect(&wrong, "api").await;
        let error = connection.resolve("refs/heads/main").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(!format!("{error} {error:?}").contains("guessed"));
    }
}

/// Secrets that somebody changes while the driver runs.
#[derive(Debug, Default)]
struct Rotating(std::sync::Mutex<Option<&'static str>>);

#[async_trait::async_trait]
impl SecretStore for Rotating {
    async fn get(&self, _: &Tenant, _: &SecretRef) -> workflows_core::Result<SecretString> {
        let value = *self.0.lock().unwrap();
        value.map(SecretString::from).ok_or_else(|| Error::not_found("get secret", "none yet"))
    }
}

#[tokio::test]
async fn a_rotated_secret_needs_no_restart_and_a_missing_one_is_told() {
    let root = Root::new();
    root.repository("api").commit_file("a", "1");
    let server = guarded(&root, "Bearer hunter2").await;
    let secrets = Arc::new(Rotating::default());
    let driver = GitDriver::builder()
        .base(&*server.url)
        .credentials(GitCredentials::bearer(secret()))
        .secrets(Tenant::default(), secrets.clone())
        .build()
        .unwrap();
    let connection = connect(&driver, "api").await;
    assert_eq!(kind_of(&*connection).await, ErrorKind::NotFound);
    assert_eq!(server.take_seen(), [], "nobody is asked without the secret");
    *secrets.0.lock().unwrap() = Some("hunter1");
    assert_eq!(kind_of(&*connection).await, ErrorKind::Denied);
    *secrets.0.lock().unwrap() = Some("hunter2");
    assert!(connection.resolve("refs/heads/main").await.is_ok());
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let root = Root::new();
    let commit = root.repository("api").commit_file("a", "1");
    let elsewhere = Server::start(root.path()).await;
    let target = elsewhere.url.clone();
    let first = Server::with(root.path(), move |_, uri, _| {
        let location = format!("{target}{uri}");
        let answer = Response::builder().status(StatusCode::MOVED_PERMANENTLY);
        Some(answer.header("location", location).body(Body::empty()).unwrap())
    })
    .await;
    let driver = GitDriver::builder()
        .base(&*first.url)
        .credentials(GitCredentials::bearer(secret()))
        .secrets(Tenant::default(), secrets())
        .build()
        .unwrap();
    let connection = connect(&driver, "api").await;

    assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), commit);

    assert!(first.take_seen().iter().all(|seen| seen.authorization.is_some()));
    let seen = elsewhere.take_seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let root = Root::new();
    let server = Server::with(root.path(), |_, uri, _| {
        let answer = Response::builder().status(StatusCode::FOUND);
        Some(answer.header("location", uri.to_string()).body(Body::empty()).unwrap())
    })
    .await;
    let connection = connect(&anonymous(&server), "api").await;
    assert_eq!(kind_of(&*connection).await, ErrorKind::Invalid);
    assert!(server.take_seen().len() <= 6);
}

#[tokio::test]
async fn what_the_server_answers_decides_the_kind_of_the_error() {
    let root = Root::new();
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
    let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let limited = |until| ErrorKind::RateLimited { until };
    let later = Some(now + SignedDuration::from_secs(90));
    for (code, retry_after, expected) in [
        (401, None, ErrorKind::Denied),
        (403, None, ErrorKind::Denied),
        (403, Some("90"), limited(later)),
        (404, None, ErrorKind::NotFound),
        (410, None, ErrorKind::NotFound),
        (418, None, ErrorKind::Invalid),
        (429, None, limited(None)),
        (429, Some("90"), limited(later)),
        (500, None, ErrorKind::Transient),
        (503, None, ErrorKind::Transient),
        (503, Some("90"), limited(later)),
    ] {
        let server = Server::with(root.path(), move |_, _, _| {
            let mut answer = Response::builder().status(code);
            if let Some(value) = retry_after {
                answer = answer.header("retry-after", value);
            }
            Some(answer.body(Body::empty()).unwrap())
        })
        .await;
        let driver =
            GitDriver::builder().base(&*server.url).clock(Arc::new(clock.clone())).build().unwrap();
        assert_eq!(kind_of(&*connect(&driver, "api").await).await, expected, "{code}");
    }
    let driver = GitDriver::at("http://127.0.0.1:1").unwrap();
    assert_eq!(kind_of(&*connect(&driver, "api").await).await, ErrorKind::Transient);
}

#[tokio::test]
async fn a_web_page_the_dumb_protocol_and_old_versions_are_refused_by_name() {
    let root = Root::new();
    root.repository("api").commit_file("a", "1");
    let id = "12".repeat(20);
    let old = format!(
        "001e# service=git-upload-pack\n0000004a{id} HEAD\0side-band-64k ofs-delta no-done\n0000"
    );
    for (kind, body) in [
        ("text/html", "<html>".to_owned()),
        ("text/plain", format!("{id}\trefs/heads/main\n")),
        ("application/x-git-upload-pack-advertisement", old),
    ] {
        let server = Server::with(root.path(), move |_, _, _| {
            let answer = Response::builder().header("content-type", kind);
            Some(answer.body(Body::from(body.clone())).unwrap())
        })
        .await;
        let connection = connect(&anonymous(&server), "api").await;
        let error = connection.resolve("refs/heads/main").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn a_repository_with_sha256_names_is_refused_by_name() {
    let root = Root::new();
    let repo = root.repository("api");
    std::fs::remove_dir_all(repo.path.join(".git")).unwrap();
    repo.git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
    repo.commit_file("a", "1");
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;
    let error = connection.resolve("refs/heads/main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("sha256"), "{error}");
    let error = connection.resolve(repo.head().as_str()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn a_pack_over_a_limit_is_refused() {
    let root = Root::new();
    let repo = root.repository("api");
    let noise: Vec<u8> =
        (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    repo.write("noise", noise);
    repo.write("zeros", vec![0; 20 << 20]);
    repo.write("small", "1");
    let commit = repo.commit("First");
    let server = Server::start(root.path()).await;
    let driver = GitDriver::builder().base(&*server.url).max_pack_bytes(100_000).build().unwrap();
    let connection = connect(&driver, "api").await;
    let everything = ReadLimit::bytes(usize::MAX);
    for (path, what) in [
        ("noise", "the server sends more than 100000 bytes"),
        ("zeros", "an object of 20971520 bytes is larger than 100000"),
    ] {
        let error = connection.read_file(&commit, path, everything).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{path}: {error}");
        let message = format!("{what}; raise the driver's limit if this is meant");
        assert_eq!(error.message(), message, "{path}");
    }
    assert_eq!(connection.read_file(&commit, "small", everything).await.unwrap(), "1");
    let driver = GitDriver::builder().base(&*server.url).max_objects(1).build().unwrap();
    let connection = connect(&driver, "api").await;
    let error = connection.read_file(&commit, "small", everything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let message = "objects, more than 1; raise the driver's limit if this is meant";
    assert!(error.message().ends_with(message), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_or_hangs_up_is_a_passing_failure() {
    let root = Root::new();
    root.repository("api").commit_file("a", "1");
    for stall in [true, false] {
        let server = Server::with(root.path(), move |method, _, _| {
            if method != "POST" {
                return None;
            }
            let first = futures::stream::iter([Ok::<_, std::io::Error>("00")]);
            let body = if stall {
                Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
            } else {
                Body::from("00")
            };
            let kind = "application/x-git-upload-pack-result";
            Some(Response::builder().header("content-type", kind).body(body).unwrap())
        })
        .await;
        let driver = GitDriver::builder()
            .base(&*server.url)
            .idle_timeout(Duration::from_millis(50))
            .build()
            .unwrap();
        assert_eq!(kind_of(&*connect(&driver, "api").await).await, ErrorKind::Transient);
    }
}

#[tokio::test]
async fn after_a_failure_the_next_call_works_again() {
    let root = Root::new();
    let commit = root.repository("api").commit_file("a", "1");
    let down = Arc::new(AtomicBool::new(false));
    let (is_down, failures) = (Arc::clone(&down), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&failures);
    let server = Server::with(root.path(), move |_, _, _| {
        is_down.load(Ordering::SeqCst).then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            status(StatusCode::BAD_GATEWAY)
        })
    })
    .await;
    let connection = connect(&anonymous(&server), "api").await;
    connection.default_branch().await.unwrap();
    down.store(true, Ordering::SeqCst);
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(failures.load(Ordering::SeqCst), 1, "the driver does not try again by itself");
    down.store(false, Ordering::SeqCst);
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "1");
}

#[tokio::test]
async fn a_certificate_is_trusted_when_its_authority_is_given_and_else_not() {
    let root = Root::new();
    let commit = root.repository("api").commit_file("a", "1");
    let (server, authority) = Server::with_tls(root.path()).await;
    let trusting =
        GitDriver::builder().base(&*server.url).root_certificate(authority).build().unwrap();
    let connection = connect(&trusting, "api").await;
    assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), commit);
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "1");
    let connection = connect(&anonymous(&server), "api").await;
    assert_eq!(kind_of(&*connection).await, ErrorKind::Transient);
}

#[tokio::test]
async fn a_proxy_is_used_when_it_is_given() {
    let root = Root::new();
    let commit = root.repository("api").commit_file("a", "1");
    let proxy = Server::start(root.path()).await;
    let driver =
        GitDriver::builder().base("http://git.invalid").proxy(&*proxy.url).build().unwrap();
    let connection = connect(&driver, "api").await;
    assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), commit);
}

#[test]
fn a_driver_that_would_give_its_credentials_away_is_not_built() {
    let build = |builder: workflows_scm::git::GitDriverBuilder| {
        builder
            .credentials(GitCredentials::bearer(secret()))
            .secrets(Tenant::default(), secrets())
            .build()
    };
    assert_eq!(build(GitDriver::builder()).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(build(GitDriver::builder().allow("https://git.example.com/acme")).is_ok());
    let without_store =
        GitDriver::builder().base("https://host").credentials(GitCredentials::bearer(secret()));
    assert_eq!(without_store.build().unwrap_err().kind(), ErrorKind::Invalid);
    let unreadable = GitDriver::builder().root_certificate("nonsense");
    assert_eq!(unreadable.build().unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn only_allowed_addresses_are_reached() {
    let driver = GitDriver::builder().allow("https://git.example.com/acme").build().unwrap();
    let connect = async |address: &str| {
        driver.connect(&ConnectionName::new("git"), address).await.map(|_| ())
    };
    assert!(connect("https://git.example.com/acme/api").await.is_ok());
    for other in
        ["https://git.example.com/other/api", "file:///etc", "git@git.example.com:acme/api"]
    {
        assert_eq!(connect(other).await.unwrap_err().kind(), ErrorKind::Denied);
    }
    for nothing in ["https://git.example.com/", "ssh://git@git.example.com", "git@host:"] {
        assert_eq!(connect(nothing).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
