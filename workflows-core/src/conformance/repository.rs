//! The suite for [`ScmDriver`] and [`RepoConnection`].

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use futures::TryStreamExt;

use super::case::{Failure, expect, expect_eq, expect_kind, suite};
use crate::{
    CommitId, ConnectionName, ErrorKind, RepoConnection, ScmDriver,
    repo::{ChangedFile, EntryKind, FileChange, ListOptions, ReadLimit, RefPosition},
};

/// What a driver's author writes, so that the suite can make the other side do things: a repository
/// that is there, with a default branch `main` and no files in its first commit but `README.md`.
#[async_trait]
pub trait RepositoryFixture: Debug + Send + Sync + 'static {
    /// The driver.
    fn driver(&self) -> Arc<dyn ScmDriver>;

    /// The full name of the repository.
    fn repo(&self) -> String;

    /// The full name of a repository that is not there.
    fn missing_repo(&self) -> String;

    /// Commits on a branch: writes these files, removes those with `None`. A branch that is not
    /// there begins at `main`.
    async fn commit(&self, branch: &str, files: &[(&str, Option<&str>)]) -> CommitId;

    /// Makes an annotated tag at the head of a branch, or a plain one where there are no others.
    async fn tag(&self, name: &str, branch: &str);

    /// Moves a branch to a commit, whatever was there.
    async fn move_branch(&self, branch: &str, to: &CommitId);

    /// Removes a branch.
    async fn delete_branch(&self, branch: &str);
}

type Fixture = Arc<dyn RepositoryFixture>;
type Outcome = Result<(), Failure>;

suite! {
    ($)
    /// Makes a `#[tokio::test]` of each case of the repository suite. Takes an expression that makes
    /// a future of an `Arc<dyn RepositoryFixture>`.
    repository_suite(std::sync::Arc<dyn RepositoryFixture>) in repository {
        a_repository_keeps_its_identity_and_says_where_it_is,
        a_repository_that_is_not_there_is_not_found,
        a_branch_resolves_to_its_head,
        a_branch_with_a_slash_resolves,
        a_branch_with_letters_of_any_script_resolves,
        a_commit_id_resolves_to_itself,
        a_ref_that_is_not_there_is_not_found,
        an_annotated_tag_resolves_to_the_commit_that_it_marks,
        the_default_branch_is_a_full_ref_name,
        refs_are_those_of_the_prefixes_and_no_others,
        a_deleted_branch_is_no_longer_listed,
        a_file_is_read_at_the_commit_asked_for,
        a_file_that_is_not_there_is_not_found,
        a_file_over_the_limit_is_invalid,
        a_directory_is_no_file,
        a_directory_lists_one_level_or_all,
        a_directory_that_is_not_there_is_empty,
        a_directory_has_the_same_digest_for_the_same_content,
        changed_files_are_those_of_all_commits_in_between,
        a_renamed_file_shows_under_both_names,
        without_a_first_commit_every_file_is_changed,
        a_commit_that_is_not_there_is_not_found,
        history_knows_what_descends_from_what,
        debug_output_names_no_secret,
    }
}

async fn connect(fixture: &Fixture) -> Result<Arc<dyn RepoConnection>, Failure> {
    let connection = ConnectionName::new("under-test");
    Ok(fixture.driver().connect(&connection, &fixture.repo()).await?)
}

/// A commit id that no repository has.
fn unknown_commit() -> CommitId {
    "0123456789012345678901234567890123456789".parse().expect("forty digits")
}

async fn listed(
    connection: &Arc<dyn RepoConnection>,
    prefixes: &[&str],
) -> Result<Vec<RefPosition>, Failure> {
    let prefixes: Vec<Arc<str>> = prefixes.iter().map(|prefix| Arc::from(*prefix)).collect();
    let mut refs: Vec<RefPosition> = connection.refs(&prefixes).try_collect().await?;
    refs.sort();
    Ok(refs)
}

async fn changed(
    connection: &Arc<dyn RepoConnection>,
    from: Option<&CommitId>,
    to: &CommitId,
) -> Result<Vec<(String, FileChange)>, Failure> {
    let files: Vec<ChangedFile> = connection.changed_files(from, to).try_collect().await?;
    let mut files: Vec<_> =
        files.into_iter().map(|file| (file.path.to_string(), file.change)).collect();
    files.sort();
    Ok(files)
}

async fn a_repository_keeps_its_identity_and_says_where_it_is(fixture: Fixture) -> Outcome {
    let (first, second) = (connect(&fixture).await?, connect(&fixture).await?);
    expect_eq("the id of a second connection", &second.repo().id, &first.repo().id)?;
    expect_eq("the connection's name", &first.repo().connection.as_str(), &"under-test")?;
    expect(!first.links().clone_url.is_empty(), || "there is no address to clone from".into())
}

async fn a_repository_that_is_not_there_is_not_found(fixture: Fixture) -> Outcome {
    let connection = ConnectionName::new("under-test");
    let name = fixture.missing_repo();
    let found = match fixture.driver().connect(&connection, &name).await {
        Ok(connection) => connection.resolve("refs/heads/main").await.map(|_| ()),
        Err(error) => Err(error),
    };
    expect_kind("a missing repository", found, ErrorKind::NotFound)
}

async fn a_branch_resolves_to_its_head(fixture: Fixture) -> Outcome {
    let head = fixture.commit("main", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    expect_eq("main", &connection.resolve("refs/heads/main").await?, &head)?;
    let next = fixture.commit("main", &[("a", Some("2"))]).await;
    expect_eq("main after a push", &connection.resolve("refs/heads/main").await?, &next)
}

async fn a_branch_with_a_slash_resolves(fixture: Fixture) -> Outcome {
    let head = fixture.commit("feature/one/two", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    expect_eq("the branch", &connection.resolve("refs/heads/feature/one/two").await?, &head)
}

async fn a_branch_with_letters_of_any_script_resolves(fixture: Fixture) -> Outcome {
    let head = fixture.commit("größe-日本", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    expect_eq("the branch", &connection.resolve("refs/heads/größe-日本").await?, &head)
}

async fn a_commit_id_resolves_to_itself(fixture: Fixture) -> Outcome {
    let old = fixture.commit("main", &[("a", Some("1"))]).await;
    fixture.commit("main", &[("a", Some("2"))]).await;
    let connection = connect(&fixture).await?;
    expect_eq("the commit", &connection.resolve(old.as_str()).await?, &old)
}

async fn a_ref_that_is_not_there_is_not_found(fixture: Fixture) -> Outcome {
    fixture.commit("mainline", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    let prefix_of_another = connection.resolve("refs/heads/mainl").await;
    expect_kind("a prefix of a branch", prefix_of_another, ErrorKind::NotFound)
}

async fn an_annotated_tag_resolves_to_the_commit_that_it_marks(fixture: Fixture) -> Outcome {
    let head = fixture.commit("main", &[("a", Some("1"))]).await;
    fixture.tag("v1.0", "main").await;
    let connection = connect(&fixture).await?;
    expect_eq("the tag", &connection.resolve("refs/tags/v1.0").await?, &head)?;
    let position = RefPosition { name: "refs/tags/v1.0".into(), commit: head };
    expect_eq("the tags", &listed(&connection, &["refs/tags/"]).await?, &vec![position])
}

async fn the_default_branch_is_a_full_ref_name(fixture: Fixture) -> Outcome {
    let connection = connect(&fixture).await?;
    expect_eq("the default branch", &&*connection.default_branch().await?, &"refs/heads/main")
}

async fn refs_are_those_of_the_prefixes_and_no_others(fixture: Fixture) -> Outcome {
    fixture.commit("release/1", &[("a", Some("1"))]).await;
    fixture.commit("release/2", &[("a", Some("2"))]).await;
    fixture.commit("other", &[("a", Some("3"))]).await;
    fixture.tag("v1", "main").await;
    let connection = connect(&fixture).await?;
    let refs = listed(&connection, &["refs/heads/release/", "refs/tags/v"]).await?;
    let names: Vec<&str> = refs.iter().map(|position| &*position.name).collect();
    let expected = ["refs/heads/release/1", "refs/heads/release/2", "refs/tags/v1"];
    expect_eq("the refs", &names, &expected.to_vec())
}

async fn a_deleted_branch_is_no_longer_listed(fixture: Fixture) -> Outcome {
    fixture.commit("gone", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    expect_eq("before", &listed(&connection, &["refs/heads/gone"]).await?.len(), &1)?;
    fixture.delete_branch("gone").await;
    expect_eq("after", &listed(&connection, &["refs/heads/gone"]).await?, &vec![])?;
    let resolved = connection.resolve("refs/heads/gone").await;
    expect_kind("the deleted branch", resolved, ErrorKind::NotFound)
}

async fn a_file_is_read_at_the_commit_asked_for(fixture: Fixture) -> Outcome {
    let old = fixture.commit("main", &[("deep/er/a.yaml", Some("one"))]).await;
    let new = fixture.commit("main", &[("deep/er/a.yaml", Some("two"))]).await;
    let connection = connect(&fixture).await?;
    for (commit, expected) in [(&old, "one"), (&new, "two"), (&old, "one")] {
        let read = connection.read_file(commit, "deep/er/a.yaml", ReadLimit::default()).await?;
        expect_eq("the file", &&*read, &expected.as_bytes())?;
    }
    fixture.move_branch("main", &old).await;
    let read = connection.read_file(&old, "deep/er/a.yaml", ReadLimit::default()).await?;
    expect_eq("the file after the branch went back", &&*read, &b"one".as_slice())
}

async fn a_file_that_is_not_there_is_not_found(fixture: Fixture) -> Outcome {
    let commit = fixture.commit("main", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    for path in ["b", "a/b", ".tekton/ci.yaml"] {
        let read = connection.read_file(&commit, path, ReadLimit::default()).await;
        expect_kind(path, read, ErrorKind::NotFound)?;
    }
    Ok(())
}

async fn a_file_over_the_limit_is_invalid(fixture: Fixture) -> Outcome {
    let commit = fixture.commit("main", &[("big", Some(&"x".repeat(1001)))]).await;
    let connection = connect(&fixture).await?;
    let read = connection.read_file(&commit, "big", ReadLimit::bytes(1000)).await;
    expect_kind("one byte more than the limit", read, ErrorKind::Invalid)?;
    let read = connection.read_file(&commit, "big", ReadLimit::bytes(1001)).await?;
    expect_eq("the length at the limit", &read.len(), &1001)
}

async fn a_directory_is_no_file(fixture: Fixture) -> Outcome {
    let commit = fixture.commit("main", &[("directory/a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    let read = connection.read_file(&commit, "directory", ReadLimit::default()).await;
    expect_kind("a directory read as a file", read, ErrorKind::Invalid)
}

async fn a_directory_lists_one_level_or_all(fixture: Fixture) -> Outcome {
    let files = [("d/b.yaml", Some("1")), ("d/a.yaml", Some("2")), ("d/sub/c.yaml", Some("3"))];
    let commit = fixture.commit("main", &files).await;
    let connection = connect(&fixture).await?;
    let names = |directory: crate::repo::Directory| -> Vec<(String, EntryKind)> {
        directory.entries.iter().map(|entry| (entry.path.to_string(), entry.kind)).collect()
    };
    let one = connection.list_directory(&commit, "d", ListOptions::default()).await?;
    let expected = [
        ("a.yaml".to_owned(), EntryKind::File),
        ("b.yaml".to_owned(), EntryKind::File),
        ("sub".to_owned(), EntryKind::Directory),
    ];
    expect_eq("one level", &names(one), &expected.to_vec())?;
    let all = connection.list_directory(&commit, "d", ListOptions::recursive()).await?;
    let files: Vec<_> =
        names(all).into_iter().filter(|(_, kind)| *kind == EntryKind::File).collect();
    let expected = ["a.yaml", "b.yaml", "sub/c.yaml"].map(|p| (p.to_owned(), EntryKind::File));
    expect_eq("all files", &files, &expected.to_vec())?;
    let limit = ListOptions { max_entries: 1, ..ListOptions::default() };
    let over = connection.list_directory(&commit, "d", limit).await;
    expect_kind("more entries than allowed", over, ErrorKind::Invalid)
}

async fn a_directory_that_is_not_there_is_empty(fixture: Fixture) -> Outcome {
    let commit = fixture.commit("main", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    let missing = connection.list_directory(&commit, ".tekton", ListOptions::default()).await?;
    expect_eq("the entries", &missing.entries, &vec![])?;
    expect_eq("the digest", &missing.digest, &None)
}

async fn a_directory_has_the_same_digest_for_the_same_content(fixture: Fixture) -> Outcome {
    let first = fixture.commit("main", &[("d/a", Some("1"))]).await;
    let other_file = fixture.commit("main", &[("e", Some("1"))]).await;
    let changed = fixture.commit("main", &[("d/a", Some("2"))]).await;
    let connection = connect(&fixture).await?;
    let mut digests = Vec::new();
    for commit in [&first, &other_file, &changed] {
        digests
            .push(connection.list_directory(commit, "d", ListOptions::recursive()).await?.digest);
    }
    expect_eq("the digest when another file changed", &digests[1], &digests[0])?;
    expect(digests[0].is_none() || digests[2] != digests[0], || {
        format!("the digest {:?} stayed when a file in the directory changed", digests[0])
    })
}

async fn changed_files_are_those_of_all_commits_in_between(fixture: Fixture) -> Outcome {
    let from =
        fixture.commit("main", &[("kept", Some("1")), ("gone", Some("1")), ("m", Some("1"))]).await;
    fixture.commit("main", &[("one", Some("1"))]).await;
    fixture.commit("main", &[("gone", None)]).await;
    let to = fixture.commit("main", &[("m", Some("2"))]).await;
    let connection = connect(&fixture).await?;
    let expected = [
        ("gone".to_owned(), FileChange::Deleted),
        ("m".to_owned(), FileChange::Modified),
        ("one".to_owned(), FileChange::Added),
    ];
    expect_eq("the files", &changed(&connection, Some(&from), &to).await?, &expected.to_vec())?;
    expect_eq("nothing", &changed(&connection, Some(&to), &to).await?, &vec![])
}

async fn a_renamed_file_shows_under_both_names(fixture: Fixture) -> Outcome {
    let text = "the same text, long enough to be taken for a rename\n".repeat(10);
    let from = fixture.commit("main", &[("old name", Some(&text))]).await;
    let to = fixture.commit("main", &[("old name", None), ("new name", Some(&text))]).await;
    let connection = connect(&fixture).await?;
    let files = changed(&connection, Some(&from), &to).await?;
    let expected =
        [("new name".to_owned(), FileChange::Added), ("old name".to_owned(), FileChange::Deleted)];
    expect_eq("the files", &files, &expected.to_vec())
}

async fn without_a_first_commit_every_file_is_changed(fixture: Fixture) -> Outcome {
    let to = fixture.commit("main", &[("d/a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    let expected =
        [("README.md".to_owned(), FileChange::Added), ("d/a".to_owned(), FileChange::Added)];
    expect_eq("the files", &changed(&connection, None, &to).await?, &expected.to_vec())
}

async fn a_commit_that_is_not_there_is_not_found(fixture: Fixture) -> Outcome {
    let known = fixture.commit("main", &[("a", Some("1"))]).await;
    let connection = connect(&fixture).await?;
    let unknown = unknown_commit();
    let read = connection.read_file(&unknown, "a", ReadLimit::default()).await;
    expect_kind("a file", read, ErrorKind::NotFound)?;
    let listed = connection.list_directory(&unknown, "", ListOptions::default()).await;
    expect_kind("a directory", listed, ErrorKind::NotFound)?;
    let changed: crate::Result<Vec<_>> =
        connection.changed_files(Some(&unknown), &known).try_collect().await;
    expect_kind("changed files", changed, ErrorKind::NotFound)?;
    expect_kind("resolving it", connection.resolve(unknown.as_str()).await, ErrorKind::NotFound)
}

async fn history_knows_what_descends_from_what(fixture: Fixture) -> Outcome {
    let connection = connect(&fixture).await?;
    let Some(history) = connection.history() else { return Ok(()) };
    let old = fixture.commit("main", &[("a", Some("1"))]).await;
    let side = fixture.commit("side", &[("b", Some("1"))]).await;
    let new = fixture.commit("main", &[("a", Some("2"))]).await;
    for (ancestor, descendant, expected) in
        [(&old, &new, true), (&old, &old, true), (&new, &old, false), (&side, &new, false)]
    {
        let is = history.is_ancestor(ancestor, descendant).await?;
        let what = format!("whether {} is an ancestor of {}", ancestor.short(), descendant.short());
        expect_eq(&what, &is, &expected)?;
    }
    let info = history.commit(&new).await?;
    expect_eq("its parents", &info.parents, &vec![old])?;
    let as_of = history.first_parent_as_of("refs/heads/main", info.committed_at).await?;
    expect_eq("main as of its newest commit", &as_of, &Some(new))
}

async fn debug_output_names_no_secret(fixture: Fixture) -> Outcome {
    let connection = connect(&fixture).await?;
    let shown = format!("{:?} {connection:?}", fixture.driver());
    for word in ["Bearer ", "password:", "token: \"", "SecretString(\""] {
        expect(!shown.contains(word), || format!("the debug output holds {word:?}: {shown}"))?;
    }
    Ok(())
}
