//! Which rows a query asks for.

use std::collections::BTreeMap;

use crate::{
    Event, Run,
    store::{
        DecisionBatch, DecisionQuery, DeliveryQuery, EventQuery, ObservationQuery,
        OutboxNotification, Page, PageRequest, RecordedObservation, RunQuery, StatusQuery,
        StatusRecord,
    },
};

pub(super) fn page<T: Clone>(
    rows: &BTreeMap<i64, T>,
    request: PageRequest,
    keep: impl Fn(&T) -> bool,
) -> Page<T> {
    let limit = request.rows();
    let mut found = rows
        .range(..request.after.unwrap_or(i64::MAX))
        .rev()
        .filter(|(_, row)| keep(row))
        .map(|(id, row)| (*id, row));
    let mut page = Page::default();
    let mut last = None;
    for (id, row) in found.by_ref().take(limit) {
        page.items.push(row.clone());
        last = Some(id);
    }
    page.next = found.next().and(last);
    page
}

/// Runs, in the order in which they were planned.
pub(super) fn page_of_runs(rows: &BTreeMap<i64, Run>, query: &RunQuery) -> Page<Run> {
    let after = query.page.after.map(|after| {
        let planned = rows.range(..=after).next_back().map(|(_, run)| run.created_at);
        (planned, after)
    });
    let mut found: Vec<_> = rows
        .iter()
        .map(|(id, run)| ((Some(run.created_at), *id), run))
        .filter(|(place, row)| after.is_none_or(|after| *place < after) && run(query, row))
        .collect();
    found.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
    let limit = query.page.rows();
    let next = (found.len() > limit).then(|| found[limit - 1].0.1);
    let items = found.into_iter().take(limit).map(|(_, run)| run.clone()).collect();
    Page { items, next }
}

/// Whether a narrowing is absent, or the value is the one asked for.
fn is<T: PartialEq<U> + ?Sized, U: ?Sized>(wanted: Option<&U>, value: &T) -> bool {
    wanted.is_none_or(|wanted| value == wanted)
}

pub(super) fn observation(query: &ObservationQuery, row: &RecordedObservation) -> bool {
    row.tenant == query.tenant
        && is(query.repo.as_ref(), &row.repo.id)
        && query.since.is_none_or(|since| row.received_at >= since)
}

pub(super) fn event(query: &EventQuery, row: &Event) -> bool {
    let commit = row.head.as_ref().map(|head| &head.sha);
    let pull_request = row.pull_request.as_ref().map(|pull_request| pull_request.number);
    row.tenant == query.tenant
        && is(query.repo.as_ref(), &row.repo.id)
        && is(query.kind.as_ref(), &row.kind)
        && query.commit.as_ref().is_none_or(|wanted| commit == Some(wanted))
        && query.pull_request.is_none_or(|wanted| pull_request == Some(wanted))
        && is(query.subject.as_ref(), &row.subject)
        && query.since.is_none_or(|since| row.received_at >= since)
        && query.until.is_none_or(|until| row.received_at < until)
}

pub(super) fn decision(query: &DecisionQuery, row: &DecisionBatch) -> bool {
    row.tenant == query.tenant
        && is(query.event.as_ref(), &row.event)
        && is(query.attempt.as_ref(), &row.attempt)
}

pub(super) fn run(query: &RunQuery, row: &Run) -> bool {
    row.tenant == query.tenant
        && is(query.repo.as_ref(), &row.repo.id)
        && is(query.repo_name.as_deref(), &*row.repo.name)
        && is(query.workflow.as_ref(), &row.workflow)
        && is(query.workflow_name.as_deref(), &*row.workflow.name)
        && is(query.trigger.as_deref(), &*row.trigger)
        && query.pull_request.is_none_or(|wanted| row.pull_request == Some(wanted))
        && query.commit.as_ref().is_none_or(|wanted| row.commit.as_ref() == Some(wanted))
        && is(query.subject.as_ref(), &row.subject)
        && is(query.event.as_ref(), &row.event)
        && (query.states.is_empty() || query.states.contains(&row.state))
        && query.since.is_none_or(|since| row.created_at >= since)
        && query.until.is_none_or(|until| row.created_at < until)
}

pub(super) fn status(query: &StatusQuery, row: &StatusRecord) -> bool {
    let key = &row.desire.key;
    key.tenant == query.tenant
        && is(query.repo.as_ref(), &key.repo.id)
        && is(query.commit.as_ref(), &key.commit)
}

pub(super) fn notification(query: &DeliveryQuery, row: &OutboxNotification) -> bool {
    row.tenant == query.tenant
        && is(query.run.as_ref(), &row.run)
        && is(query.state.as_ref(), &row.state)
}
