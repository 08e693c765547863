mod errors;
mod faults;
mod migrations;
mod plans;
mod proxy;
mod replicas;
mod tls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use workflows_test_postgres::{Durability, Server};

use super::{PostgresOptions, PostgresStore};
use crate::{
    Event, Observation, RepoRef, Store, SubjectClaim, SystemClock, Tenant,
    event::{Before, RefClaim, Seen},
    store::{Admitted, Claim, ClaimRequest, EventQuery, PageRequest, Stage},
};

/// A place on the server of this binary with nothing in it. `None` when there is no server, which
/// has been said aloud.
fn place(test: &str) -> Option<PostgresOptions> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let url = workflows_test_postgres::url(test)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Some(PostgresOptions::new(url).schema(format!("unit_{}_{number}", std::process::id())))
}

/// The same on a server of the test's own.
fn own_server(test: &str, durability: Durability) -> Option<(Arc<Server>, PostgresOptions)> {
    let server = workflows_test_postgres::server(test, durability)?;
    let options = PostgresOptions::new(server.url());
    Some((Arc::new(server), options))
}

async fn open(options: &PostgresOptions) -> PostgresStore {
    try_open(options).await.expect("the ledger opens")
}

async fn try_open(options: &PostgresOptions) -> crate::Result<PostgresStore> {
    PostgresStore::open(options.clone(), Arc::new(SystemClock)).await
}

/// A session of its own, beside every store.
async fn raw(options: &PostgresOptions) -> PgConnection {
    let connect: PgConnectOptions = options.connect().expect("the options are right");
    connect.connect().await.expect("a connection")
}

async fn run_sql(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(db).await.expect("it is done");
}

fn commit(number: u64) -> Option<crate::CommitId> {
    format!("{number:040x}").parse().ok()
}

/// The push to a branch that leads from one commit to the next.
fn push_to(branch: &str, number: u64) -> Observation {
    let repo = RepoRef { connection: "host".into(), id: "1".into(), name: "acme/api".into() };
    let claim = SubjectClaim::Ref(RefClaim {
        name: format!("refs/heads/{branch}").into(),
        after: commit(number + 1),
        before: Before::Was(commit(number)),
        forced: None,
    });
    let delivery = format!("{branch}/{number}");
    Observation::new(Tenant::default(), repo, "webhook".into(), delivery.into(), Seen::Told, claim)
}

fn push(number: u64) -> Observation {
    push_to("main", number)
}

async fn admit(store: &PostgresStore, observation: Observation) -> Event {
    let admitted = store.admit(vec![observation], None).await.expect("it is taken in");
    match admitted.into_iter().next() {
        Some(Admitted::Event(event)) => *event,
        other => panic!("expected an event, got {other:?}"),
    }
}

async fn claim(store: &PostgresStore) -> Claim {
    let claimed = store.claim(ClaimRequest::of(Stage::Match, 1)).await.expect("claims");
    claimed.claims.into_iter().next().expect("there is work")
}

/// Every event, oldest first.
async fn events(store: &PostgresStore) -> Vec<Event> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit: 1_000, after };
        let query = EventQuery::of(Tenant::default()).page(page);
        let page = store.events(query).await.expect("events");
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            found.reverse();
            return found;
        }
    }
}

/// Waits until something is so, which it is soon.
async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to pass: {what}");
}
