//! To whom the git driver shows its credentials over HTTP, and whom it trusts.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use secrecy::SecretString;
use workflows_core::{
    ConnectionName, Error, ErrorKind, ScmDriver, SecretRef, SecretStore, StaticSecrets, Tenant,
    repo::ReadLimit,
};
use workflows_scm::git::{GitCredentials, GitDriver};

use crate::support::{
    Root, connect,
    http::{Server, anonymous, status},
    kind_of,
};

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
