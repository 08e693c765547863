use jiff::Timestamp;
use sqlx::PgConnection;

use super::{open, place, raw, run_sql};
use crate::{
    Run, RunState, Tenant,
    conformance::store::ledger::{in_group, planned},
    store::{
        Claim, RunQuery, WorkKey,
        sql::{
            Query, archive::archive_queries, pages::select_count_of_runs, query,
            queue::TENANTS_WITH_WORK,
        },
    },
};

/// A run in a group, for an event's claim.
pub(super) fn run(group: &str, claim: &Claim, round: u64) -> Run {
    let WorkKey::Event { event, .. } = &claim.work.key else { panic!("a claim on an event") };
    let name = format!("{round}-{}", claim.lease.id);
    in_group(planned(&name, event.as_str(), 1, Timestamp::UNIX_EPOCH), group)
}

async fn plan(db: &mut PgConnection, explained: Query) -> String {
    let lines: Vec<String> =
        explained.explained("EXPLAIN (COSTS OFF) ").values(db).await.expect("a plan");
    lines.join("\n")
}

/// Rows as an archive has them: most of them ended, of many repositories, each about a commit of its
/// own.
const ARCHIVE: &str = "\
    INSERT INTO runs SELECT n, 'default', 'run-' || n, 1, 'repo-' || n % 400, \
      'acme/repo-' || n % 400, NULL, 'workflow-' || n % 37, 'push', 'refs/heads/b' || n % 5000, \
      'event-' || n, md5(n::text) || '00000000', CASE WHEN n % 3 = 0 THEN n % 9000 END, n, \
      CASE WHEN n % 2000 = 0 THEN 'queued' WHEN n % 5 = 0 THEN 'failed' ELSE 'succeeded' END, \
      CASE WHEN n % 2000 = 0 THEN 0 ELSE 1 END, 0, n * 1000000000, n * 1000000000, '[]', '{}' \
      FROM generate_series(1::bigint, 40000) n; \
    INSERT INTO events SELECT n, 'event-' || n, 'default', 'repo-' || n % 400, 'push', \
      'refs/heads/b' || n % 5000, md5(n::text) || '00000000', \
      CASE WHEN n % 3 = 0 THEN n % 9000 END, n * 1000000000, '{}' \
      FROM generate_series(1::bigint, 40000) n; \
    INSERT INTO observations SELECT n, 'default', 'host', 'repo-' || n % 400, 'acme/api', \
      'webhook', n::text, 'refs/heads/main', 's', NULL, NULL, n * 1000000000 \
      FROM generate_series(1::bigint, 40000) n; \
    INSERT INTO decisions SELECT n, 'default', 'event-' || n, '', '{}' \
      FROM generate_series(1::bigint, 40000) n; \
    INSERT INTO statuses SELECT n, 'default', 'repo-' || n % 400, md5(n::text) || '00000000', 'ci', \
      NULL, n, '{}' FROM generate_series(1::bigint, 40000) n; \
    INSERT INTO notifications SELECT n, 'default', 'run-' || n, 'chat', \
      CASE WHEN n % 3000 = 0 THEN 'dead' ELSE 'delivered' END, '{}' \
      FROM generate_series(1::bigint, 40000) n; \
    INSERT INTO run_keys SELECT 'default', 'run-' || n, n FROM generate_series(1::bigint, 40000) n; \
    INSERT INTO work (id, stage, tenant, key, detail, due, since, attempts, token) \
      SELECT n, n % 6, 'tenant-' || n % 50, n::text, 'null', \
      CASE WHEN n % 2 = 0 THEN n * 1000000000 END, n, 0, 0 FROM generate_series(1::bigint, 20000) n; \
    ANALYZE";

#[tokio::test]
async fn every_query_of_a_large_archive_is_led_by_an_index() {
    let Some(options) = place("plans of queries") else { return };
    open(&options).await.close().await;
    let mut db = raw(&options).await;
    run_sql(&mut db, ARCHIVE).await;
    for (name, select) in archive_queries() {
        let plan = plan(&mut db, select).await;
        assert!(plan.contains("Index") && !plan.contains("Seq Scan"), "{name}: {plan}");
        if name.starts_with("runs by") && !["runs by states"].contains(&name) {
            // Rows come in their order: sorting would read every one that is found.
            assert!(!plan.contains("Sort"), "{name}: {plan}");
        }
    }
    let states = vec![RunState::Planned, RunState::Queued];
    let query_of = RunQuery::of(Tenant::default()).states(states);
    let plan = plan(&mut db, select_count_of_runs(&query_of, 10)).await;
    assert!(plan.contains("runs_state"), "{plan}");
}

#[tokio::test]
async fn the_queue_is_led_by_its_indexes() {
    let Some(options) = place("plans of the queue") else { return };
    open(&options).await.close().await;
    let mut db = raw(&options).await;
    run_sql(&mut db, ARCHIVE).await;
    // A plan does not show what is inside of a recursion, but how many pages were read does: a few for
    // each tenant, whatever its backlog.
    let tenants = query(TENANTS_WITH_WORK).bind(1_i64).bind("").bind(10_i64);
    let tenants = tenants.explained("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) ");
    let lines: Vec<String> = tenants.values(&mut db).await.expect("a plan");
    let pages = lines.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared hit="));
    let pages: u32 = pages
        .and_then(|pages| pages.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no count of pages: {lines:?}"));
    assert!(pages <= 100, "{lines:?}");
    let oldest = query(
        "SELECT since, id FROM work WHERE stage = $1 AND tenant = $2 AND due IS NULL \
         AND (since, id) > ($3, $4) ORDER BY since, id LIMIT $5 FOR UPDATE SKIP LOCKED",
    );
    let oldest = oldest.bind(1_i64).bind("tenant-1").bind(i64::MIN).bind(i64::MIN).bind(10_i64);
    let found = plan(&mut db, oldest).await;
    assert!(found.contains("work_ready") && !found.contains("Sort"), "{found}");
    let next =
        query("SELECT due FROM work WHERE stage = $1 AND due IS NOT NULL ORDER BY due LIMIT 1");
    let found = plan(&mut db, next.bind(1_i64)).await;
    assert!(found.contains("work_waiting") && !found.contains("Sort"), "{found}");
}
