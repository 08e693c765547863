//! Repositories made with the `git` program, and a server that runs `git http-backend`.

pub(crate) mod http;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use futures::TryStreamExt;
use tempfile::TempDir;
use workflows_core::{
    CommitId, ConnectionName, ErrorKind, RepoConnection, ScmDriver,
    repo::{ChangedFile, FileChange, RefPosition},
};
use workflows_scm::git::GitDriver;

/// A directory that holds repositories.
#[derive(Debug)]
pub(crate) struct Root {
    directory: TempDir,
}

impl Root {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A new repository with a work tree, whose branch is `main`, that filters when asked.
    pub(crate) fn repository(&self, name: &str) -> TestRepository {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let repository = TestRepository { path };
        repository.git(&["init", "-q", "-b", "main"]);
        repository.git(&["config", "uploadpack.allowFilter", "true"]);
        repository
    }
}

/// A repository with a work tree.
#[derive(Debug, Clone)]
pub(crate) struct TestRepository {
    pub(crate) path: PathBuf,
}

impl TestRepository {
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_at("2026-01-01T00:00:00Z", arguments)
    }

    /// Runs `git` as if it were that time.
    pub(crate) fn git_at(&self, date: &str, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Ann Author")
            .env("GIT_AUTHOR_EMAIL", "ann@example.com")
            .env("GIT_COMMITTER_NAME", "Cem Committer")
            .env("GIT_COMMITTER_EMAIL", "cem@example.com")
            .env("GIT_AUTHOR_DATE", date)
            .env("GIT_COMMITTER_DATE", date)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Commits everything that lies in the work tree.
    pub(crate) fn commit(&self, message: &str) -> CommitId {
        self.commit_at("2026-01-01T00:00:00Z", message)
    }

    pub(crate) fn commit_at(&self, date: &str, message: &str) -> CommitId {
        self.git(&["add", "-A"]);
        self.git_at(date, &["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    pub(crate) fn head(&self) -> CommitId {
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    /// Writes a file and commits it.
    pub(crate) fn commit_file(&self, path: &str, content: impl AsRef<[u8]>) -> CommitId {
        self.write(path, content);
        self.commit(&format!("Write {path}"))
    }

    /// Drops what no ref leads to, as a host does some time after a force push.
    pub(crate) fn forget_unreachable(&self) {
        self.git(&["reflog", "expire", "--expire=now", "--all"]);
        self.git(&["gc", "-q", "--prune=now"]);
    }
}

pub(crate) async fn connect(driver: &GitDriver, repo: &str) -> Arc<dyn RepoConnection> {
    driver.connect(&ConnectionName::new("git"), repo).await.unwrap()
}

/// How a connection fails to find where `main` is.
pub(crate) async fn kind_of(connection: &dyn RepoConnection) -> ErrorKind {
    connection.resolve("refs/heads/main").await.unwrap_err().kind()
}

pub(crate) async fn refs(connection: &dyn RepoConnection, prefixes: &[&str]) -> Vec<RefPosition> {
    let prefixes: Vec<Arc<str>> = prefixes.iter().map(|prefix| (*prefix).into()).collect();
    let mut refs: Vec<_> = connection.refs(&prefixes).try_collect().await.unwrap();
    refs.sort();
    refs
}

pub(crate) async fn changed(
    connection: &dyn RepoConnection,
    from: Option<&CommitId>,
    to: &CommitId,
) -> Vec<(String, FileChange)> {
    let changed: Vec<ChangedFile> = connection.changed_files(from, to).try_collect().await.unwrap();
    changed.into_iter().map(|file| (file.path.to_string(), file.change)).collect()
}
