//! The suite for [`Store`].

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::case::{Failure, expect, expect_eq, expect_kind, suite};
use crate::{
    Approval, AttemptId, CommitId, ErrorKind, Event, EventKey, EventKind, GroupKey, ManualClock,
    Observation, RepoRef, Run, RunKey, RunState, RunView, SubjectClaim, Tenant, Transition,
    WorkflowId,
    event::{
        Before, LabelClaim, Occurrence, Payload, PullRequest, PullRequestClaim, PullRequestState,
        RefClaim, Revision, Seen, SubjectKey,
    },
    repo::StatusState,
    run::{GroupMembership, Origin},
    sink::CancelMode,
    store::{
        Admitted, Claim, ClaimRequest, CursorMove, Decision, DecisionBatch, DecisionQuery,
        DeliveryQuery, Effects, EventQuery, GroupExpectation, Guard, Lease, NewWork,
        NotificationState, ObservationQuery, OutboxNotification, Outcome as Said, PageRequest,
        Prune, Rejected, Release, RunChange, RunQuery, RunsToKeep, ShownStatus, Stage,
        StatusDesire, StatusKey, StatusQuery, StatusRecord, StatusSubject, Store, StoreLimits,
        SubjectCorrection, WorkKey,
    },
    workflow::Strategy,
};

/// What a store's author writes, so that the suite can make ledgers.
#[async_trait]
pub trait StoreFixture: Debug + Send + Sync + 'static {
    /// A ledger with nothing in it that goes by this clock, with these limits.
    async fn open(&self, clock: ManualClock, limits: StoreLimits) -> Arc<dyn Store>;

    /// The ledger that was opened last, as it is after its process died: everything that was
    /// answered is there, leases that were given are not. `None` when it does not outlive its
    /// process.
    async fn reopen(&self, died: Arc<dyn Store>, clock: ManualClock) -> Option<Arc<dyn Store>>;
}

type Fixture = Arc<dyn StoreFixture>;
type Outcome = Result<(), Failure>;

suite! {
    ($)
    /// Makes a `#[tokio::test]` of each case of the store suite. Takes an expression that makes a
    /// future of an `Arc<dyn StoreFixture>`.
    store_suite(std::sync::Arc<dyn StoreFixture>) in store {
        news_makes_an_event_and_work_for_it,
        a_delivery_that_was_seen_is_a_duplicate_whatever_it_claims,
        one_fact_is_one_event_in_whatever_order_it_is_told,
        a_branch_that_moves_there_and_back_makes_an_event_each_time,
        a_push_that_was_overtaken_is_a_duplicate,
        a_baseline_makes_no_event_and_counts_as_an_arrival,
        what_was_read_before_the_ledger_moved_on_is_dropped,
        a_pull_request_that_closes_and_reopens_makes_an_event_each_time,
        what_the_host_said_before_what_is_recorded_is_a_duplicate,
        an_occurrence_happens_once,
        admission_moves_the_cursor_or_takes_nothing_in,
        a_payload_over_the_limit_is_refused_by_the_limits_name,
        the_oldest_payloads_of_a_tenant_go_when_it_has_too_many_bytes,
        sequences_grow_and_the_position_is_the_highest,
        tenants_do_not_meet,
        many_senders_of_one_fact_make_one_event,
        a_single_event_does_not_wait_behind_the_backlog_of_another_tenant,
        work_of_a_tenant_is_claimed_oldest_first,
        leased_work_is_given_to_nobody_else_until_the_lease_ends,
        a_lease_that_was_lost_commits_nothing,
        a_lease_that_ended_commits_as_long_as_nobody_claimed_again,
        an_extended_lease_lasts_from_now_on,
        a_released_claim_waits_and_tells_why,
        a_clock_that_goes_back_neither_keeps_leases_alive_nor_holds_work_up,
        work_that_joins_keeps_the_earlier_time_and_the_newer_detail,
        work_that_joins_a_lease_is_due_after_it,
        work_is_due_again_when_its_commit_says_so,
        one_piece_of_work_can_be_claimed_before_its_time,
        a_commit_that_claims_next_gets_what_it_made_due,
        workers_are_woken_when_work_comes,
        a_commit_writes_all_or_nothing,
        a_run_is_created_once_and_changed_from_the_version_that_was_read,
        a_group_changes_its_version_with_its_members,
        the_highest_order_owns_a_status,
        a_notification_is_made_once_and_told_in_order,
        approvals_hold_for_the_very_head,
        a_correction_sets_a_subject_right_without_an_event,
        decisions_and_their_trigger_sets_are_kept,
        pages_are_stable_while_more_comes_in,
        runs_are_found_by_everything_that_a_query_narrows_by,
        events_are_found_by_everything_that_a_query_narrows_by,
        pruning_keeps_what_is_under_way_and_every_key,
        a_workflow_keeps_so_many_runs,
        the_backlog_counts_what_waits,
        everything_but_leases_outlives_the_process,
    }
}

/// A ledger under test.
struct Ledger {
    fixture: Fixture,
    store: Arc<dyn Store>,
    clock: ManualClock,
}

impl Ledger {
    async fn open(fixture: Fixture) -> Self {
        Self::with_limits(fixture, StoreLimits::default()).await
    }

    async fn with_limits(fixture: Fixture, limits: StoreLimits) -> Self {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(400_000));
        let store = fixture.open(clock.clone(), limits).await;
        Self { fixture, store, clock }
    }

    async fn admit_one(&self, observation: Observation) -> Result<Admitted, Failure> {
        let mut admitted = self.store.admit(vec![observation], None).await?;
        admitted.pop().ok_or_else(|| Failure::new("an admission answers for each observation"))
    }

    async fn event(&self, observation: Observation) -> Result<Event, Failure> {
        match self.admit_one(observation).await? {
            Admitted::Event(event) => Ok(*event),
            other => Err(Failure::new(format!("expected an event, got {other:?}"))),
        }
    }

    async fn duplicate(&self, observation: Observation) -> Outcome {
        let admitted = self.admit_one(observation).await?;
        expect(matches!(admitted, Admitted::Duplicate { .. }), || {
            format!("expected a duplicate, got {admitted:?}")
        })
    }

    async fn claim(&self, stage: Stage, limit: u32) -> Result<Vec<Claim>, Failure> {
        Ok(self.store.claim(ClaimRequest::of(stage, limit)).await?.claims)
    }

    async fn claim_one(&self, stage: Stage) -> Result<Claim, Failure> {
        let claim = self.claim(stage, 1).await?.pop();
        claim.ok_or_else(|| Failure::new(format!("expected work of stage {stage}, got none")))
    }

    async fn no_claim(&self, stage: Stage) -> Outcome {
        expect_eq(&format!("claims of stage {stage}"), &self.claim(stage, 10).await?, &vec![])
    }

    /// Commits effects with the claim of an event that is made for it, and which nothing else
    /// claims.
    async fn commit(&self, effects: Effects) -> Result<crate::store::Committed, Failure> {
        Ok(self.try_commit(effects).await??)
    }

    async fn try_commit(
        &self,
        effects: Effects,
    ) -> Result<crate::Result<crate::store::Committed>, Failure> {
        let position = self.store.position().await?;
        let event = self.event(occurrence(&format!("made for a commit at {position}"))).await?;
        let request = ClaimRequest::of(Stage::Match, 1).only(tenant(), WorkKey::event(event.key));
        let claim = self.store.claim(request).await?.claims.pop();
        let claim = claim.ok_or_else(|| Failure::new("expected the event's work, got none"))?;
        let result = self.store.commit(&claim.lease, effects).await;
        if result.is_err() {
            self.store.commit(&claim.lease, Effects::default()).await?;
        }
        Ok(result)
    }

    fn now(&self) -> Timestamp {
        use crate::Clock;
        self.clock.now()
    }

    fn advance(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }
}

fn tenant() -> Tenant {
    Tenant::default()
}

fn other_tenant() -> Tenant {
    tenant_named("other")
}

fn tenant_named(name: &str) -> Tenant {
    Tenant::new(name).unwrap_or_default()
}

fn repo(id: &str) -> RepoRef {
    RepoRef { connection: "host".into(), id: id.into(), name: format!("acme/{id}").into() }
}

/// A commit id made of one letter.
fn sha(letter: char) -> Option<CommitId> {
    String::from(letter).repeat(40).parse().ok()
}

const MAIN: &str = "refs/heads/main";

fn on(delivery: &str, seen: Seen, claim: SubjectClaim) -> Observation {
    Observation::new(tenant(), repo("api"), "webhook".into(), delivery.into(), seen, claim)
}

fn at_ref(name: &str, before: Before, after: Option<CommitId>) -> SubjectClaim {
    SubjectClaim::Ref(RefClaim { name: name.into(), after, before, forced: None })
}

fn push(delivery: &str, before: Option<CommitId>, after: Option<CommitId>) -> Observation {
    on(delivery, Seen::Told, at_ref(MAIN, Before::Was(before), after))
}

fn read(delivery: &str, as_of: i64, after: Option<CommitId>) -> Observation {
    on(delivery, Seen::Read { as_of }, at_ref(MAIN, Before::Unknown, after))
}

fn baseline(delivery: &str, as_of: i64, after: Option<CommitId>) -> Observation {
    on(delivery, Seen::Baseline { as_of }, at_ref(MAIN, Before::Unknown, after))
}

fn occurrence(id: &str) -> Observation {
    let claim = Occurrence::new(EventKind::MANUAL, id);
    on(id, Seen::Told, SubjectClaim::Occurrence(Box::new(claim)))
}

fn pull_request(number: u64, state: PullRequestState, updated_at: Timestamp) -> PullRequest {
    let revision = |letter, name: &str| {
        let commit = sha(letter);
        commit.map(|commit| Revision::new(commit, name))
    };
    let empty = || Revision::new(zero(), MAIN);
    PullRequest {
        number,
        title: "A change".into(),
        author: "ada".into(),
        draft: false,
        state,
        head: revision('a', "refs/heads/change").unwrap_or_else(empty),
        base: revision('b', MAIN).unwrap_or_else(empty),
        fork: false,
        labels: Vec::new(),
        url: None,
        updated_at,
    }
}

fn zero() -> CommitId {
    // Forty digits are always a commit id.
    match "0".repeat(40).parse() {
        Ok(commit) => commit,
        Err(_) => unreachable!("forty digits are a commit id"),
    }
}

fn pulled(delivery: &str, pull_request: PullRequest) -> Observation {
    let claim = SubjectClaim::PullRequest(Box::new(PullRequestClaim { pull_request }));
    on(delivery, Seen::Told, claim)
}

fn planned(name: &str, event: &str, order: i64, at: Timestamp) -> Run {
    let workflow = WorkflowId::registered("ci");
    let event = EventKey::new(event);
    let attempt = AttemptId::new(name);
    Run {
        key: RunKey::of(&tenant(), &workflow, "push", &event, &attempt),
        version: 1,
        tenant: tenant(),
        repo: repo("api"),
        workflow,
        trigger: "push".into(),
        event,
        order,
        subject: SubjectKey::reference(MAIN),
        unchained: false,
        attempt,
        commit: sha('a'),
        reference: Some(MAIN.into()),
        pull_request: None,
        origin: Origin { digest: "d".into(), commit: None, path: None },
        name: name.into(),
        sink: "local".into(),
        pipeline_run: Arc::new(json!({"kind": "PipelineRun"})),
        groups: Vec::new(),
        state: RunState::Planned,
        message: String::new(),
        cancel: None,
        replaces: Vec::new(),
        handle: None,
        link: None,
        tasks: Vec::new(),
        results: Vec::new(),
        failure: None,
        remarks: BTreeMap::new(),
        notify: Vec::new(),
        status_context: None,
        retention: None,
        facts: Vec::new(),
        judged_by: BTreeMap::new(),
        created_at: at,
        started_at: None,
        finished_at: None,
    }
}

fn in_group(mut run: Run, group: &str) -> Run {
    run.groups.push(GroupMembership {
        group: group.into(),
        strategy: Strategy::Replace { cancel: CancelMode::RunFinally },
    });
    run
}

fn run_work(stage: Stage, name: &str) -> NewWork {
    NewWork::now(tenant(), stage, WorkKey::run(RunKey::from(name.to_owned())))
}

fn runs(runs: Vec<Run>) -> Effects {
    Effects { runs, ..Effects::default() }
}

fn changes(runs: Vec<Run>) -> Effects {
    let changes = runs.into_iter().map(|run| RunChange { run }).collect();
    Effects { changes, ..Effects::default() }
}

fn work(work: Vec<NewWork>) -> Effects {
    Effects { work, ..Effects::default() }
}

fn notification(run: &Run, key: &str) -> OutboxNotification {
    OutboxNotification {
        id: 0,
        key: key.into(),
        tenant: tenant(),
        run: run.key.clone(),
        notifier: "chat".into(),
        transition: Transition::Started,
        view: RunView::from(run),
        state: NotificationState::Pending,
        attempts: 0,
        result: None,
        created_at: run.created_at,
        tried_at: None,
    }
}

async fn news_makes_an_event_and_work_for_it(fixture: Fixture) -> Outcome {
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

async fn a_delivery_that_was_seen_is_a_duplicate_whatever_it_claims(fixture: Fixture) -> Outcome {
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

async fn one_fact_is_one_event_in_whatever_order_it_is_told(fixture: Fixture) -> Outcome {
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

async fn a_branch_that_moves_there_and_back_makes_an_event_each_time(fixture: Fixture) -> Outcome {
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

async fn a_push_that_was_overtaken_is_a_duplicate(fixture: Fixture) -> Outcome {
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

async fn a_baseline_makes_no_event_and_counts_as_an_arrival(fixture: Fixture) -> Outcome {
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

async fn what_was_read_before_the_ledger_moved_on_is_dropped(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(push("1", None, sha('a'))).await?;
    let as_of = ledger.store.position().await?;
    ledger.event(push("2", sha('a'), sha('b'))).await?;
    ledger.duplicate(read("3", as_of, sha('a'))).await?;
    let as_of = ledger.store.position().await?;
    ledger.event(read("4", as_of, sha('c'))).await.map(|_| ())
}

async fn a_pull_request_that_closes_and_reopens_makes_an_event_each_time(
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

async fn what_the_host_said_before_what_is_recorded_is_a_duplicate(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let at = |seconds| ledger.now() + SignedDuration::from_secs(seconds);
    let (open, closed) = (PullRequestState::Open, PullRequestState::Closed);
    ledger.event(pulled("1", pull_request(7, open, at(0)))).await?;
    // Nothing new, but a later word of it.
    ledger.duplicate(pulled("2", pull_request(7, open, at(10)))).await?;
    ledger.duplicate(pulled("3", pull_request(7, closed, at(5)))).await?;
    ledger.event(pulled("4", pull_request(7, closed, at(11)))).await.map(|_| ())
}

async fn an_occurrence_happens_once(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("slot-1")).await?;
    let mut again = occurrence("slot-1");
    again.delivery = "another delivery".into();
    ledger.duplicate(again).await
}

async fn admission_moves_the_cursor_or_takes_nothing_in(fixture: Fixture) -> Outcome {
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

async fn a_payload_over_the_limit_is_refused_by_the_limits_name(fixture: Fixture) -> Outcome {
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

async fn the_oldest_payloads_of_a_tenant_go_when_it_has_too_many_bytes(
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

async fn sequences_grow_and_the_position_is_the_highest(fixture: Fixture) -> Outcome {
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

async fn tenants_do_not_meet(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let mut theirs = push("1", None, sha('a'));
    theirs.tenant = other_tenant();
    let ours = ledger.event(push("1", None, sha('a'))).await?;
    let theirs = ledger.event(theirs).await?;
    expect(ours.key != theirs.key, || "two tenants have one event".into())?;
    expect_eq(
        "our event asked for by them",
        &ledger.store.event(&other_tenant(), &ours.key).await?,
        &None,
    )?;
    let page = ledger.store.events(EventQuery::of(other_tenant())).await?;
    expect_eq("their events", &page.items, &vec![theirs])?;

    let run = in_group(planned("1", "e", 1, ledger.now()), "g");
    let mut copy = run.clone();
    copy.tenant = other_tenant();
    ledger.commit(runs(vec![run.clone()])).await?;
    let committed = ledger.commit(runs(vec![copy])).await?;
    expect_eq("runs with one key in two tenants", &committed.created.len(), &1)?;
    let groups = ledger.store.groups(&other_tenant(), &["g".into()]).await?;
    let members: usize = groups.iter().map(|group| group.members.len()).sum();
    expect_eq("members of their group", &members, &1)?;
    let third = tenant_named("third");
    expect_eq("a third tenant's run", &ledger.store.run(&third, &run.key).await?, &None)
}

async fn many_senders_of_one_fact_make_one_event(fixture: Fixture) -> Outcome {
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

async fn a_single_event_does_not_wait_behind_the_backlog_of_another_tenant(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let backlog: Vec<Observation> =
        (0..10_000).map(|number| occurrence(&number.to_string())).collect();
    for part in backlog.chunks(1_000) {
        ledger.store.admit(part.to_vec(), None).await?;
    }
    for name in ["a", "z"] {
        let mut single = occurrence("single");
        single.tenant = tenant_named(name);
        ledger.event(single).await?;
    }
    let served: Vec<String> = ledger
        .claim(Stage::Match, 10)
        .await?
        .iter()
        .map(|claim| claim.work.tenant.to_string())
        .collect();
    expect_eq("claims", &served.len(), &10)?;
    for name in ["a", "z"] {
        expect(served.iter().any(|tenant| tenant == name), || {
            format!("tenant {name} was not served in the first claim: {served:?}")
        })?;
    }
    // One at a time, the turn passes on.
    let mut single = occurrence("another");
    single.tenant = tenant_named("z");
    ledger.event(single).await?;
    let mut turns = Vec::new();
    for _ in 0..2 {
        turns.push(ledger.claim_one(Stage::Match).await?.work.tenant.to_string());
    }
    turns.sort();
    expect_eq("whose turn it is in two claims", &turns, &vec!["default".to_owned(), "z".to_owned()])
}

async fn work_of_a_tenant_is_claimed_oldest_first(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let at = |seconds| ledger.now() + SignedDuration::from_secs(seconds);
    let later = NewWork { not_before: Some(at(5)), ..run_work(Stage::Observe, "second") };
    let latest = NewWork { not_before: Some(at(9)), ..run_work(Stage::Observe, "third") };
    ledger.commit(work(vec![latest, later, run_work(Stage::Observe, "first")])).await?;
    ledger.advance(10);
    ledger.commit(work(vec![run_work(Stage::Observe, "fourth")])).await?;
    let names: Vec<String> =
        ledger.claim(Stage::Observe, 10).await?.into_iter().map(|claim| name_of(&claim)).collect();
    expect_eq("the order of claims", &names.join(" ").as_str(), &"first second third fourth")
}

fn name_of(claim: &Claim) -> String {
    match &claim.work.key {
        WorkKey::Run { run } => run.to_string(),
        other => format!("{other:?}"),
    }
}

async fn leased_work_is_given_to_nobody_else_until_the_lease_ends(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let request = ClaimRequest::of(Stage::Match, 5).leased_for(SignedDuration::from_secs(20));
    let first = ledger.store.claim(request).await?.claims;
    expect_eq("claims", &first.len(), &1)?;
    let ends = ledger.now() + SignedDuration::from_secs(20);
    expect_eq("the lease's end", &first.first().map(|claim| claim.lease.until), &Some(ends))?;
    ledger.advance(19);
    let none = ledger.store.claim(ClaimRequest::of(Stage::Match, 5)).await?;
    expect_eq("claims before its end", &none.claims, &vec![])?;
    expect_eq("when to come again", &none.next_due, &Some(ends))?;
    ledger.advance(1);
    let again = ledger.claim_one(Stage::Match).await?;
    expect_eq("attempts", &again.attempts, &2)?;
    let tokens = first.first().map(|claim| claim.lease.token);
    expect(tokens.is_some_and(|token| token < again.lease.token), || {
        "the token of a later claim is not greater".into()
    })
}

async fn a_lease_that_was_lost_commits_nothing(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let slow = ledger.claim_one(Stage::Match).await?;
    ledger.advance(31);
    let quick = ledger.claim_one(Stage::Match).await?;
    let run = planned("1", "e", 1, ledger.now());
    let refused = ledger.store.commit(&slow.lease, runs(vec![run.clone()])).await;
    expect_kind("a commit with a lost lease", refused, ErrorKind::Conflict)?;
    expect_eq("the run", &ledger.store.run(&tenant(), &run.key).await?, &None)?;
    let by = SignedDuration::from_secs(5);
    expect_kind("extending it", ledger.store.extend(&slow.lease, by).await, ErrorKind::Conflict)?;
    let release = ledger.store.release(&slow.lease, Release::default()).await;
    expect_kind("releasing it", release, ErrorKind::Conflict)?;
    ledger.store.commit(&quick.lease, runs(vec![run])).await?;
    let twice = ledger.store.commit(&quick.lease, Effects::default()).await;
    expect_kind("committing twice", twice, ErrorKind::Conflict)?;
    let nobody = Lease { id: 987_654, token: 1, until: ledger.now() };
    let unknown = ledger.store.commit(&nobody, Effects::default()).await;
    expect_kind("a lease of nothing", unknown, ErrorKind::Conflict)
}

async fn a_lease_that_ended_commits_as_long_as_nobody_claimed_again(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let claim = ledger.claim_one(Stage::Match).await?;
    ledger.advance(3_600);
    // Somebody else's claim of other work notices the end of the lease.
    ledger.no_claim(Stage::Dispatch).await?;
    ledger.store.commit(&claim.lease, Effects::default()).await?;
    ledger.no_claim(Stage::Match).await
}

async fn an_extended_lease_lasts_from_now_on(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let claim = ledger.claim_one(Stage::Match).await?;
    ledger.advance(20);
    let lease = ledger.store.extend(&claim.lease, SignedDuration::from_secs(60)).await?;
    expect_eq("its end", &lease.until, &(ledger.now() + SignedDuration::from_secs(60)))?;
    ledger.advance(59);
    ledger.no_claim(Stage::Match).await?;
    ledger.store.commit(&lease, Effects::default()).await?;
    Ok(())
}

async fn a_released_claim_waits_and_tells_why(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let since = ledger.now();
    let claim = ledger.claim_one(Stage::Match).await?;
    expect_eq("why it was given back", &claim.last_error, &None)?;
    let again = ledger.now() + SignedDuration::from_secs(5);
    let release = Release { not_before: Some(again), error: Some("no network".into()) };
    ledger.store.release(&claim.lease, release).await?;
    let late = ledger.store.commit(&claim.lease, Effects::default()).await;
    expect_kind("a commit of what was given back", late, ErrorKind::Conflict)?;
    let none = ledger.store.claim(ClaimRequest::of(Stage::Match, 1)).await?;
    expect_eq("claims before its time", &none.claims, &vec![])?;
    expect_eq("when to come again", &none.next_due, &Some(again))?;
    ledger.advance(5);
    let claim = ledger.claim_one(Stage::Match).await?;
    expect_eq("attempts", &claim.attempts, &2)?;
    expect_eq("due since", &claim.since, &since)?;
    expect_eq("why it was given back", &claim.last_error.as_deref(), &Some("no network"))?;
    ledger.store.release(&claim.lease, Release::default()).await?;
    ledger.claim_one(Stage::Match).await.map(|_| ())
}

async fn a_clock_that_goes_back_neither_keeps_leases_alive_nor_holds_work_up(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    ledger.event(occurrence("2")).await?;
    let held = ledger.claim_one(Stage::Match).await?;
    ledger.advance(-86_400);
    let claims = ledger.claim(Stage::Match, 10).await?;
    expect_eq("work that can be claimed after the jump", &claims.len(), &2)?;
    let late = ledger.store.commit(&held.lease, Effects::default()).await;
    expect_kind("a commit of what was claimed again", late, ErrorKind::Conflict)
}

async fn work_that_joins_keeps_the_earlier_time_and_the_newer_detail(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let at = |seconds| ledger.now() + SignedDuration::from_secs(seconds);
    let put = |seconds, detail: &str| {
        let new = NewWork { not_before: Some(at(seconds)), ..run_work(Stage::Observe, "r") };
        work(vec![new.with_detail(json!(detail))])
    };
    ledger.commit(put(30, "first")).await?;
    ledger.commit(put(10, "second")).await?;
    ledger.commit(put(60, "third")).await?;
    let none = ledger.store.claim(ClaimRequest::of(Stage::Observe, 5)).await?;
    expect_eq("claims before its time", &none.claims, &vec![])?;
    expect_eq("when it is due", &none.next_due, &Some(at(10)))?;
    ledger.advance(10);
    let claims = ledger.claim(Stage::Observe, 5).await?;
    let details: Vec<&Value> = claims.iter().map(|claim| &claim.work.detail).collect();
    expect_eq("the details of what was claimed", &details, &vec![&json!("third")])
}

async fn work_that_joins_a_lease_is_due_after_it(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.commit(work(vec![run_work(Stage::Observe, "r")])).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    ledger.commit(work(vec![run_work(Stage::Observe, "r").with_detail(json!("news"))])).await?;
    ledger.no_claim(Stage::Observe).await?;
    ledger.store.commit(&claim.lease, Effects::default()).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    expect_eq("its detail", &claim.work.detail, &json!("news"))?;

    // At once, though the holder wants to wait; whether it commits or releases.
    ledger.commit(work(vec![run_work(Stage::Observe, "r")])).await?;
    let later = ledger.now() + SignedDuration::from_secs(60);
    let again = Effects { again: Some(later), ..Effects::default() };
    ledger.store.commit(&claim.lease, again).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    ledger.commit(work(vec![run_work(Stage::Observe, "r")])).await?;
    let release = Release { not_before: Some(later), error: None };
    ledger.store.release(&claim.lease, release).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;

    // A commit's own work joins what it commits.
    let itself = work(vec![run_work(Stage::Observe, "r")]);
    ledger.store.commit(&claim.lease, itself).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    ledger.store.commit(&claim.lease, Effects::default()).await?;
    ledger.no_claim(Stage::Observe).await
}

async fn work_is_due_again_when_its_commit_says_so(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.commit(work(vec![run_work(Stage::Observe, "r").with_detail(json!(1))])).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    let due = ledger.now() + SignedDuration::from_secs(10);
    let again = Effects { again: Some(due), ..Effects::default() };
    ledger.store.commit(&claim.lease, again).await?;
    ledger.no_claim(Stage::Observe).await?;
    ledger.advance(12);
    let claim = ledger.claim_one(Stage::Observe).await?;
    expect_eq("attempts", &claim.attempts, &1)?;
    expect_eq("due since", &claim.since, &due)?;
    expect_eq("its detail", &claim.work.detail, &json!(1))
}

async fn one_piece_of_work_can_be_claimed_before_its_time(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let due = ledger.now() + SignedDuration::from_secs(100);
    let later = |name: &str| NewWork { not_before: Some(due), ..run_work(Stage::Observe, name) };
    ledger.commit(work(vec![later("r"), later("s")])).await?;
    let only = |name: &str| {
        let key = WorkKey::run(RunKey::from(name.to_owned()));
        ClaimRequest::of(Stage::Observe, 5).only(tenant(), key)
    };
    let claimed = ledger.store.claim(only("r")).await?.claims;
    let names: Vec<String> = claimed.iter().map(name_of).collect();
    expect_eq("what was claimed", &names, &vec!["r".to_owned()])?;
    expect_eq("what is held", &ledger.store.claim(only("r")).await?.claims, &vec![])?;
    expect_eq("what is not there", &ledger.store.claim(only("t")).await?.claims, &vec![])?;
    let theirs = ClaimRequest::of(Stage::Observe, 5)
        .only(other_tenant(), WorkKey::run(RunKey::from("s".to_owned())));
    expect_eq("another tenant's", &ledger.store.claim(theirs).await?.claims, &vec![])
}

async fn a_commit_that_claims_next_gets_what_it_made_due(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let due = ledger.now() + SignedDuration::from_secs(100);
    ledger.commit(work(vec![run_work(Stage::Dispatch, "held")])).await?;
    let held = ledger.claim_one(Stage::Dispatch).await?;
    let later = NewWork { not_before: Some(due), ..run_work(Stage::Observe, "later") };
    let effects = Effects {
        claim_next: Some(SignedDuration::from_secs(7)),
        ..work(vec![
            run_work(Stage::Schedule, "now"),
            later,
            run_work(Stage::Dispatch, "held"),
            run_work(Stage::Report, "also"),
        ])
    };
    let claims = ledger.commit(effects).await?.claims;
    let names: Vec<String> = claims.iter().map(name_of).collect();
    expect_eq("what was claimed", &names, &vec!["now".to_owned(), "also".to_owned()])?;
    for claim in &claims {
        let until = ledger.now() + SignedDuration::from_secs(7);
        expect_eq("the lease's end", &claim.lease.until, &until)?;
        expect_eq("attempts", &claim.attempts, &1)?;
    }
    ledger.no_claim(Stage::Schedule).await?;
    for claim in claims {
        ledger.store.commit(&claim.lease, Effects::default()).await?;
    }
    ledger.store.commit(&held.lease, Effects::default()).await?;
    ledger.claim_one(Stage::Dispatch).await.map(|_| ())
}

async fn workers_are_woken_when_work_comes(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let woken = ledger.store.woken(Stage::Match);
    let asleep = futures::future::select(Box::pin(woken), Box::pin(std::future::ready(()))).await;
    expect(matches!(asleep, futures::future::Either::Right(_)), || {
        "a worker was woken by an empty ledger".into()
    })?;
    drop(asleep);
    // What comes between two calls is not missed.
    ledger.event(occurrence("1")).await?;
    ledger.store.woken(Stage::Match).await;
    let claim = ledger.claim_one(Stage::Match).await?;
    let effects = work(vec![run_work(Stage::Dispatch, "r")]);
    let (_, committed) = futures::join!(
        ledger.store.woken(Stage::Dispatch),
        ledger.store.commit(&claim.lease, effects)
    );
    committed?;
    Ok(())
}

async fn a_commit_writes_all_or_nothing(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let now = ledger.now();
    let run = planned("1", "e", 1, now);
    ledger.commit(runs(vec![run.clone()])).await?;
    let stale = Run { version: 7, ..run.clone() };
    let other = planned("2", "e", 1, now);
    let effects = || Effects {
        runs: vec![other.clone()],
        notifications: vec![notification(&other, "n")],
        work: vec![run_work(Stage::Dispatch, "r")],
        ..Effects::default()
    };
    let moved = CursorMove {
        tenant: tenant(),
        name: "c".into(),
        from: Some("elsewhere".into()),
        to: "x".into(),
    };
    let expected = GroupExpectation { tenant: tenant(), group: "g".into(), version: 3 };
    let refused = [
        Effects { changes: vec![RunChange { run: stale }], ..effects() },
        Effects { cursors: vec![moved], ..effects() },
        Effects { groups: vec![expected], ..effects() },
    ];
    for effects in refused {
        let what =
            format!("{:?} {:?} {:?}", effects.changes.len(), effects.cursors, effects.groups);
        expect_kind(&what, ledger.try_commit(effects).await?, ErrorKind::Conflict)?;
        expect_eq("the run", &ledger.store.run(&tenant(), &other.key).await?, &None)?;
        let told = ledger.store.notifications(DeliveryQuery::of(tenant())).await?.items;
        expect_eq("notifications", &told, &vec![])?;
        ledger.no_claim(Stage::Dispatch).await?;
    }
    ledger.commit(effects()).await?;
    ledger.claim_one(Stage::Dispatch).await.map(|_| ())
}

async fn a_run_is_created_once_and_changed_from_the_version_that_was_read(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let run = planned("1", "e", 1, ledger.now());
    let created = ledger.commit(runs(vec![run.clone()])).await?.created;
    expect_eq("created", &created, &vec![run.key.clone()])?;
    let other = Run { message: "another".into(), ..run.clone() };
    expect_eq("created again", &ledger.commit(runs(vec![other])).await?.created, &vec![])?;
    let kept = ledger.store.run(&tenant(), &run.key).await?;
    expect_eq("the run", &kept, &Some(run.clone()))?;

    let mut changed = run.clone();
    changed.state = RunState::Running;
    changed.tasks = vec![];
    ledger.commit(changes(vec![changed.clone()])).await?;
    let stale = ledger.try_commit(changes(vec![changed.clone()])).await?;
    expect_kind("a change of an older version", stale, ErrorKind::Conflict)?;
    changed.version += 1;
    let kept = ledger.store.run(&tenant(), &run.key).await?;
    expect_eq("the changed run", &kept, &Some(changed.clone()))?;
    let missing = ledger.try_commit(changes(vec![planned("2", "e", 1, ledger.now())])).await?;
    expect_kind("a change of a run that is not there", missing, ErrorKind::Conflict)?;

    // Created and changed in one commit; and changed twice.
    let first = planned("3", "e", 1, ledger.now());
    let second = Run { version: first.version + 1, state: RunState::Queued, ..first.clone() };
    let both = Effects {
        runs: vec![first.clone()],
        ..changes(vec![Run { state: RunState::Admitted, ..first.clone() }, second])
    };
    ledger.commit(both).await?;
    let kept = ledger.store.run(&tenant(), &first.key).await?;
    let kept = kept.map(|run| (run.version, run.state));
    expect_eq("version and state", &kept, &Some((first.version + 2, RunState::Queued)))
}

async fn a_group_changes_its_version_with_its_members(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let group: GroupKey = "g".into();
    let read = async || -> Result<(i64, Vec<String>), Failure> {
        let found = ledger.store.groups(&tenant(), &["empty".into(), group.clone()]).await?;
        let names: Vec<&str> = found.iter().map(|one| one.group.as_str()).collect();
        expect_eq("the groups asked for", &names, &vec!["empty", "g"])?;
        expect_eq("an empty group's version", &found.first().map(|one| one.version), &Some(0))?;
        let one = found.into_iter().next_back();
        let one = one.ok_or_else(|| Failure::new("the group is missing"))?;
        let members = one.members.iter().map(|member| member.run.to_string()).collect();
        Ok((one.version, members))
    };
    expect_eq("a group that nobody is in", &read().await?, &(0, vec![]))?;

    let late = in_group(planned("late", "e", 9, ledger.now()), "g");
    let early = in_group(planned("early", "e", 2, ledger.now()), "g");
    let ended = Run {
        state: RunState::Superseded,
        ..in_group(planned("ended", "e", 3, ledger.now()), "g")
    };
    ledger.commit(runs(vec![late.clone(), early.clone(), ended])).await?;
    let (first, members) = read().await?;
    let names = vec![early.key.to_string(), late.key.to_string()];
    expect_eq("members in the order of intake", &members, &names)?;
    expect(first > 0, || "a group with members has version 0".into())?;

    // What does not concern the group leaves its version alone.
    let remarked = Run { message: "a remark".into(), ..early.clone() };
    ledger.commit(changes(vec![remarked])).await?;
    expect_eq("the version after a remark", &read().await?.0, &first)?;

    let mut early = Run { version: early.version + 1, state: RunState::Running, ..early };
    ledger.commit(changes(vec![early.clone()])).await?;
    let (second, _) = read().await?;
    expect(second > first, || "a member's state changed and the version did not".into())?;

    early.version += 1;
    early.cancel = Some(crate::run::Cancellation {
        mode: CancelMode::RunFinally,
        reason: crate::run::CancelReason::SupersededBy(late.key.clone()),
        at: ledger.now(),
        delivered: false,
    });
    ledger.commit(changes(vec![early.clone()])).await?;
    let found = ledger.store.groups(&tenant(), std::slice::from_ref(&group)).await?;
    let cancelling: Vec<bool> =
        found.iter().flat_map(|one| one.members.iter().map(|member| member.cancelling)).collect();
    expect_eq("who is told to end", &cancelling, &vec![true, false])?;
    let (third, _) = read().await?;
    expect(third > second, || "a member was told to end and the version stayed".into())?;

    early.version += 1;
    early.state = RunState::Cancelled;
    early.finished_at = Some(ledger.now());
    let expect_group =
        |version| GroupExpectation { tenant: tenant(), group: group.clone(), version };
    let stale = Effects { groups: vec![expect_group(second)], ..changes(vec![early.clone()]) };
    expect_kind("an old version", ledger.try_commit(stale).await?, ErrorKind::Conflict)?;
    // The commit's own changes do not spoil what it expects.
    let right = Effects { groups: vec![expect_group(third)], ..changes(vec![early]) };
    ledger.commit(right).await?;
    let (fourth, members) = read().await?;
    expect_eq("members after one ended", &members, &vec![late.key.to_string()])?;
    expect(fourth > third, || "a member ended and the version stayed".into())?;

    let ended = Run { state: RunState::Succeeded, ..late };
    ledger.commit(changes(vec![ended])).await?;
    let (version, members) = read().await?;
    expect_eq("members at the end", &members, &Vec::<String>::new())?;
    let stale = Effects { groups: vec![expect_group(fourth)], ..Effects::default() };
    expect_kind("the version before", ledger.try_commit(stale).await?, ErrorKind::Conflict)?;
    let again = in_group(planned("again", "e", 10, ledger.now()), "g");
    let right = Effects { groups: vec![expect_group(version)], ..runs(vec![again]) };
    ledger.commit(right).await?;
    let (version, _) = read().await?;
    expect(version > fourth, || "a version of the group came a second time".into())
}

fn status_key() -> StatusKey {
    StatusKey { tenant: tenant(), repo: repo("api"), commit: zero(), context: "ci/test".into() }
}

fn desire(order: i64, title: &str) -> StatusDesire {
    let subject = StatusSubject::Note {
        state: StatusState::Queued,
        title: title.into(),
        summary: String::new(),
    };
    StatusDesire { key: status_key(), order, subject }
}

async fn the_highest_order_owns_a_status(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let desired =
        |order, title: &str| Effects { statuses: vec![desire(order, title)], ..Effects::default() };
    let title = async || -> Result<Option<StatusSubject>, Failure> {
        Ok(ledger.store.status(&status_key()).await?.map(|one| one.desire.subject))
    };
    let note = |title: &str| Some(desire(0, title).subject);
    expect_eq("nothing yet", &title().await?, &None)?;
    ledger.commit(desired(5, "five")).await?;
    ledger.commit(desired(3, "three")).await?;
    expect_eq("after a lower order", &title().await?, &note("five"))?;
    ledger.commit(desired(5, "five again")).await?;
    expect_eq("after the same order", &title().await?, &note("five again"))?;

    let shown = ShownStatus {
        digest: "d".into(),
        state: StatusState::Queued,
        order: 5,
        id: "77".into(),
        at: ledger.now(),
    };
    let reported = StatusRecord {
        desire: desire(5, "as it was when it was read"),
        shown: Some(shown.clone()),
        error: Some("slow".into()),
        updated_at: ledger.now(),
    };
    ledger.commit(desired(8, "eight")).await?;
    ledger.advance(3);
    ledger.commit(Effects { reported: vec![reported], ..Effects::default() }).await?;
    let kept = ledger.store.status(&status_key()).await?;
    let kept = kept.ok_or_else(|| Failure::new("the status is gone"))?;
    expect_eq("what it should show", &Some(kept.desire.subject), &note("eight"))?;
    expect_eq("what it shows", &kept.shown, &Some(shown))?;
    expect_eq("why not", &kept.error.as_deref(), &Some("slow"))?;
    expect_eq("when it changed", &kept.updated_at, &ledger.now())?;

    // A renamed repository is the same one.
    let mut renamed = status_key();
    renamed.repo.name = "acme/renamed".into();
    expect(ledger.store.status(&renamed).await?.is_some(), || "a rename lost the status".into())?;
    let found = ledger.store.statuses(StatusQuery::of(tenant()).commit(Some(zero()))).await?;
    expect_eq("statuses of the commit", &found.items.len(), &1)?;
    let found = ledger.store.statuses(StatusQuery::of(tenant()).commit(sha('f'))).await?;
    expect_eq("statuses of another", &found.items.len(), &0)?;
    let found = ledger.store.statuses(StatusQuery::of(tenant()).repo(Some("x".into()))).await?;
    expect_eq("statuses of another repository", &found.items.len(), &0)
}

async fn a_notification_is_made_once_and_told_in_order(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let run = planned("1", "e", 1, ledger.now());
    let made = |keys: &[&str]| Effects {
        notifications: keys.iter().map(|key| notification(&run, key)).collect(),
        ..Effects::default()
    };
    ledger.commit(made(&["b", "a"])).await?;
    ledger.commit(made(&["a", "c"])).await?;
    let outbox = async || ledger.store.outbox(&tenant(), &run.key, &"chat".into()).await;
    let keys = |outbox: &[OutboxNotification]| {
        outbox.iter().map(|one| one.key.as_str().to_owned()).collect::<String>()
    };
    let pending = outbox().await?;
    expect_eq("what is to be told", &keys(&pending).as_str(), &"bac")?;
    expect(pending.is_sorted_by(|a, b| a.id < b.id), || "ids do not grow".into())?;
    let nobody = ledger.store.outbox(&tenant(), &run.key, &"nobody".into()).await?;
    expect_eq("another notifier's", &nobody, &vec![])?;

    let mut delivered = pending.clone();
    for (one, state) in
        delivered.iter_mut().zip([NotificationState::Delivered, NotificationState::Dead])
    {
        one.state = state;
        one.attempts = 2;
    }
    ledger.commit(Effects { delivered: delivered.clone(), ..Effects::default() }).await?;
    expect_eq("what is still to be told", &keys(&outbox().await?).as_str(), &"c")?;
    let dead = DeliveryQuery::of(tenant()).state(Some(NotificationState::Dead));
    let dead = ledger.store.notifications(dead).await?.items;
    expect_eq("dead letters", &dead, &delivered.get(1).cloned().into_iter().collect::<Vec<_>>())?;
    let all = DeliveryQuery::of(tenant()).run(Some(run.key.clone()));
    expect_eq(
        "all of the run",
        &keys(&ledger.store.notifications(all).await?.items).as_str(),
        &"cab",
    )
}

async fn approvals_hold_for_the_very_head(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let subject = SubjectKey::pull_request(7);
    let approval = Approval {
        tenant: tenant(),
        repo: repo("api"),
        subject: subject.clone(),
        head: zero(),
        by: "ada".into(),
        at: ledger.now(),
    };
    ledger.commit(Effects { approvals: vec![approval.clone()], ..Effects::default() }).await?;
    let of = async |tenant: Tenant, repo: &str, number, head: CommitId| {
        let subject = SubjectKey::pull_request(number);
        ledger.store.approval(&tenant, &repo.into(), &subject, &head).await
    };
    expect_eq("the approval", &of(tenant(), "api", 7, zero()).await?, &Some(approval))?;
    let another = sha('a').unwrap_or_else(zero);
    expect_eq("of another head", &of(tenant(), "api", 7, another).await?, &None)?;
    expect_eq("of another pull request", &of(tenant(), "api", 8, zero()).await?, &None)?;
    expect_eq("of another repository", &of(tenant(), "web", 7, zero()).await?, &None)?;
    expect_eq("of another tenant", &of(other_tenant(), "api", 7, zero()).await?, &None)
}

async fn a_correction_sets_a_subject_right_without_an_event(fixture: Fixture) -> Outcome {
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

async fn decisions_and_their_trigger_sets_are_kept(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let batch = |event: &str, attempt: &str| DecisionBatch {
        id: 0,
        tenant: tenant(),
        event: event.into(),
        attempt: attempt.into(),
        decisions: vec![Decision {
            workflow: WorkflowId::registered("ci"),
            trigger: "push".into(),
            outcome: Said::Rejected(Rejected {
                filter: "branches".into(),
                wanted: "main".into(),
                saw: json!("dev"),
            }),
        }],
        commands: Vec::new(),
        guards: vec![Guard {
            set: "digest".into(),
            path: "event.base.branch".into(),
            saw: json!("dev"),
            rejected: 3,
        }],
        judged_by: BTreeMap::new(),
        at: ledger.now(),
    };
    let effects = |event: &str, attempt: &str, set: Value| Effects {
        decisions: Some(batch(event, attempt)),
        trigger_sets: vec![("digest".into(), set)],
        ..Effects::default()
    };
    ledger.commit(effects("e", "", json!(["first"]))).await?;
    ledger.commit(effects("e", "again", json!(["second"]))).await?;
    ledger.commit(effects("f", "", json!(["third"]))).await?;
    let found = async |query| ledger.store.decisions(query).await;
    let all = found(DecisionQuery::of(tenant())).await?.items;
    expect_eq("decisions", &all.len(), &3)?;
    let one = found(DecisionQuery::of(tenant()).event(Some("e".into()))).await?.items;
    let attempts: Vec<&str> = one.iter().map(|batch| batch.attempt.as_str()).collect();
    expect_eq("attempts, newest first", &attempts, &vec!["again", ""])?;
    let query = DecisionQuery::of(tenant()).event(Some("e".into())).attempt(Some("".into()));
    let one = found(query).await?.items;
    let id = one.first().map_or(0, |batch| batch.id);
    expect(id > 0, || "the batch has no place in the ledger".into())?;
    expect_eq("the batch", &one, &vec![DecisionBatch { id, ..batch("e", "") }])?;
    let set = ledger.store.trigger_set(&tenant(), "digest").await?;
    expect_eq("the set that came first", &set, &Some(json!(["first"])))?;
    expect_eq(
        "of another tenant",
        &ledger.store.trigger_set(&other_tenant(), "digest").await?,
        &None,
    )
}

async fn pages_are_stable_while_more_comes_in(fixture: Fixture) -> Outcome {
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

async fn runs_are_found_by_everything_that_a_query_narrows_by(fixture: Fixture) -> Outcome {
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
        let found = ledger.store.runs(query).await?.items;
        let keys: Vec<_> = found.iter().map(|run| &run.key).collect();
        expect_eq(&format!("runs by {name}"), &keys, &vec![&run.key])?;
    }
    // A workflow that is registered is not one of that name in a repository.
    let registered = RunQuery::of(tenant()).workflow(Some(WorkflowId::registered("ci")));
    let found = ledger.store.runs(registered).await?.items;
    expect_eq("runs of the registered workflow", &found.len(), &(count - 2))
}

async fn events_are_found_by_everything_that_a_query_narrows_by(fixture: Fixture) -> Outcome {
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

async fn prune_all(ledger: &Ledger, prune: &Prune) -> Result<(), Failure> {
    while ledger.store.prune(prune.clone()).await?.more {}
    Ok(())
}

async fn pruning_keeps_what_is_under_way_and_every_key(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let payload = || Payload::new([("", ""); 0], Bytes::from_static(b"{}"));
    let ended_for = ledger.event(push("1", None, sha('a')).with_payload(payload())).await?;
    let running_for = ledger.event(push("2", sha('a'), sha('b')).with_payload(payload())).await?;
    let ignored = ledger.event(push("3", sha('b'), sha('c'))).await?;
    ledger.duplicate(push("3", sha('b'), sha('c'))).await?;
    let now = ledger.now();
    let ended = Run {
        state: RunState::Succeeded,
        finished_at: Some(now),
        ..planned("ended", ended_for.key.as_str(), 1, now)
    };
    let untold = Run { key: RunKey::from("untold".to_owned()), ..ended.clone() };
    let running =
        Run { state: RunState::Running, ..planned("running", running_for.key.as_str(), 2, now) };
    let mut told = notification(&ended, "told");
    told.state = NotificationState::Delivered;
    let effects = Effects {
        notifications: vec![told.clone(), notification(&untold, "untold")],
        trigger_sets: vec![("digest".into(), json!([]))],
        ..runs(vec![ended.clone(), untold.clone(), running.clone()])
    };
    ledger.commit(effects).await?;
    for claim in ledger.claim(Stage::Match, 10).await? {
        ledger.store.commit(&claim.lease, Effects::default()).await?;
    }
    ledger.advance(1);
    let waiting = ledger.event(push("4", sha('c'), sha('d'))).await?;
    ledger.advance(86_400);
    prune_all(&ledger, &Prune::before(ledger.now())).await?;

    let store = &ledger.store;
    let run = async |run: &Run| store.run(&tenant(), &run.key).await.map(|run| run.is_some());
    expect(!run(&ended).await?, || "the run that ended is still there".into())?;
    expect(run(&untold).await?, || "a run went whose end is still to be told".into())?;
    expect(run(&running).await?, || "a run under way went".into())?;
    let event =
        async |event: &Event| store.event(&tenant(), &event.key).await.map(|event| event.is_some());
    expect(event(&ended_for).await?, || "the event of a run that is kept went".into())?;
    expect(event(&running_for).await?, || "the event of a run under way went".into())?;
    expect(event(&waiting).await?, || "an event that waits to be matched went".into())?;
    expect(!event(&ignored).await?, || "an event without runs is still there".into())?;
    let id = running_for.payload.unwrap_or_default();
    expect_eq("an old payload", &store.payload(&tenant(), id).await?, &None)?;

    // What is gone is not new.
    ledger.duplicate(push("3", sha('b'), sha('c'))).await?;
    ledger.duplicate(push("5", sha('a'), sha('b'))).await?;
    let effects = Effects { notifications: vec![told], ..runs(vec![ended.clone()]) };
    expect_eq("runs created again", &ledger.commit(effects).await?.created, &vec![])?;
    expect(!run(&ended).await?, || "a run that was removed came again".into())?;
    let told = store.outbox(&tenant(), &ended.key, &"chat".into()).await?;
    expect_eq("what is told again", &told, &vec![])?;
    ledger.event(push("6", sha('d'), sha('e'))).await?;
    let back = ledger.event(push("7", sha('e'), sha('c'))).await?;
    expect(back.key.as_str().ends_with("/2"), || format!("k should be 2 in {}", back.key))
}

async fn a_workflow_keeps_so_many_runs(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let now = ledger.now();
    let mut all: Vec<Run> = (0..6)
        .map(|number| Run {
            state: RunState::Failed,
            finished_at: Some(now + SignedDuration::from_secs(number)),
            ..planned(&number.to_string(), "e", 1, now)
        })
        .collect();
    all.push(planned("under way", "e", 1, now));
    ledger.commit(runs(all)).await?;
    let left = async || -> Result<String, Failure> {
        let runs = ledger.store.runs(RunQuery::of(tenant())).await?.items;
        Ok(runs.iter().map(|run| run.name.to_string()).collect::<Vec<_>>().join(" "))
    };
    let keep = |workflow: &str, runs, ended_since| {
        let mut prune = Prune::before(Timestamp::UNIX_EPOCH);
        let workflow = WorkflowId::registered(workflow);
        prune.runs_per_workflow =
            vec![RunsToKeep { tenant: tenant(), workflow, runs, ended_since }];
        prune
    };
    prune_all(&ledger, &keep("deploy", Some(0), None)).await?;
    expect_eq("after another workflow's", &left().await?.as_str(), &"under way 5 4 3 2 1 0")?;
    prune_all(&ledger, &keep("ci", Some(4), None)).await?;
    expect_eq("when four are kept", &left().await?.as_str(), &"under way 5 4 3 2")?;
    let since = now + SignedDuration::from_secs(4);
    prune_all(&ledger, &keep("ci", None, Some(since))).await?;
    expect_eq("when the last two are young enough", &left().await?.as_str(), &"under way 5 4")
}

async fn the_backlog_counts_what_waits(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let start = ledger.now();
    ledger.event(occurrence("1")).await?;
    ledger.advance(5);
    ledger.event(occurrence("2")).await?;
    ledger.event(occurrence("3")).await?;
    let first = ledger.claim_one(Stage::Match).await?;
    expect_eq("the oldest", &first.since, &start)?;
    let backlog = ledger.store.backlog().await?;
    let stages: Vec<Stage> = backlog.iter().map(|one| one.stage).collect();
    expect_eq("the stages", &stages, &Stage::ALL.to_vec())?;
    let matching = backlog.first().map(|one| (one.waiting, one.due, one.oldest_due));
    expect_eq("of the first", &matching, &Some((3, 2, Some(ledger.now()))))?;
    let others: u64 = backlog.iter().skip(1).map(|one| one.waiting).sum();
    expect_eq("of the others", &others, &0)?;
    // A lease that ended is work that is due.
    ledger.advance(60);
    let matching = ledger.store.backlog().await?;
    let matching = matching.first().map(|one| (one.waiting, one.due, one.oldest_due));
    expect_eq("of the first, later", &matching, &Some((3, 3, Some(start))))
}

async fn everything_but_leases_outlives_the_process(fixture: Fixture) -> Outcome {
    let mut ledger = Ledger::open(fixture).await;
    let event = ledger.event(push("1", None, sha('a'))).await?;
    let run = in_group(planned("1", event.key.as_str(), event.sequence, ledger.now()), "g");
    let effects = Effects {
        statuses: vec![desire(1, "one")],
        notifications: vec![notification(&run, "n")],
        work: vec![run_work(Stage::Dispatch, "r")],
        ..runs(vec![run.clone()])
    };
    let claim = ledger.claim_one(Stage::Match).await?;
    ledger.store.commit(&claim.lease, effects).await?;
    let held = ledger.claim_one(Stage::Dispatch).await?;
    let groups = ledger.store.groups(&tenant(), &["g".into()]).await?;
    let position = ledger.store.position().await?;

    let Some(store) = ledger.fixture.reopen(ledger.store, ledger.clock.clone()).await else {
        return Ok(());
    };
    ledger.store = store;
    expect_eq("the position", &ledger.store.position().await?, &position)?;
    expect_eq(
        "the event",
        &ledger.store.event(&tenant(), &event.key).await?,
        &Some(event.clone()),
    )?;
    expect_eq("the run", &ledger.store.run(&tenant(), &run.key).await?, &Some(run.clone()))?;
    expect_eq("the group", &ledger.store.groups(&tenant(), &["g".into()]).await?, &groups)?;
    expect(ledger.store.status(&status_key()).await?.is_some(), || "the status is gone".into())?;
    let outbox = ledger.store.outbox(&tenant(), &run.key, &"chat".into()).await?;
    expect_eq("what is to be told", &outbox.len(), &1)?;
    // Nobody waits for the leases of the dead, nor for a wake that came before.
    ledger.store.woken(Stage::Dispatch).await;
    let again = ledger.claim_one(Stage::Dispatch).await?;
    expect_eq("attempts", &again.attempts, &2)?;
    let late = ledger.store.commit(&held.lease, Effects::default()).await;
    expect_kind("a commit of the dead", late, ErrorKind::Conflict)?;
    ledger.duplicate(push("1", None, sha('a'))).await?;
    let next = ledger.event(push("2", sha('a'), sha('b'))).await?;
    expect(next.sequence > position, || "a sequence came a second time".into())
}
