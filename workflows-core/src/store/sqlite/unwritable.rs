//! A ledger whose disk is full, and one that may only be read.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::SignedDuration;
use sqlx::{
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio_util::sync::CancellationToken;

use super::{SqliteOptions, SqliteStore};
use crate::{
    Engine, ErrorKind, EventKind, ManualClock, Observation, RepoRef, SharedClock, Store,
    SubjectClaim, SystemClock, Tenant,
    conformance::ScriptedSink,
    event::{Occurrence, Payload, Seen},
    store::DecisionQuery,
};

const FULL: &str = "the disk that the ledger's file is on is full; free some space";

/// A ledger whose file cannot grow beyond so many pages of 4 KiB: SQLite answers with the code
/// with which it answers when the disk has no more.
async fn of_at_most(pages: u32, path: &Path, clock: SharedClock) -> SqliteStore {
    let file = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
    let write = file
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("max_page_count", pages.to_string());
    let path = path.to_path_buf();
    let options = SqliteOptions::default();
    SqliteStore::start(path, write, file.read_only(true), None, options, clock)
        .await
        .expect("the ledger opens")
}

fn told(id: &str, bytes: usize) -> Observation {
    let claim = Occurrence::new(EventKind::MANUAL, id);
    let repo = RepoRef { connection: "host".into(), id: "1".into(), name: "acme/api".into() };
    let claim = SubjectClaim::Occurrence(Box::new(claim));
    Observation::new(Tenant::default(), repo, "webhook".into(), id.into(), Seen::Told, claim)
        .with_payload(Payload::new([("", ""); 0], Bytes::from(vec![b'x'; bytes])))
}

/// Takes in events until there is no room for one more.
async fn fill(store: &dyn Store) -> crate::Error {
    for number in 0..10_000 {
        let told = told(&number.to_string(), 400);
        if let Err(error) = store.admit(vec![told], None).await {
            return error;
        }
    }
    panic!("the ledger is never full");
}

#[tokio::test]
async fn a_full_disk_is_told_to_the_sender_and_nothing_of_what_was_refused_is_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let store = of_at_most(200, &path, Arc::new(SystemClock)).await;
    let error = fill(&store).await;
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert_eq!(error.message(), FULL);
    assert_eq!(error.operation(), "admit observations");
    assert!(error.to_string().contains("ledger.db"), "{error}");

    let before = store.position().await.expect("a position");
    store.admit(vec![told("late", 400_000)], None).await.expect_err("there is no room");
    assert_eq!(store.position().await.expect("a position"), before);
    // What is there can be read, and a delivery that comes again is news when there is room.
    free_room(&path).await;
    let late = store.admit(vec![told("late", 400)], None).await.expect("there is room again");
    assert!(late.iter().all(|one| one.event().is_some()), "{late:?}");
}

/// Somebody frees some room. The file does not shrink; what is free in it is used again.
async fn free_room(path: &Path) {
    let mut other = SqliteConnectOptions::new().filename(path).connect().await.expect("it opens");
    let freed = "DELETE FROM payloads; DELETE FROM observations";
    sqlx::raw_sql(freed).execute(&mut other).await.expect("rows go");
}

#[tokio::test]
async fn an_engine_whose_disk_is_full_says_so_and_goes_on_when_there_is_room_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().expect("an instant"));
    let store = Arc::new(of_at_most(200, &path, Arc::new(clock.clone())).await);
    fill(&*store).await;
    let engine = Engine::builder()
        .store(Arc::clone(&store) as _)
        .clock(Arc::new(clock.clone()))
        .sink("sink", Arc::new(ScriptedSink::new()))
        .build()
        .expect("the engine is built");
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (engine, shutdown) = (engine.clone(), shutdown.clone());
        async move { engine.run(shutdown).await }
    });
    let handle = engine.handle();
    let problems = async || handle.health().await.expect("health is read").problems();
    let mut told_of = Vec::new();
    let mut moments = 0..20_000;
    while !told_of.iter().any(|problem: &String| problem.contains(FULL)) {
        assert!(moments.next().is_some() && !running.is_finished(), "it never said so");
        a_moment(&clock).await;
        told_of = problems().await;
    }
    assert!(told_of.iter().any(|one| one.starts_with("stage match: ")), "{told_of:?}");

    free_room(&path).await;
    let decided = async || {
        let query = DecisionQuery::of(Tenant::default());
        handle.decisions(query).await.expect("decisions are read").items.len()
    };
    let events = store.events(crate::store::EventQuery::of(Tenant::default())).await;
    let events = events.expect("events are read").items.len();
    while decided().await < events || !problems().await.is_empty() {
        assert!(moments.next().is_some() && !running.is_finished(), "it never went on");
        a_moment(&clock).await;
    }
    shutdown.cancel();
    running.await.expect("the engine ends in peace");
}

/// The ledger's threads get on, and the engine's pauses pass.
async fn a_moment(clock: &ManualClock) {
    clock.advance(SignedDuration::from_secs(5));
    tokio::time::sleep(Duration::from_millis(5)).await;
}

#[tokio::test]
async fn a_ledger_that_may_only_be_read_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    of_at_most(1_000, &path, Arc::new(SystemClock)).await.close().await;
    let read = SqliteConnectOptions::new().filename(&path).read_only(true);
    let options = SqliteOptions::default();
    let error = SqliteStore::start(path, read.clone(), read, None, options, Arc::new(SystemClock))
        .await
        .expect_err("it cannot be written");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(
        error.message(),
        "the ledger's file, or the directory that it is in, is read-only; make both writable"
    );
    assert!(error.to_string().contains("ledger.db"), "{error}");
}

/// A directory in which nobody may make a file, whoever runs the tests.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_may_only_be_read_is_refused_by_name() {
    let options = SqliteOptions::default();
    let error = SqliteStore::open("/sys/ledger.db", options, Arc::new(SystemClock))
        .await
        .expect_err("it cannot be written");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(
        error.message(),
        "the lock file beside the ledger cannot be written; is its directory read-only?"
    );
    assert!(error.to_string().contains("/sys/ledger.db.lock"), "{error}");
}
