//! Reading single things.

use std::collections::BTreeMap;

use super::{Done, Sql, admit::BASELINE, instant, nanos, query, rows::parse};
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
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn body<T: DeserializeOwned>(found: Option<String>) -> Done<Option<T>> {
    found.as_deref().map(parse).transpose()
}

pub(crate) async fn cursor(db: &mut impl Sql, tenant: &Tenant, name: &str) -> Done<Option<String>> {
    query("SELECT value FROM cursors WHERE tenant = $1 AND name = $2")
        .bind(tenant.as_str())
        .bind(name)
        .value(db)
        .await
}

pub(crate) async fn subjects(
    db: &mut impl Sql,
    tenant: &Tenant,
    repo: &RepoId,
    prefix: &str,
) -> Done<Vec<(SubjectKey, SubjectState)>> {
    // Names with a prefix follow each other in the index, up to the prefix with the last character.
    let rows = query(
        "SELECT subject, state, changed, updated_at FROM subjects \
         WHERE tenant = $1 AND repo = $2 AND subject >= $3 AND subject < $4 \
         ORDER BY subject",
    )
    .bind(tenant.as_str())
    .bind(repo.as_str())
    .bind(prefix)
    .bind(format!("{prefix}{}", char::MAX))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let state = SubjectState {
                state: row.try_get(1)?,
                changed: row.try_get(2)?,
                updated_at: row.try_get::<Option<i64>>(3)?.map(instant),
            };
            Ok((SubjectKey::reference(row.try_get(0)?), state))
        })
        .collect()
}

pub(crate) async fn arrivals(
    db: &mut impl Sql,
    tenant: &Tenant,
    repo: &RepoId,
    subject: &SubjectKey,
    until: Timestamp,
    limit: usize,
) -> Done<Vec<Arrival>> {
    let rows = query(
        "SELECT a.state, a.at, a.kind FROM subjects s JOIN arrivals a ON a.subject = s.id \
         WHERE s.tenant = $1 AND s.repo = $2 AND s.subject = $3 AND a.kind <= $4 AND a.at <= $5 \
         ORDER BY a.sequence DESC LIMIT $6",
    )
    .bind(tenant.as_str())
    .bind(repo.as_str())
    .bind(subject.as_str())
    .bind(BASELINE)
    .bind(nanos(until))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Arrival {
                state: row.try_get(0)?,
                at: instant(row.try_get(1)?),
                baseline: row.try_get::<i64>(2)? == BASELINE,
            })
        })
        .collect()
}

pub(crate) async fn event(
    db: &mut impl Sql,
    tenant: &Tenant,
    key: &EventKey,
) -> Done<Option<Event>> {
    body(
        query("SELECT body FROM events WHERE key = $1 AND tenant = $2")
            .bind(key.as_str())
            .bind(tenant.as_str())
            .value(db)
            .await?,
    )
}

pub(crate) async fn payload(db: &mut impl Sql, tenant: &Tenant, id: i64) -> Done<Option<Payload>> {
    let row = query("SELECT headers, body FROM payloads WHERE id = $1 AND tenant = $2")
        .bind(id)
        .bind(tenant.as_str())
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let headers: BTreeMap<String, String> = parse(row.try_get(0)?)?;
    let bytes: Vec<u8> = row.try_get(1)?;
    Ok(Some(Payload::new(headers, Bytes::from(bytes))))
}

pub(crate) async fn run(db: &mut impl Sql, tenant: &Tenant, key: &RunKey) -> Done<Option<Run>> {
    body(
        query(
            "SELECT r.body FROM run_keys k JOIN runs r ON r.id = k.run \
             WHERE k.tenant = $1 AND k.key = $2",
        )
        .bind(tenant.as_str())
        .bind(key.as_str())
        .value(db)
        .await?,
    )
}

/// One group; in one statement, so that version and members belong together.
pub(crate) async fn group(
    db: &mut impl Sql,
    tenant: &Tenant,
    group: &GroupKey,
) -> Done<GroupSnapshot> {
    let rows = query(
        "SELECT g.version, m.membership, r.key, r.intake, r.repo, r.subject, r.state, \
         r.cancelling, r.created_at \
         FROM group_versions g \
         JOIN group_members m ON m.tenant = g.tenant AND m.name = g.name \
         JOIN runs r ON r.id = m.run \
         WHERE g.tenant = $1 AND g.name = $2 ORDER BY r.intake, r.id",
    )
    .bind(tenant.as_str())
    .bind(group.as_str())
    .fetch_all(db)
    .await?;
    let mut snapshot = GroupSnapshot { group: group.clone(), version: 0, members: Vec::new() };
    for row in rows {
        snapshot.version = row.try_get(0)?;
        let membership: GroupMembership = parse(row.try_get(1)?)?;
        let state: &str = row.try_get(6)?;
        let state: RunState = serde_json::from_value(Value::String(state.to_owned()))?;
        snapshot.members.push(GroupMember {
            run: row.try_get::<String>(2)?.into(),
            order: row.try_get(3)?,
            repo: row.try_get::<&str>(4)?.into(),
            subject: SubjectKey::reference(row.try_get(5)?),
            state,
            cancelling: row.try_get(7)?,
            membership,
            created_at: instant(row.try_get(8)?),
        });
    }
    Ok(snapshot)
}

pub(crate) async fn status(db: &mut impl Sql, key: &StatusKey) -> Done<Option<StatusRecord>> {
    body(
        query(
            "SELECT body FROM statuses \
             WHERE tenant = $1 AND repo = $2 AND commit_id = $3 AND context = $4",
        )
        .bind(key.tenant.as_str())
        .bind(key.repo.id.as_str())
        .bind(key.commit.as_str())
        .bind(&*key.context)
        .value(db)
        .await?,
    )
}

pub(crate) async fn approval(
    db: &mut impl Sql,
    tenant: &Tenant,
    repo: &RepoId,
    subject: &SubjectKey,
    head: &CommitId,
) -> Done<Option<Approval>> {
    body(
        query(
            "SELECT body FROM approvals \
             WHERE tenant = $1 AND repo = $2 AND subject = $3 AND head = $4",
        )
        .bind(tenant.as_str())
        .bind(repo.as_str())
        .bind(subject.as_str())
        .bind(head.as_str())
        .value(db)
        .await?,
    )
}

pub(crate) async fn outbox(
    db: &mut impl Sql,
    tenant: &Tenant,
    run: &RunKey,
    notifier: &NotifierName,
) -> Done<Vec<OutboxNotification>> {
    let bodies: Vec<String> = query(
        "SELECT body FROM notifications WHERE tenant = $1 AND run = $2 AND state = 'pending' \
         AND notifier = $3 ORDER BY id",
    )
    .bind(tenant.as_str())
    .bind(run.as_str())
    .bind(notifier.as_str())
    .values(db)
    .await?;
    bodies.iter().map(|body| parse(body)).collect()
}

pub(crate) async fn trigger_set(
    db: &mut impl Sql,
    tenant: &Tenant,
    digest: &str,
) -> Done<Option<Value>> {
    body(
        query("SELECT body FROM trigger_sets WHERE tenant = $1 AND digest = $2")
            .bind(tenant.as_str())
            .bind(digest)
            .value(db)
            .await?,
    )
}

/// Stages that have work, due or not.
pub(crate) async fn stages_with_work(db: &mut impl Sql) -> Done<Vec<Stage>> {
    let mut stages = Vec::new();
    for stage in Stage::ALL {
        let found: bool = query("SELECT EXISTS (SELECT 1 FROM work WHERE stage = $1)")
            .bind(stage as i64)
            .answer(db)
            .await?;
        if found {
            stages.push(stage);
        }
    }
    Ok(stages)
}

pub(crate) async fn backlog(db: &mut impl Sql, now: Timestamp) -> Done<Vec<Backlog>> {
    let mut backlogs = Vec::with_capacity(Stage::ALL.len());
    for stage in Stage::ALL {
        let row = query(
            "SELECT (SELECT count(*) FROM work WHERE stage = $1), \
             (SELECT count(*) FROM work WHERE stage = $1 AND due IS NULL) + \
             (SELECT count(*) FROM work WHERE stage = $1 AND due <= $2), \
             (SELECT min(since) FROM work WHERE stage = $1 AND (due IS NULL OR due <= $2))",
        )
        .bind(stage as i64)
        .bind(nanos(now))
        .fetch_one(db)
        .await?;
        backlogs.push(Backlog {
            stage,
            waiting: row.try_get::<i64>(0)?.unsigned_abs(),
            due: row.try_get::<i64>(1)?.unsigned_abs(),
            oldest_due: row.try_get::<Option<i64>>(2)?.map(instant),
        });
    }
    Ok(backlogs)
}
