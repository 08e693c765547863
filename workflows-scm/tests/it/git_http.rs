//! The git driver over HTTP.

use futures::TryStreamExt;
use jiff::Timestamp;
use workflows_core::{
    CommitId, ErrorKind,
    repo::{EntryKind, FileChange, ListOptions, ReadLimit},
};
use workflows_scm::git::GitDriver;

use crate::support::{
    Root, changed, connect,
    http::{Server, anonymous},
    kind_of, refs,
};

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
