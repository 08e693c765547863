//! Lists: their pages, and what narrows them.

use jiff::SignedDuration;

use super::ledger::{
    Fixture, Ledger, MAIN, Outcome, occurrence, other_tenant, planned, pull_request, pulled, push,
    repo, runs, sha, tenant, zero,
};
use crate::{
    EventKind, Run, RunState, WorkflowId,
    conformance::case::{expect, expect_eq},
    event::{PullRequestState, SubjectKey},
    store::{EventQuery, ObservationQuery, PageRequest, RunQuery},
};

pub(super) async fn pages_are_stable_while_more_comes_in(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    for number in 0..5 {
        ledger.event(occurrence(&number.to_string())).await?;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = PageRequest { limit: 2, after };
        let found = ledger.store.events(EventQuery::of(tenant()).page(page)).await?;
        seen.extend(found.items.into_iter().map(|event| event.sequence));
        ledger.event(occurrence(&format!("later {}", seen.len()))).await?;
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    expect_eq("what was seen, newest first", &seen, &vec![5, 4, 3, 2, 1])?;
    // No page is without an end, and none is empty.
    let told = (0..1_100).map(|number| occurrence(&format!("many {number}"))).collect();
    ledger.store.admit(told, None).await?;
    for (limit, expected) in [(0, 1), (5_000, 1_000)] {
        let page = PageRequest { limit, after: None };
        let found = ledger.store.events(EventQuery::of(tenant()).page(page)).await?;
        expect_eq(&format!("events with a limit of {limit}"), &found.items.len(), &expected)?;
        expect(found.next.is_some(), || "there is no next page".into())?;
    }
    Ok(())
}

pub(super) async fn runs_are_found_by_everything_that_a_query_narrows_by(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let now = ledger.now();
    let base = planned("base", "e", 1, now);
    let varied: Vec<(&str, Run, RunQuery)> = {
        let all = || RunQuery::of(tenant());
        let vary = |name: &str, change: &dyn Fn(&mut Run)| {
            let mut run = planned(name, "e", 1, now);
            change(&mut run);
            run
        };
        let elsewhere = WorkflowId::in_repository("web".into(), "ci");
        let later = now + SignedDuration::from_secs(60);
        let earlier = now - SignedDuration::from_secs(60);
        vec![
            ("repo", vary("repo", &|run| run.repo = repo("web")), all().repo(Some("web".into()))),
            (
                "repo_name",
                vary("repo_name", &|run| run.repo.name = "acme/renamed".into()),
                all().repo_name(Some("acme/renamed".into())),
            ),
            (
                "workflow",
                vary("workflow", &|run| run.workflow = elsewhere.clone()),
                all().workflow(Some(elsewhere.clone())),
            ),
            (
                "workflow_name",
                vary("workflow_name", &|run| run.workflow = WorkflowId::registered("deploy")),
                all().workflow_name(Some("deploy".into())),
            ),
            (
                "trigger",
                vary("trigger", &|run| run.trigger = "nightly".into()),
                all().trigger(Some("nightly".into())),
            ),
            (
                "pull_request",
                vary("pull_request", &|run| run.pull_request = Some(7)),
                all().pull_request(Some(7)),
            ),
            ("commit", vary("commit", &|run| run.commit = sha('f')), all().commit(sha('f'))),
            (
                "subject",
                vary("subject", &|run| run.subject = SubjectKey::pull_request(7)),
                all().subject(Some(SubjectKey::pull_request(7))),
            ),
            (
                "event",
                vary("event", &|run| run.event = "another".into()),
                all().event(Some("another".into())),
            ),
            (
                "states",
                vary("states", &|run| run.state = RunState::Failed),
                all().states(vec![RunState::Failed, RunState::TimedOut]),
            ),
            ("since", vary("since", &|run| run.created_at = later), all().since(Some(later))),
            ("until", vary("until", &|run| run.created_at = earlier), all().until(Some(now))),
        ]
    };
    let mut created: Vec<Run> = varied.iter().map(|(_, run, _)| run.clone()).collect();
    created.push(base);
    let count = created.len();
    ledger.commit(runs(created)).await?;
    let all = ledger.store.runs(RunQuery::of(tenant())).await?.items;
    expect_eq("runs without a narrowing", &all.len(), &count)?;
    for (name, run, query) in varied {
        let counted = ledger.store.count_runs(query.clone(), 100).await?;
        expect_eq(&format!("the count of runs by {name}"), &counted, &1)?;
        let found = ledger.store.runs(query).await?.items;
        let keys: Vec<_> = found.iter().map(|run| &run.key).collect();
        expect_eq(&format!("runs by {name}"), &keys, &vec![&run.key])?;
    }
    // A workflow that is registered is not one of that name in a repository.
    let registered = RunQuery::of(tenant()).workflow(Some(WorkflowId::registered("ci")));
    let found = ledger.store.runs(registered).await?.items;
    expect_eq("runs of the registered workflow", &found.len(), &(count - 2))
}

pub(super) async fn runs_are_listed_in_the_order_in_which_they_were_planned(
    fixture: Fixture,
) -> Outcome {
    const STATES: [RunState; 3] = [RunState::Planned, RunState::Queued, RunState::Succeeded];
    let ledger = Ledger::open(fixture).await;
    let start = ledger.now();
    let mut expected = Vec::new();
    for number in 0..30_usize {
        // Engines whose clocks differ, and instants that several share.
        let second = (number as i64 * 7) % 11;
        let at = start + SignedDuration::from_secs(second);
        let state = STATES[number % STATES.len()];
        let run = Run { state, ..planned(&format!("run {number}"), "e", 1, at) };
        expected.push(((second, number), run.key.clone(), state));
        ledger.commit(runs(vec![run])).await?;
    }
    expected.sort_by_key(|(place, _, _)| std::cmp::Reverse(*place));
    // A state that is named twice is named once.
    let twice = [RunState::Succeeded, RunState::Queued, RunState::Succeeded];
    let once = [RunState::Queued];
    for states in [&[], &once[..], &once.repeat(2), &STATES[..2], &STATES, &twice] {
        let states = states.to_vec();
        let wanted: Vec<_> = expected
            .iter()
            .filter(|(_, _, state)| states.is_empty() || states.contains(state))
            .map(|(_, key, _)| key.clone())
            .collect();
        let mut listed = Vec::new();
        let mut page = PageRequest { limit: 4, after: None };
        loop {
            let query = RunQuery::of(tenant()).states(states.clone()).page(page);
            let found = ledger.store.runs(query).await?;
            listed.extend(found.items.into_iter().map(|run| run.key));
            page.after = found.next;
            if page.after.is_none() {
                break;
            }
        }
        expect_eq(&format!("runs in {states:?}, newest first"), &listed, &wanted)?;
    }
    Ok(())
}

pub(super) async fn counting_runs_stops_where_it_is_told(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let waiting = |number: i32| Run {
        state: if number % 2 == 0 { RunState::Planned } else { RunState::Queued },
        ..planned(&format!("waiting {number}"), "e", 1, ledger.now())
    };
    let ended = Run { state: RunState::Succeeded, ..planned("ended", "e", 1, ledger.now()) };
    let theirs = Run { tenant: other_tenant(), ..waiting(100) };
    let all = (0..7).map(waiting).chain([ended, theirs]).collect();
    ledger.commit(runs(all)).await?;
    let query = || RunQuery::of(tenant()).states(vec![RunState::Planned, RunState::Queued]);
    for (most, expected) in [(100, 7), (7, 7), (6, 6), (1, 1), (0, 0)] {
        let counted = ledger.store.count_runs(query(), most).await?;
        expect_eq(&format!("runs that wait, counted to {most}"), &counted, &expected)?;
    }
    let page = PageRequest { limit: 2, after: Some(1) };
    let counted = ledger.store.count_runs(query().page(page), 100).await?;
    expect_eq("runs that wait, with a page asked for", &counted, &7)?;
    let counted = ledger.store.count_runs(RunQuery::of(tenant()), 100).await?;
    expect_eq("all runs", &counted, &8)
}

pub(super) async fn events_are_found_by_everything_that_a_query_narrows_by(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let start = ledger.now();
    let base = ledger.event(push("1", None, sha('a'))).await?;
    ledger.advance(10);
    let mut elsewhere = push("2", None, sha('b'));
    elsewhere.repo = repo("web");
    let elsewhere = ledger.event(elsewhere).await?;
    ledger.advance(10);
    let mut pull = pull_request(7, PullRequestState::Open, ledger.now());
    pull.head.sha = sha('c').unwrap_or_else(zero);
    let pull = ledger.event(pulled("3", pull)).await?;
    let all = || EventQuery::of(tenant());
    let at = |seconds| Some(start + SignedDuration::from_secs(seconds));
    let queries = [
        ("repo", all().repo(Some("web".into())), vec![&elsewhere]),
        ("kind", all().kind(Some(EventKind::PULL_REQUEST)), vec![&pull]),
        ("commit", all().commit(sha('c')), vec![&pull]),
        ("pull_request", all().pull_request(Some(7)), vec![&pull]),
        ("subject", all().subject(Some(SubjectKey::reference(MAIN))), vec![&elsewhere, &base]),
        ("since", all().since(at(10)), vec![&pull, &elsewhere]),
        ("until", all().until(at(10)), vec![&base]),
        ("two", all().repo(Some("api".into())).kind(Some(EventKind::PUSH)), vec![&base]),
    ];
    for (name, query, expected) in queries {
        let found = ledger.store.events(query).await?.items;
        expect_eq(&format!("events by {name}"), &found.iter().collect::<Vec<_>>(), &expected)?;
    }
    let query = ObservationQuery::of(tenant()).since(at(20));
    expect_eq("late observations", &ledger.store.observations(query).await?.items.len(), &1)?;
    let query = ObservationQuery::of(tenant()).repo(Some("web".into()));
    expect_eq(
        "observations of one repository",
        &ledger.store.observations(query).await?.items.len(),
        &1,
    )
}
