//! Tokens that are minted, renewed, refused, exchanged, and never shown.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use workflows_core::{Clock, ErrorKind, ManualClock, ScmDriver, Tenant};
use workflows_scm::github::GitHubCredentials;

use super::{
    scripted::{Reply, Scripted, Seen},
    world::{
        Changing, KEY, Key, OTHER_KEY, app, clock, connect, driver, instant, reference, repository,
        with_token,
    },
};

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
    exp: i64,
}

/// Whether a request comes from the App: signed by its key, and valid now.
fn is_signed(seen: &Seen, key: &Key, now: jiff::Timestamp) -> bool {
    let Some(assertion) = seen.authorization.as_deref().and_then(|a| a.strip_prefix("Bearer "))
    else {
        return false;
    };
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let public = DecodingKey::from_rsa_pem(key.public.as_bytes()).unwrap();
    let Ok(token) = jsonwebtoken::decode::<Claims>(assertion, &public, &validation) else {
        return false;
    };
    let now = now.as_second();
    let claims = token.claims;
    // As GitHub has it: not from the future, not over, and over in ten minutes at most.
    claims.iss == "7" && claims.iat <= now && claims.exp > now && claims.exp <= now + 600
}

/// An App's host: one installation, whose tokens are numbered and last an hour.
struct Host {
    clock: ManualClock,
    minted: AtomicUsize,
    /// Tokens up to this number are not accepted.
    revoked: AtomicUsize,
    key: Mutex<&'static Key>,
    installation: Mutex<Option<u64>>,
    suspended: Mutex<bool>,
}

impl Host {
    fn new(clock: &ManualClock) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            minted: AtomicUsize::new(0),
            revoked: AtomicUsize::new(0),
            key: Mutex::new(&KEY),
            installation: Mutex::new(Some(5)),
            suspended: Mutex::new(false),
        })
    }

    fn answer(&self, seen: &Seen) -> Reply {
        let of_app = || is_signed(seen, *self.key.lock().unwrap(), self.clock.now());
        let installation = *self.installation.lock().unwrap();
        match seen.route.as_str() {
            "/repos/acme/api/installation" if of_app() => match installation {
                Some(id) => {
                    let at = self.suspended.lock().unwrap().then_some("2026-01-01T00:00:00Z");
                    Reply::ok(json!({"id": id, "suspended_at": at}))
                }
                None => Reply::status(404),
            },
            "/orgs/acme/installation" | "/users/acme/installation" if of_app() => {
                Reply::status(404)
            }
            route if route.starts_with("/app/installations/") && of_app() => {
                let known = installation.map(|id| format!("/app/installations/{id}/access_tokens"));
                if known.as_deref() != Some(route) {
                    return Reply::status(404);
                }
                let number = self.minted.fetch_add(1, Ordering::SeqCst) + 1;
                let expires_at = self.clock.now() + SignedDuration::from_hours(1);
                Reply::Json(
                    201,
                    Vec::new(),
                    json!({"token": format!("ghs_{number}"), "expires_at": expires_at}),
                )
            }
            "/repos/acme/api" => {
                let number = seen
                    .authorization
                    .as_deref()
                    .and_then(|a| a.strip_prefix("Bearer ghs_")?.parse::<usize>().ok());
                match number {
                    Some(number) if number > self.revoked.load(Ordering::SeqCst) => {
                        // A tag is its token's own.
                        let tag = format!("\"{number}\"");
                        match seen.etag.as_deref() == Some(&tag) {
                            true => Reply::status(304),
                            false => Reply::ok(repository()).with("etag", tag),
                        }
                    }
                    _ => Reply::status(401),
                }
            }
            _ => Reply::status(401),
        }
    }
}

async fn host(clock: &ManualClock) -> (Arc<Host>, Scripted) {
    let host = Host::new(clock);
    let answering = Arc::clone(&host);
    let server = Scripted::start(move |seen| answering.answer(seen)).await;
    (host, server)
}

#[tokio::test]
async fn twenty_first_calls_mint_one_token() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    let connections = join_all((0..20).map(|_| connect(&driver))).await;
    assert!(connections.iter().all(Result::is_ok), "{connections:?}");
    assert_eq!(host.minted.load(Ordering::SeqCst), 1);
    let looked = server.calls().iter().filter(|call| call.ends_with("/installation")).count();
    assert_eq!(looked, 1, "the installation is looked for once");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    let connection = connect(&driver).await.unwrap();
    clock.advance(SignedDuration::from_mins(54));
    connection.default_branch().await.unwrap();
    assert_eq!(host.minted.load(Ordering::SeqCst), 1);
    clock.advance(SignedDuration::from_mins(2));
    connection.default_branch().await.unwrap();
    assert_eq!(host.minted.load(Ordering::SeqCst), 2, "with four minutes left a new one is minted");
    clock.advance(SignedDuration::from_hours(30));
    connection.default_branch().await.unwrap();
    assert_eq!(host.minted.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_yet_is_used_to_its_end() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    let connection = connect(&driver).await.unwrap();
    let answering = Arc::clone(&host);
    server.answer(move |seen| match seen.route.contains("access_tokens") {
        true => Reply::status(502),
        false => answering.answer(seen),
    });
    clock.advance(SignedDuration::from_mins(58));
    connection.default_branch().await.unwrap();
    clock.advance(SignedDuration::from_mins(3));
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[tokio::test]
async fn a_refused_token_is_minted_again_once() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    let connection = connect(&driver).await.unwrap();
    host.revoked.store(1, Ordering::SeqCst);
    connection.default_branch().await.unwrap();
    assert_eq!(host.minted.load(Ordering::SeqCst), 2);

    host.revoked.store(usize::MAX, Ordering::SeqCst);
    server.calls();
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let tries = server.calls().iter().filter(|call| *call == "GET /repos/acme/api").count();
    assert_eq!(tries, 2);
}

#[tokio::test]
async fn a_new_key_is_taken_up_without_a_restart() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let secrets = Changing::new(&KEY.private);
    let driver = app(&server.url, &clock, Arc::clone(&secrets));
    let connection = connect(&driver).await.unwrap();
    // The old key is revoked while an assertion that it signed would still be good for minutes.
    *host.key.lock().unwrap() = &OTHER_KEY;
    host.revoked.store(1, Ordering::SeqCst);
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("the App's key"), "{error}");
    secrets.change(&OTHER_KEY.private);
    connection.default_branch().await.unwrap();
}

#[tokio::test]
async fn a_new_token_is_taken_up_without_a_restart() {
    let clock = clock();
    let good = Arc::new(Mutex::new("Bearer old".to_owned()));
    let expected = Arc::clone(&good);
    let server = Scripted::start(move |seen| {
        let is_good = seen.authorization.as_ref() == Some(&*expected.lock().unwrap());
        if is_good { Reply::ok(repository()) } else { Reply::status(401) }
    })
    .await;
    let secrets = Changing::new("old\n");
    let driver = driver(&server.url, &clock)
        .credentials(GitHubCredentials::token(reference()))
        .secrets(Tenant::default(), secrets.clone())
        .build()
        .unwrap();
    let connection = connect(&driver).await.unwrap();
    *good.lock().unwrap() = "Bearer new".to_owned();
    server.calls();
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert_eq!(server.calls().len(), 1, "the same token is not shown again");
    secrets.change("new");
    connection.default_branch().await.unwrap();
}

#[tokio::test]
async fn what_is_not_installed_or_suspended_is_denied_with_the_remedy() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    *host.suspended.lock().unwrap() = true;
    let error = connect(&driver).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("suspended"), "{error}");
    *host.suspended.lock().unwrap() = false;
    let connection = connect(&driver).await.unwrap();

    *host.installation.lock().unwrap() = None;
    host.revoked.store(1, Ordering::SeqCst);
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("install it"), "{error}");

    // Installed anew, it is another installation.
    *host.installation.lock().unwrap() = Some(6);
    connection.default_branch().await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_is_set_right_by_the_server_s() {
    let (wrong, right) = (clock(), clock());
    right.advance(SignedDuration::from_mins(25));
    let (host, server) = host(&right).await;
    let date = "Fri, 02 Jan 2026 03:29:05 GMT";
    let answering = Arc::clone(&host);
    server.answer(move |seen| answering.answer(seen).with("date", date));
    let driver = app(&server.url, &wrong, Changing::new(&KEY.private));
    connect(&driver).await.unwrap();
}

#[tokio::test]
async fn a_run_gets_a_token_that_reads_one_repository() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    let connection = connect(&driver).await.unwrap();
    let power = connection.clone_credentials().unwrap();
    let credential = power.mint(SignedDuration::from_mins(30)).await.unwrap();
    assert_eq!(credential.username, "x-access-token");
    assert_eq!(credential.token.expose_secret(), "ghs_2");
    assert_eq!(credential.expires_at, Some(instant("2026-01-02T04:04:05Z")));
    let minted = server.seen();
    let narrowed = minted.iter().rfind(|seen| seen.route.contains("access_tokens")).unwrap();
    assert_eq!(narrowed.body, json!({"repository_ids": [1], "permissions": {"contents": "read"}}));

    // Another run that starts in time gets the same; one that would outlive it a new one.
    power.mint(SignedDuration::from_mins(30)).await.unwrap();
    assert_eq!(host.minted.load(Ordering::SeqCst), 2);
    clock.advance(SignedDuration::from_mins(31));
    let later = power.mint(SignedDuration::from_mins(30)).await.unwrap();
    assert_eq!(later.token.expose_secret(), "ghs_3");
}

#[tokio::test]
async fn a_driver_s_own_token_is_not_handed_to_runs() {
    let clock = clock();
    let server = Scripted::one_by_one([Reply::ok(repository())]).await;
    let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
    assert!(connection.clone_credentials().is_none());
    let configured = driver(&server.url, &clock)
        .credentials(GitHubCredentials::token(SecretString::from("wide".to_owned())))
        .clone_token(SecretString::from("narrow".to_owned()))
        .build()
        .unwrap();
    let connection = connect(&configured).await.unwrap();
    let credential =
        connection.clone_credentials().unwrap().mint(SignedDuration::ZERO).await.unwrap();
    assert_eq!(credential.token.expose_secret(), "narrow");
}

#[tokio::test]
async fn no_secret_is_shown() {
    let clock = clock();
    let (host, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    let connection = connect(&driver).await.unwrap();
    let credential =
        connection.clone_credentials().unwrap().mint(SignedDuration::ZERO).await.unwrap();
    let mut shown = format!("{driver:?} {connection:?} {credential:?} {:?}", driver.host());
    host.revoked.store(usize::MAX, Ordering::SeqCst);
    let errors = [
        connection.default_branch().await.unwrap_err(),
        connect(&with_token(&server.url, &clock)).await.unwrap_err(),
        connect(&app(&server.url, &clock, Changing::new("-----BEGIN s3cret"))).await.unwrap_err(),
        connect(&app(&server.url, &clock, Changing::new(&OTHER_KEY.private))).await.unwrap_err(),
    ];
    for error in &errors {
        shown += &format!(" {error} {error:?}");
    }
    let line_of_the_key = KEY.private.lines().nth(3).unwrap();
    let assertion = server.seen()[0].authorization.clone().unwrap();
    let assertion = assertion.strip_prefix("Bearer ").unwrap();
    for secret in ["ghs_", "t0ken", "s3cret", line_of_the_key, assertion] {
        assert!(!shown.contains(secret), "{secret} is shown in {shown}");
    }
}

#[test]
fn a_credential_does_not_go_over_plain_http_to_another_machine() {
    let build = |base: &str| {
        workflows_scm::github::GitHubDriver::builder()
            .base(base)
            .credentials(GitHubCredentials::token(SecretString::from("t0ken".to_owned())))
            .build()
    };
    assert_eq!(build("http://git.example.com/api/v3").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(build("https://user:s3cret@host/").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(build("ftp://host/").unwrap_err().kind(), ErrorKind::Invalid);
    assert!(build("https://git.example.com/api/v3").is_ok());
}

#[tokio::test]
async fn what_was_read_with_a_token_is_read_anew_with_the_next_and_then_asked_about() {
    let clock = clock();
    let (_, server) = host(&clock).await;
    let driver = app(&server.url, &clock, Changing::new(&KEY.private));
    let connection = connect(&driver).await.unwrap();
    let mut tags = Vec::new();
    for minutes in [0, 0, 56, 0] {
        clock.advance(SignedDuration::from_mins(minutes));
        connection.default_branch().await.unwrap();
        let seen = server.seen().pop().unwrap();
        tags.push((seen.authorization.unwrap(), seen.etag));
    }
    let tag = |number: u8| Some(format!("\"{number}\""));
    let [one, two] = ["Bearer ghs_1", "Bearer ghs_2"].map(ToOwned::to_owned);
    assert_eq!(tags, [(one.clone(), None), (one, tag(1)), (two.clone(), None), (two, tag(2))]);
}
