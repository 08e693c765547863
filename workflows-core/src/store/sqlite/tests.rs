use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{SqliteOptions, SqliteStore};
use crate::{
    ErrorKind, Observation, RepoRef, RunState, Store, SubjectClaim, SystemClock, Tenant,
    event::{Before, RefClaim, Seen},
    store::{
        Admitted, ClaimRequest, EventQuery, PageRequest, RunQuery, Stage,
        sql::{
            Query,
            archive::archive_queries,
            pages::{page_of_runs, select_count_of_runs},
            queue::TENANTS_WITH_WORK,
        },
    },
};

fn options() -> SqliteOptions {
    SqliteOptions::default().lock_wait(Duration::ZERO)
}

async fn open(path: &Path) -> crate::Result<SqliteStore> {
    SqliteStore::open(path, options(), Arc::new(SystemClock)).await
}

async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.connect().await.expect("the file opens")
}

fn push(number: u64) -> Observation {
    let repo = RepoRef { connection: "host".into(), id: "1".into(), name: "acme/api".into() };
    let commit = |number| format!("{number:040x}").parse().ok();
    let claim = SubjectClaim::Ref(RefClaim {
        name: "refs/heads/main".into(),
        after: commit(number + 1),
        before: Before::Was(commit(number)),
        forced: None,
    });
    let delivery = number.to_string();
    Observation::new(Tenant::default(), repo, "webhook".into(), delivery.into(), Seen::Told, claim)
}

#[tokio::test]
async fn pages_move_into_the_file_beside_the_writer_and_nothing_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    // The writer's own checkpoint never comes.
    let moved_after = options().checkpoint_pages(2_000);
    let store = SqliteStore::open(&path, moved_after, Arc::new(SystemClock)).await.unwrap();
    let size = || std::fs::metadata(&path).expect("the file").len();
    let before = size();
    for number in 1..=80 {
        store.admit(vec![push(number)], None).await.expect("it is stored");
    }
    while size() == before {
        tokio::task::yield_now().await;
    }
    store.close().await;
    assert_eq!(open(&path).await.expect("it opens").position().await.unwrap(), 80);
}

#[tokio::test]
async fn a_second_engine_on_one_file_is_refused_until_the_first_lets_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let first = open(&path).await.expect("the ledger opens");
    let error = open(&path).await.expect_err("a second engine got in");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = error.to_string();
    assert!(text.contains("another engine has the file open"), "{text}");
    assert!(text.contains("ledger.db.lock"), "{text}");
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let error = open(&link).await.expect_err("a second engine got in by a link");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    first.admit(vec![push(1)], None).await.expect("the first goes on");
    first.close().await;
    let error = first.admit(vec![push(2)], None).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Transient);
    let second = open(&path).await.expect("the file is free");
    assert_eq!(second.position().await.expect("a position"), 1);
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "not a database, and longer than its header ".repeat(100))
        .expect("a file");
    let error = open(&path).await.expect_err("a text was opened");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("not a SQLite database"), "{error}");
    assert!(error.to_string().contains("notes.txt"), "{error}");

    let path = directory.path().join("other.db");
    let mut other = raw(&path).await;
    sqlx::query("CREATE TABLE notes (text TEXT)").execute(&mut other).await.expect("a table");
    drop(other);
    let error = open(&path).await.expect_err("another program's database was opened");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_told() {
    let error = open(Path::new("/nowhere/at/all/ledger.db")).await.expect_err("it was opened");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    open(&path).await.expect("the ledger opens").close().await;
    let mut newer = raw(&path).await;
    sqlx::query("INSERT INTO schema VALUES (99, 0)").execute(&mut newer).await.expect("a row");
    drop(newer);
    let error = open(&path).await.expect_err("a newer ledger was opened");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("newer version"), "{error}");
    assert!(error.to_string().contains("schema: 99"), "{error}");
}

/// A ledger as each schema that was ever released had it. A new schema adds its own dump here, and
/// every dump must open with everything in it.
const RELEASED: &[&str] =
    &[include_str!("fixtures/schema1.sql"), include_str!("fixtures/schema2.sql")];

#[tokio::test]
async fn a_ledger_of_every_earlier_schema_opens_with_everything_in_it() {
    for (index, dump) in RELEASED.iter().enumerate() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.db");
        let mut old = raw(&path).await;
        sqlx::raw_sql(*dump).execute(&mut old).await.expect("the dump is read");
        drop(old);
        let store = open(&path).await.expect("the old ledger opens");
        let tenant = Tenant::default();
        let events = store.events(EventQuery::of(tenant.clone())).await.expect("events").items;
        assert_eq!(events.len(), 2, "events of schema {}", index + 1);
        assert_eq!(store.position().await.expect("a position"), 2);
        let again = store.admit(vec![push(2)], None).await.expect("it is answered");
        assert!(matches!(again.as_slice(), [Admitted::Duplicate { .. }]), "{again:?}");
        let next = store.admit(vec![push(3)], None).await.expect("it is answered");
        assert!(next.iter().all(|one| one.event().is_some()), "{next:?}");
        let claimed = store.claim(ClaimRequest::of(Stage::Match, 10)).await.expect("claims");
        assert_eq!(claimed.claims.len(), 3, "work of schema {}", index + 1);
    }
}

async fn plan_of(db: &mut SqliteConnection, sql: Query) -> String {
    let statement = format!("EXPLAIN QUERY PLAN {}", sql.sql());
    let mut parts = sqlx::query_as::<_, (i64, i64, i64, String)>(sqlx::AssertSqlSafe(statement));
    // A plan does not depend on what is bound, but on every place being bound.
    for _ in 0..sql.sql().matches('$').count() {
        parts = parts.bind("x");
    }
    let parts = parts.fetch_all(db).await.expect("a plan");
    parts.into_iter().map(|(.., part)| part).collect::<Vec<_>>().join("; ")
}

/// Whether rows come in their order: sorting would read every one that is found. Of several states the
/// first of each are sorted.
fn in_order(plan: &str) -> bool {
    !plan.contains("TEMP B-TREE") || plan.contains("COMPOUND QUERY") || plan.contains("MERGE")
}

#[tokio::test]
async fn every_query_is_led_by_an_index() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    open(&path).await.expect("the ledger opens").close().await;
    let mut db = raw(&path).await;
    for (name, select) in archive_queries() {
        let plan = plan_of(&mut db, select).await;
        let scans = |step: &str| step.starts_with("SCAN ") && !step.starts_with("SCAN part");
        assert!(plan.contains("USING INDEX") && !plan.split("; ").any(scans), "{name}: {plan}");
        let narrowed = name.split(" by ").nth(1);
        assert!(!name.starts_with("runs") || in_order(&plan), "{name}: {plan}");
        let of_a_name = |column: &&str| {
            let others = ["time", "trigger", "states", "a page", "workflow and state"];
            !others.iter().any(|one| column.starts_with(one))
        };
        if let Some(column) = narrowed.filter(of_a_name) {
            let column = column.replace(' ', "_").replace("commit", "").replace("event", "");
            assert!(plan.contains(&column), "{name}: {plan}");
        }
    }
}

#[tokio::test]
async fn a_page_of_runs_begins_where_the_one_before_it_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    open(&path).await.expect("the ledger opens").close().await;
    let mut db = raw(&path).await;
    let behind = PageRequest { after: Some(7), ..PageRequest::default() };
    let plan = plan_of(&mut db, page_of_runs(&RunQuery::of(Tenant::default()).page(behind))).await;
    for step in ["runs_tenant (tenant=? AND created_at<?)", "PRIMARY KEY (rowid<?)"] {
        assert!(plan.contains(step), "{step}: {plan}");
    }
}

#[tokio::test]
async fn counting_the_runs_in_some_states_reads_an_index_and_no_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    open(&path).await.expect("the ledger opens").close().await;
    let mut db = raw(&path).await;
    let query = RunQuery::of(Tenant::default()).states(vec![RunState::Planned, RunState::Queued]);
    let plan = plan_of(&mut db, select_count_of_runs(&query, 10)).await;
    assert!(plan.contains("COVERING INDEX runs_state (tenant=? AND state=?)"), "{plan}");
}

#[tokio::test]
async fn looking_for_a_tenants_turn_takes_a_step_for_each_tenant_and_not_for_its_backlog() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    open(&path).await.expect("the ledger opens").close().await;
    let mut db = raw(&path).await;
    let explained = format!("EXPLAIN QUERY PLAN {TENANTS_WITH_WORK}");
    let parts: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(explained))
        .bind(0)
        .bind("")
        .bind(10)
        .fetch_all(&mut db)
        .await
        .expect("a plan");
    let on_work: Vec<&String> = parts
        .iter()
        .map(|(.., part)| part)
        .filter(|part| part.contains(" w ") || part.ends_with(" w"))
        .collect();
    assert_eq!(on_work.len(), 2, "{parts:?}");
    for part in on_work {
        assert!(part.contains("work_ready (stage=? AND tenant>?)"), "{part}");
    }
    let sorted = parts.iter().any(|(.., part)| part.contains("TEMP B-TREE"));
    assert!(!sorted, "{parts:?}");
}

#[tokio::test]
async fn one_operation_that_is_refused_does_not_spoil_those_beside_it() {
    let store = SqliteStore::open_in_memory(options(), Arc::new(SystemClock)).await.expect("opens");
    let lost = crate::store::Lease { id: 7, token: 7, until: jiff::Timestamp::UNIX_EPOCH };
    let (first, refused, second) = futures::join!(
        store.admit(vec![push(1)], None),
        store.commit(&lost, crate::store::Effects::default()),
        store.admit(vec![push(2)], None),
    );
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(refused.expect_err("a lost lease").kind(), ErrorKind::Conflict);
    assert_eq!(store.position().await.expect("a position"), 2);
}

#[tokio::test]
async fn one_operation_that_cannot_be_written_does_not_take_the_others_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    open(&path).await.expect("the ledger opens").close().await;
    let mut db = raw(&path).await;
    sqlx::raw_sql(
        "CREATE TRIGGER broken BEFORE INSERT ON events WHEN new.tenant = 'bad' \
         BEGIN SELECT raise(ABORT, 'broken'); END",
    )
    .execute(&mut db)
    .await
    .expect("a trigger");
    drop(db);
    let store = open(&path).await.expect("the ledger opens");
    let mut bad = push(1);
    bad.tenant = Tenant::new("bad").expect("a tenant");
    let (first, failed, second) = futures::join!(
        store.admit(vec![push(1)], None),
        store.admit(vec![bad], None),
        store.admit(vec![push(2)], None),
    );
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    let error = failed.expect_err("it cannot be written");
    assert!(error.to_string().contains("ledger.db"), "{error}");
    let events = store.events(EventQuery::of(Tenant::default())).await.expect("events").items;
    let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [2, 1], "nothing of what failed is left");
}
