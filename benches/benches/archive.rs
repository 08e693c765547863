//! Queries of the archive at a number of runs, on SQLite and on Postgres.
//!
//! ```text
//! cargo bench -p workflows-benches --bench archive -- 10000 1000000 10000000
//! ```
//!
//! The runs are made by statements of the database: ended ones of 400 repositories and 37 workflows,
//! a second apart, one in two thousand waiting. Each has the body of a run that an engine planned.
//! What is measured is the store's own answer, a page of a hundred runs put together. Ten million runs
//! take some 45 GB on disk in a file and 26 GB in Postgres, one ledger after the other; `TMPDIR` says
//! where, and `sqlite` or `postgres` as an argument that there is to be one alone.

use std::{sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};
use workflows_benches::{
    ledger::{Ledger, Place},
    spread::Spread,
};
use workflows_core::{
    RunState, Store, SystemClock, Tenant, WorkflowId,
    conformance::{ScriptedScm, ScriptedSink},
    engine::{ConnectionOptions, Engine},
    store::{MemoryStore, PageRequest, RunQuery},
    workflow::{LoadContext, load},
};

const QUERIES: u64 = 100;
/// How many runs are made in a transaction.
const AT_ONCE: u64 = 100_000;

const WORKFLOW: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  repos: [{ name: code, connection: scm, repo: acme/api }]
  triggers: [{ name: push, on: push }]
  params:
  - { name: revision, value: $(event.head.sha) }
  pipelineRef: { name: build }
";

fn main() {
    let asked: Vec<String> = std::env::args().collect();
    let alone = |place: &str| asked.iter().any(|argument| argument == place);
    let sizes: Vec<u64> = asked.iter().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![10_000, 1_000_000] } else { sizes };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let body = runtime.block_on(body());
    println!("a run's body has {} bytes", body.len());
    println!(
        "{:>8} {:>10} {:>22} {:>8} {:>9} {:>9}",
        "ledger", "runs", "query", "rows", "p50 ms", "p99 ms"
    );
    for size in sizes {
        let places = match (alone("sqlite"), alone("postgres")) {
            (true, false) => vec![Place::sqlite()],
            (false, true) => Place::postgres().into_iter().collect(),
            _ => Place::all(),
        };
        for place in places {
            runtime.block_on(measure(&place, size, &body));
        }
    }
}

async fn measure(place: &Place, size: u64, body: &str) {
    let name = "archive";
    place.open(name).await.close().await;
    let began = Instant::now();
    match place {
        Place::Sqlite(_) => fill_sqlite(&place.address(name), size, body).await,
        Place::Postgres(_) => fill_postgres(&place.address(name), name, size, body).await,
    }
    println!("{place:>8} {size:>10} made in {:.0} s", began.elapsed().as_secs_f64());
    let ledger = place.open(name).await;
    ask(place, &ledger, size).await;
    ledger.close().await;
}

/// The body of a run, as an engine plans it.
async fn body() -> String {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("ada", "main", &[("README.md", "An interface.")]);
    let mut loaded = load("ci.yaml", WORKFLOW, &LoadContext::registered());
    let options = ConnectionOptions::registered_only();
    let engine = Engine::builder()
        .store(store.clone())
        .connection_of(scm.tenant(), scm.connection(), Arc::new(scm.clone()), options)
        .sink("sink", Arc::new(ScriptedSink::new()))
        .workflow(loaded.workflows.remove(0))
        .build()
        .expect("the engine is built");
    let push = repo.push("ada", "main", &[("README.md", "An interface, told at length.")]);
    store.admit(vec![push], None).await.expect("it is stored");
    engine.run_until_idle().await.expect("it is planned");
    let runs = store.runs(RunQuery::of(Tenant::default())).await.expect("runs").items;
    serde_json::to_string(&runs[0]).expect("a run is JSON")
}

/// The statement that makes the runs `$1` to `$2`, whose body is `$3`.
fn insertion(numbers: &str, commit: &str) -> String {
    format!(
        "INSERT INTO runs (id, tenant, key, version, repo, repo_name, workflow_repo, workflow, \
         trigger_name, subject, event, commit_id, pull_request, intake, state, terminal, \
         cancelling, created_at, finished_at, standing, body) \
         SELECT n, 'default', 'run-' || n, 1, 'repo-' || (n % 400), 'acme/repo-' || (n % 400), \
         NULL, 'workflow-' || (n % 37), 'push', 'refs/heads/b' || (n % 5000), 'event-' || n, \
         {commit}, CASE WHEN n % 3 = 0 THEN n % 9000 END, n, \
         CASE WHEN n % 2000 = 0 THEN 'queued' WHEN n % 5 = 0 THEN 'failed' ELSE 'succeeded' END, \
         CASE WHEN n % 2000 = 0 THEN 0 ELSE 1 END, 0, n * 1000000000, n * 1000000000, '[]', $3 \
         FROM {numbers}"
    )
}

fn parts(size: u64) -> impl Iterator<Item = (i64, i64)> {
    (0..size)
        .step_by(AT_ONCE as usize)
        .map(move |from| (from.cast_signed() + 1, (from + AT_ONCE).min(size).cast_signed()))
}

async fn fill_sqlite(path: &str, size: u64, body: &str) {
    let mut db = SqliteConnection::connect(&format!("sqlite://{path}")).await.expect("the file");
    let execute = async |db: &mut SqliteConnection, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.expect("a statement");
    };
    execute(&mut db, "PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000".to_owned()).await;
    let indexes = sqlx::query(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'runs' \
         AND sql IS NOT NULL",
    );
    let indexes: Vec<(String, String)> = indexes
        .fetch_all(&mut db)
        .await
        .expect("indexes")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (name, _) in &indexes {
        execute(&mut db, format!("DROP INDEX {name}")).await;
    }
    let numbers = "(WITH RECURSIVE numbers(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers \
                   WHERE n < $2) SELECT n FROM numbers)";
    for (from, to) in parts(size) {
        let sql = insertion(numbers, "printf('%040x', n)");
        let insert = sqlx::query(AssertSqlSafe(sql)).bind(from).bind(to).bind(body);
        insert.execute(&mut db).await.expect("runs");
    }
    for (_, sql) in indexes {
        execute(&mut db, sql).await;
    }
    execute(&mut db, "PRAGMA wal_checkpoint(TRUNCATE)".to_owned()).await;
    db.close().await.expect("it closes");
}

async fn fill_postgres(url: &str, schema: &str, size: u64, body: &str) {
    let mut db = PgConnection::connect(url).await.expect("the server");
    let execute = async |db: &mut PgConnection, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.expect("a statement");
    };
    let settings = "SET synchronous_commit = off; SET maintenance_work_mem = '1GB'";
    execute(&mut db, format!("SET search_path = {schema}; {settings}")).await;
    let indexes = sqlx::query(
        "SELECT i.indexname, i.indexdef FROM pg_indexes i WHERE i.tablename = 'runs' \
         AND i.schemaname = $1 AND i.indexname <> 'runs_pkey'",
    );
    let indexes: Vec<(String, String)> = indexes
        .bind(schema)
        .fetch_all(&mut db)
        .await
        .expect("indexes")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    execute(&mut db, "TRUNCATE runs".to_owned()).await;
    for (name, _) in &indexes {
        execute(&mut db, format!("DROP INDEX {name}")).await;
    }
    let numbers = "generate_series($1::bigint, $2::bigint) AS numbers(n)";
    for (from, to) in parts(size) {
        let sql = insertion(numbers, "lpad(to_hex(n), 40, '0')");
        let insert = sqlx::query(AssertSqlSafe(sql)).bind(from).bind(to).bind(body);
        insert.execute(&mut db).await.expect("runs");
    }
    for (_, sql) in indexes {
        execute(&mut db, sql).await;
    }
    // What the server does by itself, in time.
    execute(&mut db, "VACUUM ANALYZE runs".to_owned()).await;
    db.close().await.expect("it closes");
}

/// Numbers that look like chance, the same in each run.
fn chance(turn: u64, below: u64) -> u64 {
    turn.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) % below.max(1)
}

async fn ask(place: &Place, ledger: &Ledger, size: u64) {
    type Narrow = fn(RunQuery, u64, u64) -> RunQuery;
    let queries: [(&str, Narrow); 11] = [
        ("newest", |query, _, _| query),
        ("a page in between", |query, turn, size| {
            let after = Some(chance(turn, size).cast_signed() + 1);
            query.page(PageRequest { limit: 100, after })
        }),
        ("repository", |query, turn, _| {
            query.repo_name(Some(format!("acme/repo-{}", chance(turn, 400))))
        }),
        ("workflow", |query, turn, _| {
            let name = format!("workflow-{}", chance(turn, 37));
            query.workflow(Some(WorkflowId::registered(name.as_str())))
        }),
        ("commit", |query, turn, size| {
            query.commit(format!("{:040x}", chance(turn, size) + 1).parse().ok())
        }),
        ("pull request", |query, turn, _| query.pull_request(Some(chance(turn, 3_000) * 3))),
        ("waiting", |query, _, _| query.states(vec![RunState::Planned, RunState::Queued])),
        ("failed", |query, _, _| query.states(vec![RunState::Failed])),
        ("an hour", |query, turn, size| {
            let from = chance(turn, size) as i64;
            let since = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(from);
            query.since(Some(since)).until(Some(since + SignedDuration::from_hours(1)))
        }),
        ("until", |query, turn, size| {
            let until = SignedDuration::from_secs(chance(turn, size) as i64 + 1);
            query.until(Some(Timestamp::UNIX_EPOCH + until))
        }),
        ("failed, a workflow's", |query, turn, _| {
            let name = format!("workflow-{}", chance(turn, 37));
            query
                .workflow(Some(WorkflowId::registered(name.as_str())))
                .states(vec![RunState::Failed])
        }),
    ];
    let store = ledger.store();
    for (name, narrow) in queries {
        let mut rows = 0;
        let mut times = Vec::new();
        for turn in 1..=QUERIES {
            let query = narrow(RunQuery::of(Tenant::default()), turn, size);
            let asked = Instant::now();
            let found = store.runs(query).await.expect("an answer").items;
            times.push(asked.elapsed());
            rows += found.len() as u64;
        }
        let spread = Spread::of(times);
        println!(
            "{place:>8} {size:>10} {name:>22} {:>8.1} {:>9.2} {:>9.2}",
            rows as f64 / QUERIES as f64,
            spread.milliseconds(0.5),
            spread.milliseconds(0.99),
        );
    }
}
