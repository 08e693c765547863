use std::time::Duration;

use secrecy::SecretString;
use workflows_test_postgres::Durability;

use super::{admit, open, own_server, place, push, raw, run_sql, try_open};
use crate::{
    Error, ErrorKind, Store,
    store::{ClaimRequest, Release, Stage, postgres::PostgresTls},
};

/// The words of an error and of everything that caused it.
fn told(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(one) = cause {
        text += &format!(" {one} {one:?}");
        cause = one.source();
    }
    text
}

#[tokio::test]
async fn a_password_that_is_wrong_is_told_and_no_password_is_ever_shown() {
    let test = "a wrong password";
    let Some((server, options)) = own_server(test, Durability::None) else { return };
    assert!(!format!("{options:?}").contains(server.password()));
    let store = open(&options).await;
    assert!(!format!("{store:?}").contains(server.password()), "{store:?}");
    let mut wrong = options.clone().connect_timeout(Duration::from_secs(5));
    let address = format!("postgres://postgres:hunter2secret@127.0.0.1:{}/postgres", server.port());
    wrong.url = address.into();
    let error = try_open(&wrong).await.expect_err("a wrong password was accepted");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("password; check the URL"), "{error}");
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{}/postgres", server.port())),
        "{error}"
    );
    assert!(!told(&error).contains("hunter2secret"), "{}", told(&error));

    server.stop();
    let mut down = options.connect_timeout(Duration::from_millis(500));
    let error = try_open(&down).await.expect_err("there is no server");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(!told(&error).contains(server.password()), "{}", told(&error));
    for url in ["not a URL with hunter2secret", "postgres://u:hunter2secret@host:port/db"] {
        down.url = SecretString::from(url.to_owned());
        let error = try_open(&down).await.expect_err("that is no URL");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!told(&error).contains("hunter2secret"), "{}", told(&error));
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told() {
    let Some(mut options) = place("a missing database") else { return };
    let url = workflows_test_postgres::url("a missing database").expect("there is a server");
    let (server, rest) = url.rsplit_once('/').expect("a URL has a path");
    let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
    options.url = format!("{server}/nowhere_at_all?{query}").into();
    let error = try_open(&options).await.expect_err("there is no such database");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("/nowhere_at_all"), "{error}");
}

#[tokio::test]
async fn options_that_are_wrong_are_refused_by_their_names() {
    let options = super::PostgresOptions::new("postgres://u:p@localhost/db");
    let wrong = [
        ("schema", options.clone().schema("no spaces")),
        ("schema", options.clone().schema("x; DROP SCHEMA public")),
        ("schema", options.clone().schema("pg_mine")),
        ("schema", options.clone().schema("")),
        ("replica", options.clone().replica("")),
        ("replica", options.clone().replica("a b")),
        ("connections", options.clone().connections(0)),
        ("statement_timeout", options.clone().statement_timeout(Duration::ZERO)),
        ("poll_interval", options.clone().poll_interval(Duration::ZERO)),
        ("lock_timeout", options.clone().lock_timeout(Duration::from_secs(90_000))),
    ];
    for (name, options) in wrong {
        let error = try_open(&options).await.expect_err("a wrong option was accepted");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(&format!("option: {name}")), "{error}");
    }
}

#[tokio::test]
async fn what_the_server_lacks_is_told_with_a_remedy() {
    let Some(options) = place("errors of the server") else { return };
    let store = open(&options.clone().statement_timeout(Duration::from_millis(500))).await;
    let mut db = raw(&options).await;
    let told = [
        ("53100", ErrorKind::Transient, "disk is full; free some space"),
        ("53200", ErrorKind::Transient, "out of memory"),
        ("42501", ErrorKind::Denied, "needs SELECT, INSERT, UPDATE and DELETE"),
        ("XX001", ErrorKind::Invalid, "restore it from a backup"),
        ("40001", ErrorKind::Transient, "other transactions were in the way"),
    ];
    run_sql(
        &mut db,
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION 'made up' USING ERRCODE = tg_argv[0]; END $$",
    )
    .await;
    for (number, (code, kind, words)) in (0..).zip(told) {
        run_sql(
            &mut db,
            &format!(
                "CREATE TRIGGER failing BEFORE INSERT ON events \
                 FOR EACH ROW EXECUTE FUNCTION fail('{code}')"
            ),
        )
        .await;
        let error = store.admit(vec![push(number)], None).await.expect_err("it failed");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(code), "{error}");
        run_sql(&mut db, "DROP TRIGGER failing ON events").await;
        admit(&store, push(number)).await;
    }
    run_sql(&mut db, "BEGIN; LOCK TABLE events").await;
    let error = store.admit(vec![push(10)], None).await.expect_err("the table is locked");
    assert!(error.to_string().contains("statement_timeout"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    run_sql(&mut db, "ROLLBACK").await;
    admit(&store, push(10)).await;

    let hurried = open(&options.lock_timeout(Duration::from_millis(200))).await;
    run_sql(&mut db, "BEGIN; SELECT * FROM counters FOR UPDATE").await;
    let error = hurried.admit(vec![push(11)], None).await.expect_err("the row is locked");
    assert!(error.to_string().contains("lock_timeout"), "{error}");
}

#[tokio::test]
async fn a_server_with_too_many_connections_and_one_that_is_read_only_are_told() {
    let test = "limits of the server";
    let Some((server, options)) = own_server(test, Durability::None) else { return };
    let mut db = raw(&options).await;
    open(&options).await.close().await;
    run_sql(
        &mut db,
        "CREATE ROLE engine LOGIN PASSWORD 'p' CONNECTION LIMIT 1; \
         GRANT USAGE ON SCHEMA workflows TO engine; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA workflows TO engine; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA workflows TO engine",
    )
    .await;
    let mut as_engine = options.clone().connect_timeout(Duration::from_secs(2));
    as_engine.url = format!("postgres://engine:p@127.0.0.1:{}/postgres", server.port()).into();
    let error = try_open(&as_engine).await.expect_err("one connection is too few");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("too many connections"), "{error}");

    // With what the page on ledgers says that a user needs, everything but migrating works.
    run_sql(&mut db, "ALTER ROLE engine CONNECTION LIMIT 100").await;
    let store = open(&as_engine).await;
    admit(&store, push(0)).await;
    let claimed = store.claim(ClaimRequest::of(Stage::Match, 1)).await.expect("claims");
    let claim = claimed.claims.first().expect("a claim");
    store.release(&claim.lease, Release::default()).await.expect("it is given back");
    let everything = crate::store::Prune::before(jiff::Timestamp::now());
    store.prune(everything).await.expect("it prunes");
    let mut elsewhere = as_engine.clone();
    elsewhere.schema = "elsewhere".to_owned();
    let error = try_open(&elsewhere).await.expect_err("it may make no schema");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("CREATE to migrate"), "{error}");

    run_sql(&mut db, "ALTER ROLE engine SET default_transaction_read_only = on").await;
    run_sql(
        &mut db,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'engine'",
    )
    .await;
    let error = store.admit(vec![push(1)], None).await.expect_err("it is read-only");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("read-only standby"), "{error}");
    // And goes on when the server is the primary again.
    run_sql(&mut db, "ALTER ROLE engine RESET default_transaction_read_only").await;
    admit(&store, push(1)).await;
}

#[tokio::test]
async fn encryption_that_the_server_does_not_offer_is_told() {
    let Some(options) = place("encryption") else { return };
    let options = options.tls(PostgresTls::VerifyFull).connect_timeout(Duration::from_secs(2));
    let error = try_open(&options).await.expect_err("the server offers no encryption");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("`tls`"), "{error}");
}

#[tokio::test]
async fn a_text_with_a_nul_in_it_is_kept_as_well_as_can_be() {
    let Some(options) = place("a NUL") else { return };
    let store = open(&options).await;
    admit(&store, push(0)).await;
    let claim = super::claim(&store).await;
    let release = Release { not_before: None, error: Some("bad\0output".to_owned()) };
    store.release(&claim.lease, release).await.expect("it is given back");
    let claim = super::claim(&store).await;
    assert_eq!(claim.last_error.as_deref(), Some("bad\u{fffd}output"));
}
