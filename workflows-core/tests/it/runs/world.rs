//! An engine with a scripted host and a scripted sink, and runs that are planned straight into its
//! ledger, as the matcher would plan them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use workflows_core::{
    CancelMode, CommitId, Delivered, Engine, EngineOptions, Error, ErrorKind, EventKind,
    ManualClock, NotificationView, Notifier, Result, Run, RunKey, RunState, Store, Tenant,
    Transition, WorkflowId,
    conformance::{ScriptedRepo, ScriptedScm, ScriptedSink},
    engine::EngineBuilder,
    policy::{DefaultPolicy, Facts, FactsOrigin, PlannedRun, Policy, Request, Verdict},
    run::{CancelReason, Cancellation, Origin},
    store::{
        ClaimRequest, Effects, MemoryStore, NewWork, RunChange, Stage, StatusDesire, StatusKey,
        StatusSubject, WorkKey,
    },
    workflow::Notification,
};

pub(super) const SECONDS: fn(i64) -> SignedDuration = SignedDuration::from_secs;
pub(super) const HOURS: fn(i64) -> SignedDuration = SignedDuration::from_hours;

/// Tells a test what it was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder {
    told: Arc<Mutex<Vec<NotificationView>>>,
    failures: Arc<Mutex<VecDeque<ErrorKind>>>,
    panics: Arc<AtomicBool>,
}

impl Recorder {
    pub(super) fn told(&self) -> Vec<NotificationView> {
        self.told.lock().unwrap().clone()
    }

    pub(super) fn transitions(&self) -> Vec<Transition> {
        self.told().iter().map(|one| one.transition).collect()
    }

    pub(super) fn fail_next(&self, kind: ErrorKind) {
        self.failures.lock().unwrap().push_back(kind);
    }

    pub(super) fn succeed(&self) {
        self.failures.lock().unwrap().clear();
    }

    pub(super) fn panic_next(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Notifier for Recorder {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "told to panic");
        if let Some(kind) = self.failures.lock().unwrap().pop_front() {
            return Err(Error::new(kind, "deliver", "told to fail"));
        }
        self.told.lock().unwrap().push(notification.clone());
        Ok(Delivered { reference: Some(format!("message-{}", self.told().len())) })
    }
}

/// Allows everything until it is told otherwise.
#[derive(Debug, Clone, Default)]
pub(super) struct SwitchPolicy {
    revoked: Arc<AtomicBool>,
    judges_hard: Arc<AtomicBool>,
}

impl SwitchPolicy {
    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    pub(super) fn forbid_service_accounts(&self) {
        self.judges_hard.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Policy for SwitchPolicy {
    async fn decide(&self, facts: &Facts) -> Result<Verdict> {
        if self.revoked.load(Ordering::SeqCst) {
            return Ok(Verdict::Deny { rule: "nobody may any more".to_owned() });
        }
        DefaultPolicy.decide(facts).await
    }

    async fn judge(&self, request: &PlannedRun<'_>) -> Result<Verdict> {
        if self.judges_hard.load(Ordering::SeqCst) && !request.service_accounts().is_empty() {
            return Ok(Verdict::Deny { rule: "no service accounts".to_owned() });
        }
        Ok(Verdict::Allow)
    }

    fn version(&self, _tenant: &Tenant) -> String {
        "switch".to_owned()
    }
}

pub(super) struct World {
    pub(super) clock: ManualClock,
    pub(super) store: Arc<dyn Store>,
    pub(super) sink: ScriptedSink,
    pub(super) scm: ScriptedScm,
    pub(super) repo: ScriptedRepo,
    pub(super) notifier: Recorder,
    pub(super) policy: SwitchPolicy,
    pub(super) options: EngineOptions,
    pub(super) engine: Engine,
    pushes: AtomicU32,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut EngineOptions)) -> Self {
        let clock = ManualClock::at(Timestamp::from_second(1_000_000).unwrap());
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        Self::over(clock, store, ScriptedScm::new(), change)
    }

    /// A world with its ledger in SQLite.
    #[cfg(feature = "sqlite")]
    pub(super) async fn in_sqlite() -> Self {
        use workflows_core::store::{SqliteOptions, SqliteStore};
        let clock = ManualClock::at(Timestamp::from_second(1_000_000).unwrap());
        let options = SqliteOptions::default();
        let store = SqliteStore::open_in_memory(options, Arc::new(clock.clone())).await.unwrap();
        Self::over(clock, Arc::new(store), ScriptedScm::new(), |_| {})
    }

    pub(super) fn over(
        clock: ManualClock,
        store: Arc<dyn Store>,
        scm: ScriptedScm,
        change: impl FnOnce(&mut EngineOptions),
    ) -> Self {
        let mut options = EngineOptions::default();
        change(&mut options);
        let sink = ScriptedSink::new();
        let repo = scm.create("acme/api");
        let (notifier, policy) = (Recorder::default(), SwitchPolicy::default());
        let engine = Self::parts(&clock, &store, &sink, &scm, &notifier, &policy)
            .options(options.clone())
            .build()
            .unwrap();
        Self {
            clock,
            store,
            sink,
            scm,
            repo,
            notifier,
            policy,
            options,
            engine,
            pushes: AtomicU32::new(0),
        }
    }

    fn parts(
        clock: &ManualClock,
        store: &Arc<dyn Store>,
        sink: &ScriptedSink,
        scm: &ScriptedScm,
        notifier: &Recorder,
        policy: &SwitchPolicy,
    ) -> EngineBuilder {
        Engine::builder()
            .clock(Arc::new(clock.clone()))
            .store(store.clone())
            .sink("scripted", Arc::new(sink.clone()))
            .connection(scm.connection(), Arc::new(scm.clone()))
            .notifier("chat", Arc::new(notifier.clone()))
            .policy(Arc::new(policy.clone()))
    }

    /// Another engine over the same ledger, host and sink: another process, or this one again.
    pub(super) fn another_engine(&self) -> Engine {
        self.engine_over(self.store.clone())
    }

    pub(super) fn engine_over(&self, store: Arc<dyn Store>) -> Engine {
        Self::parts(&self.clock, &store, &self.sink, &self.scm, &self.notifier, &self.policy)
            .options(self.options.clone())
            .build()
            .unwrap()
    }

    /// Plans a run for a new push to `main`.
    pub(super) async fn plan(&self, change: impl FnOnce(&mut Run)) -> RunKey {
        self.plan_on("main", change).await
    }

    /// Plans a run for a new push: it is admitted when it has no groups.
    pub(super) async fn plan_on(&self, branch: &str, change: impl FnOnce(&mut Run)) -> RunKey {
        let number = self.pushes.fetch_add(1, Ordering::SeqCst);
        let text = number.to_string();
        let pushed = self.repo.push("alice", branch, &[("count", &text)]);
        let admitted = self.store.admit(vec![pushed], None).await.unwrap();
        let event = admitted[0].event().unwrap().clone();
        let tenant = event.tenant.clone();
        let only = ClaimRequest::of(Stage::Match, 1)
            .only(tenant.clone(), WorkKey::event(event.key.clone()));
        let claim = self.store.claim(only).await.unwrap().claims.remove(0);

        let head = event.head.clone().unwrap();
        let workflow = WorkflowId::registered("ci");
        let mut facts = Facts::new(
            tenant.clone(),
            event.repo.clone(),
            EventKind::PUSH,
            Request::Run,
            FactsOrigin::OwnRef,
        );
        facts.actor = Some("alice".into());
        let mut run = Run {
            key: RunKey::from(String::new()),
            version: 0,
            tenant: tenant.clone(),
            repo: event.repo.clone(),
            workflow,
            trigger: "push".into(),
            event: event.key.clone(),
            order: event.sequence,
            subject: event.subject.clone(),
            unchained: false,
            attempt: workflows_core::AttemptId::first(),
            commit: Some(head.sha),
            reference: Some(head.reference),
            pull_request: None,
            origin: Origin { digest: "digest".into(), commit: None, path: None },
            name: format!("ci-{number}").into(),
            sink: "scripted".into(),
            pipeline_run: Arc::new(json!({
                "apiVersion": "tekton.dev/v1",
                "kind": "PipelineRun",
                "spec": {"params": [{"name": "number", "value": text}]},
            })),
            groups: Vec::new(),
            state: RunState::Admitted,
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
            remarks: Default::default(),
            notify: Vec::new(),
            asked_notifiers: Vec::new(),
            status_context: Some("workflows/ci".into()),
            retention: None,
            facts: vec![facts],
            judged_by: Default::default(),
            created_at: event.received_at,
            started_at: None,
            finished_at: None,
        };
        change(&mut run);
        if !run.groups.is_empty() {
            run.state = RunState::Planned;
        }
        if run.key.as_str().is_empty() {
            run.key = RunKey::of(&tenant, &run.workflow, &run.trigger, &run.event, &run.attempt);
        }
        let key = run.key.clone();
        let stage = match run.state {
            RunState::Planned => Stage::Schedule,
            _ => Stage::Dispatch,
        };
        let mut effects = Effects {
            work: vec![NewWork::now(tenant.clone(), stage, WorkKey::run(key.clone()))],
            ..Effects::default()
        };
        if let Some(status) = status_key(&run) {
            effects.statuses.push(StatusDesire {
                key: status.clone(),
                order: run.order,
                subject: StatusSubject::Run { run: key.clone() },
            });
            effects.work.push(NewWork::now(tenant, Stage::Report, WorkKey::Status { status }));
        }
        effects.runs.push(run);
        self.store.commit(&claim.lease, effects).await.unwrap();
        key
    }

    /// Does all that is due.
    pub(super) async fn idle(&self) {
        self.engine.run_until_idle().await.unwrap();
    }

    /// Lets time pass, and does all that is due then.
    pub(super) async fn later(&self, by: SignedDuration) {
        self.clock.advance(by);
        self.idle().await;
    }

    /// Lets time pass in small steps, each with all that is due then.
    pub(super) async fn over_time(&self, whole: SignedDuration, step: SignedDuration) {
        let end = self.clock_now() + whole;
        while self.clock_now() < end {
            self.later(step).await;
        }
    }

    pub(super) fn clock_now(&self) -> Timestamp {
        workflows_core::Clock::now(&self.clock)
    }

    pub(super) async fn run(&self, key: &RunKey) -> Run {
        self.store.run(&Tenant::default(), key).await.unwrap().unwrap()
    }

    pub(super) async fn state(&self, key: &RunKey) -> RunState {
        self.run(key).await.state
    }

    /// Plans a run and brings it to its sink.
    pub(super) async fn running(&self, change: impl FnOnce(&mut Run)) -> RunKey {
        let key = self.plan(change).await;
        self.idle().await;
        assert_eq!(self.state(&key).await, RunState::Running, "{:?}", self.run(&key).await);
        key
    }

    /// Tells a run to end, as the command of that name does.
    pub(super) async fn order_cancel(&self, key: &RunKey, mode: CancelMode) {
        let cancel = Cancellation {
            mode,
            reason: CancelReason::Requested { by: "bob".to_owned() },
            at: self.clock_now(),
            delivered: false,
        };
        self.change(key, |run| run.cancel = Some(cancel)).await;
    }

    /// Changes a run, and makes the dispatcher look at it.
    pub(super) async fn change(&self, key: &RunKey, change: impl FnOnce(&mut Run)) {
        let pushed = self.repo.push("alice", "elsewhere", &[("x", key.as_str())]);
        let admitted = self.store.admit(vec![pushed], None).await.unwrap();
        let event = admitted[0].event().unwrap().clone();
        let only =
            ClaimRequest::of(Stage::Match, 1).only(event.tenant.clone(), WorkKey::event(event.key));
        let claim = self.store.claim(only).await.unwrap().claims.remove(0);
        let mut run = self.run(key).await;
        change(&mut run);
        let work = NewWork::now(event.tenant, Stage::Dispatch, WorkKey::run(key.clone()));
        let effects =
            Effects { changes: vec![RunChange { run }], work: vec![work], ..Effects::default() };
        self.store.commit(&claim.lease, effects).await.unwrap();
    }

    /// What the host shows for a run's commit.
    pub(super) async fn shown(&self, key: &RunKey) -> Option<workflows_core::repo::Status> {
        let commit = self.commit(key).await;
        self.repo.status(&commit, "workflows/ci")
    }

    pub(super) async fn commit(&self, key: &RunKey) -> CommitId {
        self.run(key).await.commit.unwrap()
    }
}

pub(super) fn status_key(run: &Run) -> Option<StatusKey> {
    Some(StatusKey {
        tenant: run.tenant.clone(),
        repo: run.repo.clone(),
        commit: run.commit.clone()?,
        context: run.status_context.clone()?,
    })
}

pub(super) fn tell_chat(on: &[Transition]) -> Vec<Notification> {
    vec![Notification::new("chat", on)]
}
