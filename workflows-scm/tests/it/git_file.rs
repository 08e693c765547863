//! The git driver on repositories of this machine.

use futures::TryStreamExt;
use jiff::Timestamp;
use workflows_core::{
    ConnectionName, ErrorKind, ScmDriver,
    repo::{FileChange, ListOptions, ReadLimit},
};
use workflows_scm::git::GitDriver;

use crate::support::{Root, changed, connect, refs};

#[tokio::test]
async fn a_repository_is_read_where_it_is_bare_or_with_a_work_tree() {
    let root = Root::new();
    let repo = root.repository("tree");
    let first = repo.commit_file(".tekton/ci.yaml", "kind: Workflow");
    repo.git(&["tag", "-a", "-m", "One", "v1"]);
    let second = repo.commit_file("b", "2");
    repo.git(&["clone", "-q", "--bare", ".", "../bare.git"]);
    repo.write("b", "not committed");
    let driver = GitDriver::any().unwrap();
    for name in ["tree", "bare.git"] {
        let path = root.path().join(name).display().to_string();
        for address in [path.clone(), format!("file://{path}")] {
            let connection = connect(&driver, &address).await;
            let real = std::fs::canonicalize(&path).unwrap().display().to_string();
            assert_eq!(connection.repo().id.as_str(), format!("file://{real}"));
            assert_eq!(&*connection.default_branch().await.unwrap(), "refs/heads/main");
            assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), second);
            assert_eq!(connection.resolve("refs/tags/v1").await.unwrap(), first);
            assert_eq!(connection.resolve(first.as_str()).await.unwrap(), first);
            assert_eq!(refs(&*connection, &["refs/heads/ma", "refs/tags/"]).await.len(), 2);
            let read = connection.read_file(&second, "b", ReadLimit::default()).await;
            assert_eq!(read.unwrap(), "2");
            let listed = connection.list_directory(&first, "", ListOptions::recursive()).await;
            assert_eq!(listed.unwrap().entries.len(), 2);
            assert_eq!(
                changed(&*connection, Some(&first), &second).await,
                [("b".to_owned(), FileChange::Added)]
            );
            let history = connection.history().unwrap();
            assert!(history.is_ancestor(&first, &second).await.unwrap());
            assert!(!history.is_ancestor(&second, &first).await.unwrap());
            assert_eq!(history.merge_base(&second, &first).await.unwrap(), Some(first.clone()));
            let late: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
            let found = history.first_parent_as_of("refs/heads/main", late).await.unwrap();
            assert_eq!(found, Some(second.clone()));
        }
    }
}

#[tokio::test]
async fn a_repository_has_a_page_where_the_driver_is_told_where_pages_are() {
    let root = Root::new();
    root.repository("api").commit_file("a", "1");
    let at_root = || GitDriver::builder().base(root.path().display().to_string());
    let driver = at_root().build().unwrap();
    assert_eq!(connect(&driver, "api").await.links().web_url, None);
    let driver = at_root().web_base("https://git.example.com/cgit").build().unwrap();
    let links = connect(&driver, "api").await.links();
    assert_eq!(links.web_url.as_deref(), Some("https://git.example.com/cgit/api"));
    let error = GitDriver::builder().web_base("https://git.example.com").build().unwrap_err();
    assert!(error.to_string().contains("a web base needs a base too"), "{error}");
}

#[tokio::test]
async fn a_directory_that_is_no_repository_or_goes_away_is_not_found() {
    let root = Root::new();
    let repo = root.repository("api");
    let commit = repo.commit_file("a", "1");
    let driver = GitDriver::at(root.path().display().to_string()).unwrap();
    let kind = async |name: &str| {
        driver.connect(&ConnectionName::new("git"), name).await.map(|_| ()).unwrap_err().kind()
    };
    assert_eq!(kind("missing").await, ErrorKind::NotFound);
    std::fs::create_dir(root.path().join("empty")).unwrap();
    assert_eq!(kind("empty").await, ErrorKind::NotFound);
    // A directory within a repository is not that repository.
    std::fs::create_dir(repo.path.join("inner")).unwrap();
    assert_eq!(kind("api/inner").await, ErrorKind::NotFound);
    assert_eq!(kind("../api").await, ErrorKind::Invalid);
    std::os::unix::fs::symlink("/", root.path().join("out")).unwrap();
    assert_eq!(kind("out").await, ErrorKind::Denied);

    let connection = connect(&driver, "api").await;
    std::fs::remove_dir_all(&repo.path).unwrap();
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
    let listed: Result<Vec<_>, _> = connection.refs(&["refs/".into()]).try_collect().await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_repository_with_sha256_names_is_refused_by_name() {
    let root = Root::new();
    let repo = root.repository("api");
    std::fs::remove_dir_all(repo.path.join(".git")).unwrap();
    repo.git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
    let driver = GitDriver::any().unwrap();
    let path = repo.path.display().to_string();
    let error = driver.connect(&ConnectionName::new("git"), &path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error} {error:?}");
}

#[tokio::test]
async fn a_large_and_deep_listing_is_bounded() {
    let root = Root::new();
    let repo = root.repository("api");
    for number in 0..30 {
        repo.write(&format!("d/{number}"), "x");
    }
    let commit = repo.commit("Many");
    let driver = GitDriver::any().unwrap();
    let connection = connect(&driver, &repo.path.display().to_string()).await;
    let mut options = ListOptions::recursive();
    options.max_entries = 30;
    let error = connection.list_directory(&commit, "", options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    options.max_entries = 31;
    assert_eq!(connection.list_directory(&commit, "", options).await.unwrap().entries.len(), 31);
}
