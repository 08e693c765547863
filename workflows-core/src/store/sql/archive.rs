//! The queries of the archive, for tests that look at how a database plans them.

use super::{
    Query,
    pages::{
        select_decisions, select_events, select_notifications, select_observations, select_runs,
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
    let selects = vec![
        ("observations", select_observations(&ObservationQuery::of(tenant()))),
        ("events", select_events(&events())),
        ("events by repo", select_events(&events().repo(Some("r".into())))),
        ("events by commit", select_events(&events().commit(commit.clone()))),
        ("events by pull request", select_events(&events().pull_request(Some(7)))),
        ("decisions", select_decisions(&DecisionQuery::of(tenant()))),
        (
            "decisions by event",
            select_decisions(&DecisionQuery::of(tenant()).event(Some("e".into()))),
        ),
        ("runs", select_runs(&runs())),
        ("runs by repo", select_runs(&runs().repo(Some("r".into())))),
        ("runs by repo_name", select_runs(&runs().repo_name(Some("r".into())))),
        ("runs by workflow", select_runs(&runs().workflow(Some(WorkflowId::registered("ci"))))),
        ("runs by commit", select_runs(&runs().commit(commit.clone()))),
        ("runs by pull_request", select_runs(&runs().pull_request(Some(7)))),
        ("runs by state", select_runs(&runs().states(vec![RunState::Queued]))),
        ("runs by subject", select_runs(&runs().subject(subject()))),
        ("runs by event", select_runs(&runs().event(Some("e".into())))),
        ("runs by trigger", select_runs(&runs().trigger(Some("nightly".into())))),
        ("runs by time since", select_runs(&runs().since(now))),
        ("runs by time until", select_runs(&runs().until(now))),
        ("runs by time", select_runs(&runs().since(now).until(now))),
        ("statuses", select_statuses(&StatusQuery::of(tenant()))),
        ("statuses by commit", select_statuses(&StatusQuery::of(tenant()).commit(commit))),
        ("notifications", select_notifications(&DeliveryQuery::of(tenant()))),
        (
            "notifications by state",
            select_notifications(&DeliveryQuery::of(tenant()).state(Some(NotificationState::Dead))),
        ),
    ];
    selects.into_iter().map(|(name, select)| (name, select.page(PageRequest::default()))).collect()
}
