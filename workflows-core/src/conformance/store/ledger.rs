//! The ledger under test, and what the cases put into it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::StoreFixture;
use crate::{
    AttemptId, Clock, CommitId, Event, EventKey, EventKind, ManualClock, Observation, RepoRef, Run,
    RunKey, RunState, RunView, SubjectClaim, Tenant, Transition, WorkflowId,
    conformance::case::{Failure, expect, expect_eq},
    event::{
        Before, Occurrence, PullRequest, PullRequestClaim, PullRequestState, RefClaim, Revision,
        Seen, SubjectKey,
    },
    repo::StatusState,
    run::{GroupMembership, Origin},
    sink::CancelMode,
    store::{
        Admitted, Claim, ClaimRequest, Committed, Effects, NewWork, NotificationState,
        OutboxNotification, RunChange, Stage, StatusDesire, StatusKey, StatusSubject, Store,
        StoreLimits, WorkKey,
    },
    workflow::Strategy,
};

pub(super) type Fixture = Arc<dyn StoreFixture>;
pub(super) type Outcome = Result<(), Failure>;

/// A ledger under test.
pub(super) struct Ledger {
    pub(super) fixture: Fixture,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: ManualClock,
}

impl Ledger {
    pub(super) async fn open(fixture: Fixture) -> Self {
        Self::with_limits(fixture, StoreLimits::default()).await
    }

    pub(super) async fn with_limits(fixture: Fixture, limits: StoreLimits) -> Self {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(400_000));
        let store = fixture.open(clock.clone(), limits).await;
        Self { fixture, store, clock }
    }

    pub(super) async fn admit_one(&self, observation: Observation) -> Result<Admitted, Failure> {
        let mut admitted = self.store.admit(vec![observation], None).await?;
        admitted.pop().ok_or_else(|| Failure::new("an admission answers for each observation"))
    }

    pub(super) async fn event(&self, observation: Observation) -> Result<Event, Failure> {
        match self.admit_one(observation).await? {
            Admitted::Event(event) => Ok(*event),
            other => Err(Failure::new(format!("expected an event, got {other:?}"))),
        }
    }

    pub(super) async fn duplicate(&self, observation: Observation) -> Outcome {
        let admitted = self.admit_one(observation).await?;
        expect(matches!(admitted, Admitted::Duplicate { .. }), || {
            format!("expected a duplicate, got {admitted:?}")
        })
    }

    pub(super) async fn claim(&self, stage: Stage, limit: u32) -> Result<Vec<Claim>, Failure> {
        Ok(self.store.claim(ClaimRequest::of(stage, limit)).await?.claims)
    }

    pub(super) async fn claim_one(&self, stage: Stage) -> Result<Claim, Failure> {
        let claim = self.claim(stage, 1).await?.pop();
        claim.ok_or_else(|| Failure::new(format!("expected work of stage {stage}, got none")))
    }

    pub(super) async fn no_claim(&self, stage: Stage) -> Outcome {
        expect_eq(&format!("claims of stage {stage}"), &self.claim(stage, 10).await?, &vec![])
    }

    /// Commits effects with the claim of an event that is made for it, and which nothing else
    /// claims.
    pub(super) async fn commit(&self, effects: Effects) -> Result<Committed, Failure> {
        Ok(self.try_commit(effects).await??)
    }

    pub(super) async fn try_commit(
        &self,
        effects: Effects,
    ) -> Result<crate::Result<Committed>, Failure> {
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

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn advance(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }
}

pub(super) fn tenant() -> Tenant {
    Tenant::default()
}

pub(super) fn other_tenant() -> Tenant {
    tenant_named("other")
}

pub(super) fn tenant_named(name: &str) -> Tenant {
    Tenant::new(name).unwrap_or_default()
}

pub(super) fn repo(id: &str) -> RepoRef {
    RepoRef { connection: "host".into(), id: id.into(), name: format!("acme/{id}").into() }
}

/// A commit id made of one letter.
pub(super) fn sha(letter: char) -> Option<CommitId> {
    String::from(letter).repeat(40).parse().ok()
}

pub(super) const MAIN: &str = "refs/heads/main";

pub(super) fn on(delivery: &str, seen: Seen, claim: SubjectClaim) -> Observation {
    Observation::new(tenant(), repo("api"), "webhook".into(), delivery.into(), seen, claim)
}

pub(super) fn at_ref(name: &str, before: Before, after: Option<CommitId>) -> SubjectClaim {
    SubjectClaim::Ref(RefClaim { name: name.into(), after, before, forced: None })
}

pub(super) fn push(
    delivery: &str,
    before: Option<CommitId>,
    after: Option<CommitId>,
) -> Observation {
    on(delivery, Seen::Told, at_ref(MAIN, Before::Was(before), after))
}

pub(super) fn read(delivery: &str, as_of: i64, after: Option<CommitId>) -> Observation {
    on(delivery, Seen::Read { as_of }, at_ref(MAIN, Before::Unknown, after))
}

pub(super) fn baseline(delivery: &str, as_of: i64, after: Option<CommitId>) -> Observation {
    on(delivery, Seen::Baseline { as_of }, at_ref(MAIN, Before::Unknown, after))
}

pub(super) fn occurrence(id: &str) -> Observation {
    let claim = Occurrence::new(EventKind::MANUAL, id);
    on(id, Seen::Told, SubjectClaim::Occurrence(Box::new(claim)))
}

pub(super) fn pull_request(
    number: u64,
    state: PullRequestState,
    updated_at: Timestamp,
) -> PullRequest {
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

pub(super) fn zero() -> CommitId {
    // Forty digits are always a commit id.
    match "0".repeat(40).parse() {
        Ok(commit) => commit,
        Err(_) => unreachable!("forty digits are a commit id"),
    }
}

pub(super) fn pulled(delivery: &str, pull_request: PullRequest) -> Observation {
    let claim = SubjectClaim::PullRequest(Box::new(PullRequestClaim { pull_request }));
    on(delivery, Seen::Told, claim)
}

pub(crate) fn planned(name: &str, event: &str, order: i64, at: Timestamp) -> Run {
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
        secrets: Vec::new(),
        credential_until: None,
        remarks: BTreeMap::new(),
        notify: Vec::new(),
        asked_notifiers: Vec::new(),
        status_context: None,
        retention: None,
        facts: Vec::new(),
        judged_by: BTreeMap::new(),
        created_at: at,
        started_at: None,
        finished_at: None,
    }
}

pub(crate) fn in_group(mut run: Run, group: &str) -> Run {
    run.groups.push(GroupMembership {
        group: group.into(),
        strategy: Strategy::Replace { cancel: CancelMode::RunFinally },
    });
    run
}

pub(super) fn run_work(stage: Stage, name: &str) -> NewWork {
    NewWork::now(tenant(), stage, WorkKey::run(RunKey::from(name.to_owned())))
}

pub(super) fn runs(runs: Vec<Run>) -> Effects {
    Effects { runs, ..Effects::default() }
}

pub(super) fn changes(runs: Vec<Run>) -> Effects {
    let changes = runs.into_iter().map(|run| RunChange { run }).collect();
    Effects { changes, ..Effects::default() }
}

pub(super) fn work(work: Vec<NewWork>) -> Effects {
    Effects { work, ..Effects::default() }
}

pub(super) fn notification(run: &Run, key: &str) -> OutboxNotification {
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
        may_have_reached: false,
        result: None,
        created_at: run.created_at,
        tried_at: None,
    }
}

pub(super) fn status_key() -> StatusKey {
    StatusKey { tenant: tenant(), repo: repo("api"), commit: zero(), context: "ci/test".into() }
}

pub(super) fn desire(order: i64, title: &str) -> StatusDesire {
    let subject = StatusSubject::Note {
        state: StatusState::Queued,
        title: title.into(),
        summary: String::new(),
        actions: Vec::new(),
    };
    StatusDesire { key: status_key(), order, subject }
}
