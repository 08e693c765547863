//! Taking observations in: what is news, what a duplicate, and what is refused.

use bytes::Bytes;
use jiff::SignedDuration;

use super::ledger::{
    Fixture, Ledger, MAIN, Outcome, at_ref, baseline, occurrence, on, other_tenant, pull_request,
    pulled, push, read, sha, tenant,
};
use crate::{
    ErrorKind, EventKind, SubjectClaim,
    conformance::case::{Failure, expect, expect_eq, expect_kind},
    event::{
        Before, LabelClaim, NothingClaim, Occurrence, Payload, PullRequestState, Seen, SubjectKey,
    },
    store::{
        Admitted, CursorMove, Effects, ObservationQuery, PageRequest, Stage, StoreLimits,
        SubjectCorrection, WorkKey,
    },
};

pub(super) async fn news_makes_an_event_and_work_for_it(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let body = Bytes::from_static(b"{\"ref\":\"refs/heads/main\"}");
    let payload = Payload::new([("X-GitHub-Event", "push"), ("Authorization", "s3cret")], body);
    let told = push("1", None, sha('a')).by("ada").with_payload(payload.clone());
    let event = ledger.event(told).await?;

    let key = format!("default/api/{MAIN}/{}/1", "a".repeat(40));
    expect_eq("the event's key", &event.key.as_str(), &key.as_str())?;
    expect_eq("its kind", &event.kind, &EventKind::PUSH)?;
    expect_eq("its time", &event.received_at, &ledger.now())?;
    let kept = ledger.store.event(&tenant(), &event.key).await?;
    expect_eq("the event as it is kept", &kept.as_ref(), &Some(&event))?;
    let id = event.payload.ok_or_else(|| Failure::new("the event has no payload"))?;
    let stored = ledger.store.payload(&tenant(), id).await?;
    expect_eq("its payload", &stored, &Some(payload))?;
    expect_eq("another tenant's", &ledger.store.payload(&other_tenant(), id).await?, &None)?;

    let claim = ledger.claim_one(Stage::Match).await?;
    expect_eq("the work", &claim.work.key, &WorkKey::event(event.key.clone()))?;
    expect_eq("attempts at it", &claim.attempts, &1)?;
    expect_eq("due since", &claim.since, &ledger.now())?;
    let seen = ledger.store.observations(ObservationQuery::of(tenant())).await?.items;
    expect_eq("observations", &seen.len(), &1)?;
    expect_eq(
        "the observation's event",
        &seen.first().and_then(|one| one.event.clone()),
        &Some(event.key),
    )
}

pub(super) async fn a_delivery_that_was_seen_is_a_duplicate_whatever_it_claims(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(push("1", None, sha('a'))).await?;
    ledger.duplicate(push("1", sha('a'), sha('b'))).await?;
    let mut elsewhere = push("1", sha('a'), sha('b'));
    elsewhere.source = "delivery-log".into();
    ledger.event(elsewhere).await?;

    // One delivery may tell of several subjects.
    let tag = || on("2", Seen::Told, at_ref("refs/tags/v1", Before::Was(None), sha('c')));
    let branch = push("2", sha('b'), sha('c'));
    let admitted = ledger.store.admit(vec![branch, tag(), tag()], None).await?;
    let events = admitted.iter().filter(|one| one.event().is_some()).count();
    expect_eq("events of one delivery about two subjects", &events, &2)?;
    let recorded = ledger.store.observations(ObservationQuery::of(tenant())).await?.items;
    expect_eq("observations on record", &recorded.len(), &6)?;
    let duplicates = recorded.iter().filter(|one| one.duplicate.is_some()).count();
    expect_eq("duplicates on record", &duplicates, &2)
}

pub(super) async fn one_fact_is_one_event_in_whatever_order_it_is_told(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let orders: [[usize; 4]; 6] =
        [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2], [2, 3, 1, 0], [3, 0, 2, 1]];
    for (number, order) in orders.into_iter().enumerate() {
        let name = format!("refs/heads/branch-{number}");
        let as_of = ledger.store.position().await?;
        let tell = |source: &str, delivery: &str, seen, before| {
            let mut told =
                on(&format!("{delivery}-{number}"), seen, at_ref(&name, before, sha('a')));
            told.source = source.into();
            told
        };
        let was = || Before::Was(None);
        let ways = [
            tell("webhook", "1", Seen::Told, was()),
            tell("webhook", "1", Seen::Told, was()),
            tell("delivery-log", "1", Seen::Told, was()),
            tell("poll", "2", Seen::Read { as_of }, Before::Unknown),
        ];
        let mut events = 0;
        for way in order.into_iter().filter_map(|way| ways.get(way)) {
            events += usize::from(ledger.admit_one(way.clone()).await?.event().is_some());
        }
        expect_eq(&format!("events of one fact, told in the order {order:?}"), &events, &1)?;
    }
    Ok(())
}

pub(super) async fn a_branch_that_moves_there_and_back_makes_an_event_each_time(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let keys = [
        ledger.event(push("1", None, sha('a'))).await?.key,
        ledger.event(push("2", sha('a'), sha('b'))).await?.key,
        ledger.event(push("3", sha('b'), sha('a'))).await?.key,
        ledger.event(push("4", sha('a'), None)).await?.key,
        ledger.event(push("5", None, sha('a'))).await?.key,
    ];
    let ends: Vec<&str> = keys.iter().filter_map(|key| key.as_str().rsplit('/').next()).collect();
    expect_eq("k of a, b, a, gone, a", &ends, &vec!["1", "1", "2", "1", "3"])?;

    // The same in one set.
    let admitted = ledger
        .store
        .admit(vec![push("6", sha('a'), sha('b')), push("7", sha('b'), sha('a'))], None)
        .await?;
    let ends: Vec<_> = admitted
        .iter()
        .filter_map(|one| one.event()?.key.as_str().rsplit('/').next().map(str::to_owned))
        .collect();
    expect_eq("k of b, a in one set", &ends, &vec!["2".to_owned(), "4".to_owned()])?;
    let main = SubjectKey::reference(MAIN);
    let arrivals = ledger.store.arrivals(&tenant(), &"api".into(), &main, ledger.now(), 3).await?;
    let states: Vec<char> = arrivals.iter().filter_map(|one| one.state.chars().next()).collect();
    expect_eq("the last three arrivals, newest first", &states, &vec!['a', 'b', 'a'])
}

pub(super) async fn a_push_that_was_overtaken_is_a_duplicate(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(push("1", None, sha('a'))).await?;
    let gap = ledger.event(push("3", sha('b'), sha('c'))).await?;
    expect(gap.unchained, || "an event behind a gap is not marked as unchained".into())?;
    ledger.duplicate(push("2", sha('a'), sha('b'))).await?;
    let subjects = ledger.store.subjects(&tenant(), &"api".into(), "refs/heads/").await?;
    let state = subjects.first().and_then(|(_, one)| one.state.chars().next());
    expect_eq("where the branch stands", &state, &Some('c'))?;
    // In one set as well: the gap and what fills it.
    let admitted = ledger
        .store
        .admit(vec![push("5", sha('d'), sha('e')), push("4", sha('c'), sha('d'))], None)
        .await?;
    expect_eq(
        "events of a gap and what fills it",
        &admitted.iter().filter(|one| one.event().is_some()).count(),
        &1,
    )?;
    // What was only passed has not been arrived at.
    let event = ledger.event(push("6", sha('e'), sha('d'))).await?;
    expect(event.key.as_str().ends_with("/1"), || format!("passing counted: {}", event.key))
}

pub(super) async fn a_baseline_makes_no_event_and_counts_as_an_arrival(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let admitted = ledger.admit_one(baseline("1", 0, sha('a'))).await?;
    expect_eq("a first reading", &admitted, &Admitted::Baseline)?;
    ledger.no_claim(Stage::Match).await?;
    expect_eq("the position", &ledger.store.position().await?, &1)?;
    ledger.duplicate(push("2", None, sha('a'))).await?;
    ledger.event(push("3", sha('a'), sha('b'))).await?;
    let back = ledger.event(push("4", sha('b'), sha('a'))).await?;
    expect(back.key.as_str().ends_with("/2"), || format!("k should be 2 in {}", back.key))?;
    let main = SubjectKey::reference(MAIN);
    let arrivals = ledger.store.arrivals(&tenant(), &"api".into(), &main, ledger.now(), 10).await?;
    let baselines: Vec<bool> = arrivals.iter().map(|one| one.baseline).collect();
    expect_eq("which arrivals are baselines", &baselines, &vec![false, false, true])
}

pub(super) async fn what_was_read_before_the_ledger_moved_on_is_dropped(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(push("1", None, sha('a'))).await?;
    let as_of = ledger.store.position().await?;
    ledger.event(push("2", sha('a'), sha('b'))).await?;
    ledger.duplicate(read("3", as_of, sha('a'))).await?;
    let as_of = ledger.store.position().await?;
    ledger.event(read("4", as_of, sha('c'))).await.map(|_| ())
}

pub(super) async fn a_pull_request_that_closes_and_reopens_makes_an_event_each_time(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let at = |seconds| ledger.now() + SignedDuration::from_secs(seconds);
    let (open, closed) = (PullRequestState::Open, PullRequestState::Closed);
    let first = ledger.event(pulled("1", pull_request(7, open, at(0)))).await?;
    let second = ledger.event(pulled("2", pull_request(7, closed, at(1)))).await?;
    let third = ledger.event(pulled("3", pull_request(7, open, at(2)))).await?;
    let actions: Vec<_> = [&first, &second, &third]
        .into_iter()
        .filter_map(|event| event.actions.first().map(|action| action.to_string()))
        .collect();
    expect_eq(
        "what was done",
        &actions,
        &["opened", "closed", "reopened"].map(str::to_owned).to_vec(),
    )?;
    expect(first.key != third.key, || "opened and reopened have one key".into())?;

    let labelled = |delivery: &str, present, seconds| {
        let claim = LabelClaim {
            pull_request: pull_request(7, open, at(seconds)),
            label: "bench".into(),
            present,
        };
        on(delivery, Seen::Told, SubjectClaim::Label(Box::new(claim)))
    };
    let first = ledger.event(labelled("4", true, 3)).await?;
    ledger.event(labelled("5", false, 4)).await?;
    let again = ledger.event(labelled("6", true, 5)).await?;
    expect(first.key != again.key, || "a label that came again has the key of the first".into())
}

pub(super) async fn what_the_host_said_before_what_is_recorded_is_a_duplicate(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let at = |seconds| ledger.now() + SignedDuration::from_secs(seconds);
    let (open, closed) = (PullRequestState::Open, PullRequestState::Closed);
    ledger.event(pulled("1", pull_request(7, open, at(0)))).await?;
    // Nothing new, but a later word of it.
    ledger.duplicate(pulled("2", pull_request(7, open, at(10)))).await?;
    ledger.duplicate(pulled("3", pull_request(7, closed, at(5)))).await?;
    ledger.event(pulled("4", pull_request(7, closed, at(11)))).await.map(|_| ())
}

pub(super) async fn an_occurrence_happens_once(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("slot-1")).await?;
    let mut again = occurrence("slot-1");
    again.delivery = "another delivery".into();
    ledger.duplicate(again).await
}

pub(super) async fn what_is_of_no_interest_is_recorded_and_makes_no_event(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let nothing = |delivery: &str| {
        let reason = "no workflow can wait for it".to_owned();
        let claim = NothingClaim { what: "star.created".into(), reason };
        on(delivery, Seen::Told, SubjectClaim::Nothing(Box::new(claim)))
    };
    for delivery in ["1", "2", "1"] {
        ledger.duplicate(nothing(delivery)).await?;
    }
    let recorded = ledger.store.observations(ObservationQuery::of(tenant())).await?.items;
    let said: Vec<_> = recorded
        .iter()
        .map(|one| (one.delivery.as_str(), one.subject.as_str(), one.duplicate.as_deref()))
        .collect();
    let first = |delivery| (delivery, "nothing/star.created", Some("no workflow can wait for it"));
    expect_eq("newest but one", &said.get(1), &Some(&first("2")))?;
    expect_eq("oldest", &said.get(2), &Some(&first("1")))?;
    expect_eq("the repeated one", &said.first().map(|one| one.0), &Some("1"))?;
    expect_eq("subjects", &ledger.store.subjects(&tenant(), &"api".into(), "").await?.len(), &0)?;
    expect_eq("the position", &ledger.store.position().await?, &0)
}

pub(super) async fn admission_moves_the_cursor_or_takes_nothing_in(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let cursor = |from: Option<&str>, to: &str| {
        let (from, to) = (from.map(str::to_owned), to.to_owned());
        Some(CursorMove { tenant: tenant(), name: "poll".into(), from, to })
    };
    ledger.store.admit(vec![push("1", None, sha('a'))], cursor(None, "1")).await?;
    let wrong = ledger.store.admit(vec![push("2", sha('a'), sha('b'))], cursor(None, "2")).await;
    expect_kind("a move from elsewhere", wrong, ErrorKind::Conflict)?;
    let kept = ledger.store.cursor(&tenant(), "poll").await?;
    expect_eq("the cursor", &kept.as_deref(), &Some("1"))?;
    expect_eq("the position", &ledger.store.position().await?, &1)?;
    expect_eq("another tenant's", &ledger.store.cursor(&other_tenant(), "poll").await?, &None)?;

    // Several at once: one wins, and what loses takes nothing in.
    let moves = (0..8).map(|number| {
        let told = occurrence(&format!("poll {number}"));
        ledger.store.admit(vec![told], cursor(Some("1"), &format!("2 by {number}")))
    });
    let results = futures::future::join_all(moves).await;
    expect_eq("moves that went through", &results.iter().filter(|one| one.is_ok()).count(), &1)?;
    expect_eq("the position", &ledger.store.position().await?, &2)
}

pub(super) async fn a_payload_over_the_limit_is_refused_by_the_limits_name(
    fixture: Fixture,
) -> Outcome {
    let limits = StoreLimits::default().max_payload_bytes(10).max_claim_bytes(2_000);
    let ledger = Ledger::with_limits(fixture, limits).await;
    let with = |bytes: usize| {
        let payload = Payload::new([("", ""); 0], Bytes::from(vec![b'x'; bytes]));
        push("1", None, sha('a')).with_payload(payload)
    };
    let Err(error) = ledger.store.admit(vec![occurrence("before"), with(11)], None).await else {
        return Err(Failure::new("a payload of 11 bytes was taken in with a limit of 10"));
    };
    expect_eq("the error's kind", &error.kind(), &ErrorKind::Invalid)?;
    expect(error.to_string().contains("max_payload_bytes"), || {
        format!("the error does not name the limit: {error}")
    })?;
    expect_eq("the position", &ledger.store.position().await?, &0)?;
    ledger.event(with(10)).await?;
    let long = Occurrence::new(EventKind::MANUAL, "x".repeat(3_000));
    let long = on("2", Seen::Told, SubjectClaim::Occurrence(Box::new(long)));
    expect_kind("a long claim", ledger.store.admit(vec![long], None).await, ErrorKind::Invalid)
}

pub(super) async fn the_oldest_payloads_of_a_tenant_go_when_it_has_too_many_bytes(
    fixture: Fixture,
) -> Outcome {
    let limits = StoreLimits::default().max_stored_payload_bytes(100);
    let ledger = Ledger::with_limits(fixture, limits).await;
    let payload = || Payload::new([("", ""); 0], Bytes::from(vec![b'x'; 40]));
    let mut other = occurrence("other").with_payload(payload());
    other.tenant = other_tenant();
    let other = ledger.event(other).await?;
    let mut events = Vec::new();
    for number in 0..4 {
        let told = occurrence(&number.to_string()).with_payload(payload());
        events.push(ledger.event(told).await?);
    }
    let mut kept = Vec::new();
    for event in &events {
        let id = event.payload.unwrap_or_default();
        kept.push(ledger.store.payload(&tenant(), id).await?.is_some());
        let there = ledger.store.event(&tenant(), &event.key).await?.is_some();
        expect(there, || "an event went with its payload".into())?;
    }
    expect_eq("payloads kept, oldest first", &kept, &vec![false, false, true, true])?;
    let id = other.payload.unwrap_or_default();
    let there = ledger.store.payload(&other_tenant(), id).await?.is_some();
    expect(there, || "another tenant's payload went".into())
}

pub(super) async fn sequences_grow_and_the_position_is_the_highest(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let told = (0..50).map(|number| occurrence(&number.to_string()));
    let mut sequences: Vec<i64> = Vec::new();
    for admitted in ledger.store.admit(told.collect(), None).await? {
        sequences.extend(admitted.event().map(|event| event.sequence));
    }
    // A clock that goes back changes nothing in the order.
    ledger.advance(-3_600);
    sequences.push(ledger.event(occurrence("later")).await?.sequence);
    expect_eq("events", &sequences.len(), &51)?;
    expect(sequences.is_sorted_by(|a, b| a < b), || format!("not growing: {sequences:?}"))?;
    expect_eq("the position", &Some(ledger.store.position().await?), &sequences.last().copied())
}

pub(super) async fn many_senders_of_one_fact_make_one_event(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let senders = (0..64).map(|number| {
        let told = push(&format!("{}", number % 40), None, sha('a'));
        ledger.store.admit(vec![told], None)
    });
    let mut events = 0;
    for result in futures::future::join_all(senders).await {
        events += result?.iter().filter(|one| one.event().is_some()).count();
    }
    expect_eq("events", &events, &1)?;
    let page = PageRequest { limit: 1_000, after: None };
    let query = ObservationQuery::of(tenant()).page(page);
    expect_eq("observations", &ledger.store.observations(query).await?.items.len(), &64)
}

pub(super) async fn a_correction_sets_a_subject_right_without_an_event(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(push("1", None, sha('a'))).await?;
    let as_of = ledger.store.position().await?;
    let correct = |from: char, to: char| Effects {
        corrections: vec![SubjectCorrection {
            tenant: tenant(),
            repo: "api".into(),
            subject: SubjectKey::reference(MAIN),
            from: String::from(from).repeat(40),
            to: String::from(to).repeat(40),
        }],
        ..Effects::default()
    };
    let stands = async || -> Result<Option<char>, Failure> {
        let subjects = ledger.store.subjects(&tenant(), &"api".into(), MAIN).await?;
        Ok(subjects.first().and_then(|(_, one)| one.state.chars().next()))
    };
    ledger.commit(correct('f', 'b')).await?;
    expect_eq("where the branch stands", &stands().await?, &Some('a'))?;
    ledger.commit(correct('a', 'b')).await?;
    expect_eq("where the branch stands", &stands().await?, &Some('b'))?;
    // Who read before the correction does not undo it; a poll that reads it finds nothing new.
    ledger.duplicate(read("2", as_of, sha('a'))).await?;
    ledger.duplicate(read("3", ledger.store.position().await?, sha('b'))).await?;
    let main = SubjectKey::reference(MAIN);
    let arrivals = ledger.store.arrivals(&tenant(), &"api".into(), &main, ledger.now(), 1).await?;
    let last = arrivals.first().map(|one| (one.state.chars().next(), one.baseline));
    expect_eq("the last arrival", &last, &Some((Some('b'), true)))?;
    ledger.event(push("4", sha('b'), sha('c'))).await?;
    let back = ledger.event(push("5", sha('c'), sha('b'))).await?;
    expect(back.key.as_str().ends_with("/2"), || format!("k should be 2 in {}", back.key))
}
