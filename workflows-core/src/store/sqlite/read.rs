//! Reading single things.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{Row, SqlitePool};

use super::{
    admit::BASELINE,
    failure::Done,
    rows::{instant, nanos, parse},
};
use crate::{
    Approval, CommitId, Event, EventKey, GroupKey, NotifierName, RepoId, Run, RunKey, RunState,
    Tenant,
    event::{Payload, SubjectKey, SubjectState},
    run::GroupMembership,
    store::{
        Arrival, Backlog, GroupMember, GroupSnapshot, OutboxNotification, Stage, StatusKey,
        StatusRecord,
    },
};

fn body<T: DeserializeOwned>(found: Option<String>) -> Done<Option<T>> {
    found.as_deref().map(parse).transpose()
}

pub(super) async fn cursor(pool: &SqlitePool, tenant: &Tenant, name: &str) -> Done<Option<String>> {
    Ok(sqlx::query_scalar("SELECT value FROM cursors WHERE tenant = ? AND name = ?")
        .bind(tenant.as_str())
        .bind(name)
        .fetch_optional(pool)
        .await?)
}

pub(super) async fn subjects(
    pool: &SqlitePool,
    tenant: &Tenant,
    repo: &RepoId,
    prefix: &str,
) -> Done<Vec<(SubjectKey, SubjectState)>> {
    // Names with a prefix follow each other in the index; char(1114111) is behind every other.
    let rows = sqlx::query(
        "SELECT subject, state, changed, updated_at FROM subjects \
         WHERE tenant = ?1 AND repo = ?2 AND subject >= ?3 AND subject < ?3 || char(1114111) \
         ORDER BY subject",
    )
    .bind(tenant.as_str())
    .bind(repo.as_str())
    .bind(prefix)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let state = SubjectState {
                state: row.try_get(1)?,
                changed: row.try_get(2)?,
                updated_at: row.try_get::<Option<i64>, _>(3)?.map(instant),
            };
            Ok((SubjectKey::reference(row.try_get(0)?), state))
        })
        .collect()
}

pub(super) async fn arrivals(
    pool: &SqlitePool,
    tenant: &Tenant,
    repo: &RepoId,
    subject: &SubjectKey,
    until: Timestamp,
    limit: usize,
) -> Done<Vec<Arrival>> {
    let rows = sqlx::query(
        "SELECT a.state, a.at, a.kind FROM subjects s JOIN arrivals a ON a.subject = s.id \
         WHERE s.tenant = ? AND s.repo = ? AND s.subject = ? AND a.kind <= ? AND a.at <= ? \
         ORDER BY a.sequence DESC LIMIT ?",
    )
    .bind(tenant.as_str())
    .bind(repo.as_str())
    .bind(subject.as_str())
    .bind(BASELINE)
    .bind(nanos(until))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Arrival {
                state: row.try_get(0)?,
                at: instant(row.try_get(1)?),
                baseline: row.try_get::<i64, _>(2)? == BASELINE,
            })
        })
        .collect()
}

pub(super) async fn event(
    pool: &SqlitePool,
    tenant: &Tenant,
    key: &EventKey,
) -> Done<Option<Event>> {
    body(
        sqlx::query_scalar("SELECT body FROM events WHERE key = ? AND tenant = ?")
            .bind(key.as_str())
            .bind(tenant.as_str())
            .fetch_optional(pool)
            .await?,
    )
}

pub(super) async fn payload(pool: &SqlitePool, tenant: &Tenant, id: i64) -> Done<Option<Payload>> {
    let row = sqlx::query("SELECT headers, body FROM payloads WHERE id = ? AND tenant = ?")
        .bind(id)
        .bind(tenant.as_str())
        .fetch_optional(pool)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let headers: BTreeMap<String, String> = parse(row.try_get(0)?)?;
    let bytes: Vec<u8> = row.try_get(1)?;
    Ok(Some(Payload::new(headers, Bytes::from(bytes))))
}

pub(super) async fn run(pool: &SqlitePool, tenant: &Tenant, key: &RunKey) -> Done<Option<Run>> {
    body(
        sqlx::query_scalar(
            "SELECT r.body FROM run_keys k JOIN runs r ON r.id = k.run \
             WHERE k.tenant = ? AND k.key = ?",
        )
        .bind(tenant.as_str())
        .bind(key.as_str())
        .fetch_optional(pool)
        .await?,
    )
}

/// One group; in one statement, so that version and members belong together.
pub(super) async fn group(
    pool: &SqlitePool,
    tenant: &Tenant,
    group: &GroupKey,
) -> Done<GroupSnapshot> {
    let rows = sqlx::query(
        "SELECT g.version, m.membership, r.key, r.intake, r.repo, r.subject, r.state, \
         r.cancelling, r.created_at \
         FROM group_versions g \
         JOIN group_members m ON m.tenant = g.tenant AND m.name = g.name \
         JOIN runs r ON r.id = m.run \
         WHERE g.tenant = ? AND g.name = ? ORDER BY r.intake, r.id",
    )
    .bind(tenant.as_str())
    .bind(group.as_str())
    .fetch_all(pool)
    .await?;
    let mut snapshot = GroupSnapshot { group: group.clone(), version: 0, members: Vec::new() };
    for row in rows {
        snapshot.version = row.try_get(0)?;
        let membership: GroupMembership = parse(row.try_get(1)?)?;
        let state: &str = row.try_get(6)?;
        let state: RunState = serde_json::from_value(Value::String(state.to_owned()))?;
        snapshot.members.push(GroupMember {
            run: row.try_get::<String, _>(2)?.into(),
            order: row.try_get(3)?,
            repo: row.try_get::<&str, _>(4)?.into(),
            subject: SubjectKey::reference(row.try_get(5)?),
            state,
            cancelling: row.try_get(7)?,
            membership,
            created_at: instant(row.try_get(8)?),
        });
    }
    Ok(snapshot)
}

pub(super) async fn status(pool: &SqlitePool, key: &StatusKey) -> Done<Option<StatusRecord>> {
    body(
        sqlx::query_scalar(
            "SELECT body FROM statuses \
             WHERE tenant = ? AND repo = ? AND commit_id = ? AND context = ?",
        )
        .bind(key.tenant.as_str())
        .bind(key.repo.id.as_str())
        .bind(key.commit.as_str())
        .bind(&*key.context)
        .fetch_optional(pool)
        .await?,
    )
}

pub(super) async fn approval(
    pool: &SqlitePool,
    tenant: &Tenant,
    repo: &RepoId,
    subject: &SubjectKey,
    head: &CommitId,
) -> Done<Option<Approval>> {
    body(
        sqlx::query_scalar(
            "SELECT body FROM approvals \
             WHERE tenant = ? AND repo = ? AND subject = ? AND head = ?",
        )
        .bind(tenant.as_str())
        .bind(repo.as_str())
        .bind(subject.as_str())
        .bind(head.as_str())
        .fetch_optional(pool)
        .await?,
    )
}

pub(super) async fn outbox(
    pool: &SqlitePool,
    tenant: &Tenant,
    run: &RunKey,
    notifier: &NotifierName,
) -> Done<Vec<OutboxNotification>> {
    let bodies: Vec<String> = sqlx::query_scalar(
        "SELECT body FROM notifications WHERE tenant = ? AND run = ? AND state = 'pending' \
         AND notifier = ? ORDER BY id",
    )
    .bind(tenant.as_str())
    .bind(run.as_str())
    .bind(notifier.as_str())
    .fetch_all(pool)
    .await?;
    bodies.iter().map(|body| parse(body)).collect()
}

pub(super) async fn trigger_set(
    pool: &SqlitePool,
    tenant: &Tenant,
    digest: &str,
) -> Done<Option<Value>> {
    body(
        sqlx::query_scalar("SELECT body FROM trigger_sets WHERE tenant = ? AND digest = ?")
            .bind(tenant.as_str())
            .bind(digest)
            .fetch_optional(pool)
            .await?,
    )
}

pub(super) async fn backlog(pool: &SqlitePool, now: Timestamp) -> Done<Vec<Backlog>> {
    let mut backlogs = Vec::with_capacity(Stage::ALL.len());
    for stage in Stage::ALL {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM work WHERE stage = ?1), \
             (SELECT count(*) FROM work WHERE stage = ?1 AND due IS NULL) + \
             (SELECT count(*) FROM work WHERE stage = ?1 AND due <= ?2), \
             (SELECT min(since) FROM work WHERE stage = ?1 AND (due IS NULL OR due <= ?2))",
        )
        .bind(stage as i64)
        .bind(nanos(now))
        .fetch_one(pool)
        .await?;
        backlogs.push(Backlog {
            stage,
            waiting: row.try_get::<i64, _>(0)?.unsigned_abs(),
            due: row.try_get::<i64, _>(1)?.unsigned_abs(),
            oldest_due: row.try_get::<Option<i64>, _>(2)?.map(instant),
        });
    }
    Ok(backlogs)
}
