//! Pages of what the ledger keeps.

use super::{
    Done, Query, Row, Sql, Value,
    commit::state_name,
    instant, nanos, query,
    rows::{parse, tenant_of},
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
use jiff::Timestamp;
use serde::de::DeserializeOwned;

/// A query under construction: the first column that is selected is the id that pages follow.
pub(crate) struct Select {
    sql: Query,
    id: &'static str,
}

impl Select {
    fn new(select: &'static str, id: &'static str, tenant: &Tenant) -> Self {
        Self::behind(query(""), select, id, tenant)
    }

    /// With text in front of it.
    fn behind(text: Query, select: &'static str, id: &'static str, tenant: &Tenant) -> Self {
        let sql = text.push(select).push_bind(" WHERE tenant = ", tenant.as_str());
        Self { sql, id }
    }

    fn and(mut self, condition: &str, value: impl Into<Value>) -> Self {
        self.sql = self.sql.push(" AND ").push_bind(condition, value);
        self
    }

    fn text(self, column: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.and(&format!("{column} = "), value),
            None => self,
        }
    }

    fn number(self, column: &'static str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.and(&format!("{column} = "), value.cast_signed()),
            None => self,
        }
    }

    fn time(self, comparison: &'static str, value: Option<Timestamp>) -> Self {
        match value {
            Some(value) => self.and(&format!("{comparison} "), nanos(value)),
            None => self,
        }
    }

    /// The statement of a page, with one row more than is on it.
    pub(crate) fn page(self, page: PageRequest) -> Query {
        let id = self.id;
        let select = match page.after {
            Some(after) => self.and(&format!("{id} < "), after),
            None => self,
        };
        let rows = page.rows() as i64 + 1;
        select.sql.push_bind(&format!(" ORDER BY {id} DESC LIMIT "), rows)
    }

    async fn bodies<T: DeserializeOwned>(
        self,
        db: &mut impl Sql,
        page: PageRequest,
    ) -> Done<Page<T>> {
        fetch(self.page(page), db, page, |row| parse(row.try_get(1)?)).await
    }
}

async fn fetch<T>(
    query: Query,
    db: &mut impl Sql,
    page: PageRequest,
    item: impl Fn(&Row) -> Done<T>,
) -> Done<Page<T>> {
    let limit = page.rows();
    let rows = query.fetch_all(db).await?;
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

pub(crate) async fn observations(
    db: &mut impl Sql,
    query: &ObservationQuery,
) -> Done<Page<RecordedObservation>> {
    fetch(select_observations(query).page(query.page), db, query.page, recorded).await
}

pub(crate) fn select_observations(query: &ObservationQuery) -> Select {
    let columns = "SELECT id, tenant, connection, repo, repo_name, source, delivery, subject, \
                   state, event, duplicate, received_at FROM observations";
    Select::new(columns, "id", &query.tenant)
        .text("repo", query.repo.as_ref().map(|repo| repo.as_str()))
        .time("received_at >=", query.since)
}

fn recorded(row: &Row) -> Done<RecordedObservation> {
    Ok(RecordedObservation {
        id: row.try_get(0)?,
        tenant: tenant_of(row.try_get(1)?)?,
        repo: RepoRef {
            connection: row.try_get::<&str>(2)?.into(),
            id: row.try_get::<&str>(3)?.into(),
            name: row.try_get::<&str>(4)?.into(),
        },
        source: row.try_get::<&str>(5)?.into(),
        delivery: row.try_get::<&str>(6)?.into(),
        subject: SubjectKey::reference(row.try_get(7)?),
        state: row.try_get(8)?,
        event: row.try_get::<Option<&str>>(9)?.map(Into::into),
        duplicate: row.try_get(10)?,
        received_at: instant(row.try_get(11)?),
    })
}

pub(crate) async fn events(db: &mut impl Sql, query: &EventQuery) -> Done<Page<Event>> {
    select_events(query).bodies(db, query.page).await
}

pub(crate) fn select_events(query: &EventQuery) -> Select {
    Select::new("SELECT sequence, body FROM events", "sequence", &query.tenant)
        .text("repo", query.repo.as_ref().map(|repo| repo.as_str()))
        .text("kind", query.kind.as_ref().map(|kind| kind.as_str()))
        .text("head", query.commit.as_ref().map(|commit| commit.as_str()))
        .number("pull_request", query.pull_request)
        .text("subject", query.subject.as_ref().map(|subject| subject.as_str()))
        .time("received_at >=", query.since)
        .time("received_at <", query.until)
}

pub(crate) async fn decisions(
    db: &mut impl Sql,
    query: &DecisionQuery,
) -> Done<Page<DecisionBatch>> {
    select_decisions(query).bodies(db, query.page).await
}

pub(crate) fn select_decisions(query: &DecisionQuery) -> Select {
    Select::new("SELECT id, body FROM decisions", "id", &query.tenant)
        .text("event", query.event.as_ref().map(|event| event.as_str()))
        .text("attempt", query.attempt.as_ref().map(|attempt| attempt.as_str()))
}

pub(crate) async fn runs(db: &mut impl Sql, query: &RunQuery) -> Done<Page<Run>> {
    fetch(page_of_runs(query), db, query.page, |row| parse(row.try_get(1)?)).await
}

pub(crate) async fn count_runs(db: &mut impl Sql, query: &RunQuery, most: u32) -> Done<u32> {
    select_count_of_runs(query, most).answer(db).await
}

pub(crate) fn select_count_of_runs(query: &RunQuery, most: u32) -> Query {
    let counted = Select::new("SELECT count(*) FROM (SELECT 1 FROM runs", "id", &query.tenant);
    narrow_runs(counted, query).sql.push_bind(" LIMIT ", most).push(") AS found")
}

/// The statement of a page of runs, with one row more than is on it. Runs are in the order in which
/// they were planned, so that an index leads to a time as it leads to anything else.
pub(crate) fn page_of_runs(query: &RunQuery) -> Query {
    let mut states = query.states.clone();
    states.sort_unstable();
    states.dedup();
    match states.as_slice() {
        [] => runs_in_order(super::query(""), query),
        [one] => runs_in_order(super::query(""), &query.clone().states(vec![*one])),
        // Each state is a part of the index of its own.
        states => {
            let mut sql = super::query("SELECT id, body FROM (");
            for (index, state) in states.iter().enumerate() {
                let of_state = query.clone().states(vec![*state]);
                let before = if index == 0 { "" } else { " UNION ALL " };
                sql = runs_in_order(sql.push(before).push("SELECT * FROM ("), &of_state);
                sql = sql.push(&format!(") AS part{index}"));
            }
            let rows = query.page.rows() as i64 + 1;
            sql.push(") AS parts").push_bind(" ORDER BY created_at DESC, id DESC LIMIT ", rows)
        }
    }
}

fn runs_in_order(text: Query, query: &RunQuery) -> Query {
    let columns = "SELECT id, body, created_at FROM runs";
    let mut narrowed = narrow_runs(Select::behind(text, columns, "id", &query.tenant), query).sql;
    if let Some(after) = query.page.after {
        // A run that was removed meanwhile was planned when the one before it was, or later.
        let planned = "(SELECT created_at FROM runs WHERE id <= ";
        let last = " ORDER BY id DESC LIMIT 1)";
        narrowed = narrowed
            .push_bind(&format!(" AND created_at <= {planned}"), after)
            .push_bind(&format!("{last} AND (created_at, id) < ({planned}"), after)
            .push_bind(&format!("{last}, "), after)
            .push(")");
    }
    let rows = query.page.rows() as i64 + 1;
    narrowed.push_bind(" ORDER BY created_at DESC, id DESC LIMIT ", rows)
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
        let repo = workflow.repo.as_ref().map(|repo| repo.as_str());
        select = select.and("workflow_repo IS NOT DISTINCT FROM ", repo);
    }
    if let Some((first, others)) = query.states.split_first() {
        select = select.and("state IN (", first.as_str());
        for state in others {
            select.sql = select.sql.push_bind(", ", state.as_str());
        }
        select.sql = select.sql.push(")");
    }
    select
}

pub(crate) async fn statuses(db: &mut impl Sql, query: &StatusQuery) -> Done<Page<StatusRecord>> {
    select_statuses(query).bodies(db, query.page).await
}

pub(crate) fn select_statuses(query: &StatusQuery) -> Select {
    Select::new("SELECT id, body FROM statuses", "id", &query.tenant)
        .text("repo", query.repo.as_ref().map(|repo| repo.as_str()))
        .text("commit_id", query.commit.as_ref().map(|commit| commit.as_str()))
}

pub(crate) async fn notifications(
    db: &mut impl Sql,
    query: &DeliveryQuery,
) -> Done<Page<OutboxNotification>> {
    select_notifications(query).bodies(db, query.page).await
}

pub(crate) fn select_notifications(query: &DeliveryQuery) -> Select {
    Select::new("SELECT id, body FROM notifications", "id", &query.tenant)
        .text("run", query.run.as_ref().map(|run| run.as_str()))
        .text("state", query.state.map(state_name))
}
