//! The queries of the archive, for tests that look at how a database plans them.

use super::{
    Query,
    pages::{
        page_of_runs, select_decisions, select_events, select_notifications, select_observations,
        select_statuses,
    },
};
use crate::{
    RunState, Tenant, WorkflowId,
    event::SubjectKey,
    store::{
        DecisionQuery, DeliveryQuery, EventQuery, NotificationState, ObservationQuery, PageRequest,
        RunQuery, StatusQuery,
    },
};

/// One for each way of narrowing, by name: `<what>`, or `<what> by <column>`.
pub(crate) fn archive_queries() -> Vec<(&'static str, Query)> {
    let tenant = Tenant::default;
    let subject = || Some(SubjectKey::reference("refs/heads/main"));
    let commit = "a".repeat(40).parse().ok();
    let now = Some(jiff::Timestamp::UNIX_EPOCH);
    let runs = || RunQuery::of(tenant());
    let events = || EventQuery::of(tenant());
    vec![
        (
            "observations",
            select_observations(&ObservationQuery::of(tenant())).page(PageRequest::default()),
        ),
        ("events", select_events(&events()).page(PageRequest::default())),
        (
            "events by repo",
            select_events(&events().repo(Some("r".into()))).page(PageRequest::default()),
        ),
        (
            "events by commit",
            select_events(&events().commit(commit.clone())).page(PageRequest::default()),
        ),
        (
            "events by pull request",
            select_events(&events().pull_request(Some(7))).page(PageRequest::default()),
        ),
        ("decisions", select_decisions(&DecisionQuery::of(tenant())).page(PageRequest::default())),
        (
            "decisions by event",
            select_decisions(&DecisionQuery::of(tenant()).event(Some("e".into())))
                .page(PageRequest::default()),
        ),
        ("runs", page_of_runs(&runs())),
        ("runs by repo", page_of_runs(&runs().repo(Some("r".into())))),
        ("runs by repo_name", page_of_runs(&runs().repo_name(Some("r".into())))),
        ("runs by workflow", page_of_runs(&runs().workflow(Some(WorkflowId::registered("ci"))))),
        ("runs by commit", page_of_runs(&runs().commit(commit.clone()))),
        ("runs by pull_request", page_of_runs(&runs().pull_request(Some(7)))),
        ("runs by state", page_of_runs(&runs().states(vec![RunState::Queued]))),
        ("runs by states", page_of_runs(&runs().states(vec![RunState::Planned, RunState::Queued]))),
        (
            "runs by workflow and state",
            page_of_runs(
                &runs().workflow(Some(WorkflowId::registered("ci"))).states(vec![RunState::Queued]),
            ),
        ),
        (
            "runs by a page behind",
            page_of_runs(&runs().page(PageRequest { after: Some(7), limit: 100 })),
        ),
        ("runs by subject", page_of_runs(&runs().subject(subject()))),
        ("runs by event", page_of_runs(&runs().event(Some("e".into())))),
        ("runs by trigger", page_of_runs(&runs().trigger(Some("nightly".into())))),
        ("runs by time since", page_of_runs(&runs().since(now))),
        ("runs by time until", page_of_runs(&runs().until(now))),
        ("runs by time", page_of_runs(&runs().since(now).until(now))),
        ("statuses", select_statuses(&StatusQuery::of(tenant())).page(PageRequest::default())),
        (
            "statuses by commit",
            select_statuses(&StatusQuery::of(tenant()).commit(commit)).page(PageRequest::default()),
        ),
        (
            "notifications",
            select_notifications(&DeliveryQuery::of(tenant())).page(PageRequest::default()),
        ),
        (
            "notifications by state",
            select_notifications(&DeliveryQuery::of(tenant()).state(Some(NotificationState::Dead)))
                .page(PageRequest::default()),
        ),
    ]
}
