//! Pages of what the ledger keeps.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool, sqlite::SqliteRow};

use super::{
    commit::state_name,
    failure::Done,
    rows::{instant, nanos, parse, tenant_of},
};
use crate::{
    Event, RepoRef, Run, Tenant,
    event::SubjectKey,
    store::{
        DecisionBatch, DecisionQuery, DeliveryQuery, EventQuery, ObservationQuery,
        OutboxNotification, Page, PageRequest, RecordedObservation, RunQuery, StatusQuery,
        StatusRecord,
    },
};

/// A query under construction: the first column that is selected is the id that pages follow.
pub(super) struct Select {
    sql: QueryBuilder<Sqlite>,
    id: &'static str,
}

impl Select {
    fn new(select: &'static str, id: &'static str, tenant: &Tenant) -> Self {
        let mut sql = QueryBuilder::new(select);
        sql.push(" WHERE tenant = ").push_bind(tenant.as_str().to_owned());
        Self { sql, id }
    }

    fn text(mut self, column: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.sql.push(" AND ").push(column).push(" = ").push_bind(value.to_owned());
        }
        self
    }

    fn number(mut self, column: &'static str, value: Option<u64>) -> Self {
        if let Some(value) = value {
            self.sql.push(" AND ").push(column).push(" = ").push_bind(value.cast_signed());
        }
        self
    }

    fn time(mut self, comparison: &'static str, value: Option<Timestamp>) -> Self {
        if let Some(value) = value {
            self.sql.push(" AND ").push(comparison).push(" ").push_bind(nanos(value));
        }
        self
    }

    /// The statement of a page, with one row more than is on it.
    pub(super) fn page(mut self, page: PageRequest) -> QueryBuilder<Sqlite> {
        if let Some(after) = page.after {
            self.sql.push(" AND ").push(self.id).push(" < ").push_bind(after);
        }
        self.sql.push(" ORDER BY ").push(self.id).push(" DESC LIMIT ");
        self.sql.push_bind(page.rows() as i64 + 1);
        self.sql
    }

    async fn fetch<T>(
        self,
        pool: &SqlitePool,
        page: PageRequest,
        item: impl Fn(&SqliteRow) -> Done<T>,
    ) -> Done<Page<T>> {
        let limit = page.rows();
        let rows = self.page(page).build().fetch_all(pool).await?;
        let mut found = Page::default();
        for row in rows.iter().take(limit) {
            found.items.push(item(row)?);
        }
        if rows.len() > limit
            && let Some(last) = rows.get(limit - 1)
        {
            found.next = Some(last.try_get(0)?);
        }
        Ok(found)
    }

    async fn bodies<T: DeserializeOwned>(
        self,
        pool: &SqlitePool,
        page: PageRequest,
    ) -> Done<Page<T>> {
        self.fetch(pool, page, |row| parse(row.try_get(1)?)).await
    }
}

pub(super) async fn observations(
    pool: &SqlitePool,
    query: &ObservationQuery,
) -> Done<Page<RecordedObservation>> {
    select_observations(query).fetch(pool, query.page, recorded).await
}

pub(super) fn select_observations(query: &ObservationQuery) -> Select {
    let columns = "SELECT id, tenant, connection, repo, repo_name, source, delivery, subject, \
                   state, event, duplicate, received_at FROM observations";
    Select::new(columns, "id", &query.tenant)
        .text("repo", query.repo.as_ref().map(|repo| repo.as_str()))
        .time("received_at >=", query.since)
}

fn recorded(row: &SqliteRow) -> Done<RecordedObservation> {
    Ok(RecordedObservation {
        id: row.try_get(0)?,
        tenant: tenant_of(row.try_get(1)?)?,
        repo: RepoRef {
            connection: row.try_get::<&str, _>(2)?.into(),
            id: row.try_get::<&str, _>(3)?.into(),
            name: row.try_get::<&str, _>(4)?.into(),
        },
        source: row.try_get::<&str, _>(5)?.into(),
        delivery: row.try_get::<&str, _>(6)?.into(),
        subject: SubjectKey::reference(row.try_get(7)?),
        state: row.try_get(8)?,
        event: row.try_get::<Option<&str>, _>(9)?.map(Into::into),
        duplicate: row.try_get(10)?,
        received_at: instant(row.try_get(11)?),
    })
}

pub(super) async fn events(pool: &SqlitePool, query: &EventQuery) -> Done<Page<Event>> {
    select_events(query).bodies(pool, query.page).await
}

pub(super) fn select_events(query: &EventQuery) -> Select {
    Select::new("SELECT sequence, body FROM events", "sequence", &query.tenant)
        .text("repo", query.repo.as_ref().map(|repo| repo.as_str()))
        .text("kind", query.kind.as_ref().map(|kind| kind.as_str()))
        .text("head", query.commit.as_ref().map(|commit| commit.as_str()))
        .number("pull_request", query.pull_request)
        .text("subject", query.subject.as_ref().map(|subject| subject.as_str()))
        .time("received_at >=", query.since)
        .time("received_at <", query.until)
}

pub(super) async fn decisions(
    pool: &SqlitePool,
    query: &DecisionQuery,
) -> Done<Page<DecisionBatch>> {
    select_decisions(query).bodies(pool, query.page).await
}

pub(super) fn select_decisions(query: &DecisionQuery) -> Select {
    Select::new("SELECT id, body FROM decisions", "id", &query.tenant)
        .text("event", query.event.as_ref().map(|event| event.as_str()))
        .text("attempt", query.attempt.as_ref().map(|attempt| attempt.as_str()))
}

pub(super) async fn runs(pool: &SqlitePool, query: &RunQuery) -> Done<Page<Run>> {
    select_runs(query).bodies(pool, query.page).await
}

pub(super) async fn count_runs(pool: &SqlitePool, query: &RunQuery, most: u32) -> Done<u32> {
    let counted = select_count_of_runs(query, most).build().fetch_one(pool).await?;
    Ok(counted.try_get(0)?)
}

pub(super) fn select_count_of_runs(query: &RunQuery, most: u32) -> QueryBuilder<Sqlite> {
    let counted = Select::new("SELECT count(*) FROM (SELECT 1 FROM runs", "id", &query.tenant);
    let mut sql = narrow_runs(counted, query).sql;
    sql.push(" LIMIT ").push_bind(most).push(")");
    sql
}

pub(super) fn select_runs(query: &RunQuery) -> Select {
    narrow_runs(Select::new("SELECT id, body FROM runs", "id", &query.tenant), query)
}

fn narrow_runs(select: Select, query: &RunQuery) -> Select {
    let mut select = select
        .text("repo", query.repo.as_ref().map(|repo| repo.as_str()))
        .text("repo_name", query.repo_name.as_deref())
        .text("workflow", query.workflow.as_ref().map(|workflow| &*workflow.name))
        .text("workflow", query.workflow_name.as_deref())
        .text("trigger_name", query.trigger.as_deref())
        .number("pull_request", query.pull_request)
        .text("commit_id", query.commit.as_ref().map(|commit| commit.as_str()))
        .text("subject", query.subject.as_ref().map(|subject| subject.as_str()))
        .text("event", query.event.as_ref().map(|event| event.as_str()))
        .time("created_at >=", query.since)
        .time("created_at <", query.until);
    if let Some(workflow) = &query.workflow {
        let repo = workflow.repo.as_ref().map(|repo| repo.as_str().to_owned());
        select.sql.push(" AND workflow_repo IS ").push_bind(repo);
    }
    if !query.states.is_empty() {
        select.sql.push(" AND state IN (");
        let mut states = select.sql.separated(", ");
        for state in &query.states {
            states.push_bind(state.as_str());
        }
        select.sql.push(")");
    }
    select
}

pub(super) async fn statuses(pool: &SqlitePool, query: &StatusQuery) -> Done<Page<StatusRecord>> {
    select_statuses(query).bodies(pool, query.page).await
}

pub(super) fn select_statuses(query: &StatusQuery) -> Select {
    Select::new("SELECT id, body FROM statuses", "id", &query.tenant)
        .text("repo", query.repo.as_ref().map(|repo| repo.as_str()))
        .text("commit_id", query.commit.as_ref().map(|commit| commit.as_str()))
}

pub(super) async fn notifications(
    pool: &SqlitePool,
    query: &DeliveryQuery,
) -> Done<Page<OutboxNotification>> {
    select_notifications(query).bodies(pool, query.page).await
}

pub(super) fn select_notifications(query: &DeliveryQuery) -> Select {
    Select::new("SELECT id, body FROM notifications", "id", &query.tenant)
        .text("run", query.run.as_ref().map(|run| run.as_str()))
        .text("state", query.state.map(state_name))
}
