//! The promises of concurrency groups, checked over any [`Store`] with random interleavings of
//! arrivals, decisions, ends, cancels, holds, crashes and clock jumps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    AttemptId, CancelMode, Clock, ConnectionName, Error, EventKey, EventKind, GroupKey,
    ManualClock, Observation, RepoConnection, RepoRef, Result, Run, RunKey, RunState, SharedClock,
    Store, SubjectClaim, Tenant, WorkflowId,
    engine::scheduler::{self, Scheduled, Scheduler},
    event::{Occurrence, Seen, SubjectKey},
    run::{CancelReason, Cancellation, GroupMembership},
    source::Connections,
    store::{Claim, ClaimRequest, Effects, NewWork, Release, RunChange, Stage, WorkKey},
    workflow::{QueueLimits, Strategy},
};

/// Plays one random history for each seed on a fresh store, and checks after every step that
///
/// - a queue never has more runs under way than its limit, and lets them go on in the order of
///   intake;
/// - of a group that replaces, no two runs are under way that have not been told to end;
/// - nobody is told to end, or superseded, by an older run;
/// - no more runs wait than a queue lets wait, and none waits longer than its limit;
///
/// and at the end that every run has come to an end without waiting for a time limit.
///
/// `open` makes an empty store that decides about leases by the given clock.
///
/// # Panics
///
/// When a promise is broken: with the seed, and the history that led there.
pub async fn keep_their_promises<F>(open: F, seeds: Range<u64>)
where
    F: AsyncFn(SharedClock) -> Arc<dyn Store>,
{
    for seed in seeds {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(400_000));
        let store = open(Arc::new(clock.clone())).await;
        let mut world = World::new(store, clock, seed);
        for _ in 0..world.dice.below(60) + 10 {
            world.step().await;
        }
        world.come_to_rest().await;
    }
}

/// What kinds of workflows there are: each with the groups of its runs.
fn workflows() -> Vec<Vec<(&'static str, Strategy)>> {
    let replace = |cancel| Strategy::Replace { cancel };
    let queue = |max_running| {
        Strategy::Queue(QueueLimits { max_running, max_queued: None, max_wait: None })
    };
    let bounded = Strategy::Queue(QueueLimits {
        max_running: 2,
        max_queued: Some(2),
        max_wait: Some("10m".to_owned()),
    });
    vec![
        vec![("replace", replace(CancelMode::RunFinally))],
        vec![("queue", queue(1))],
        vec![("bounded", bounded)],
        vec![("newest-waits", replace(CancelMode::AtOnce)), ("lock", queue(1))],
        vec![("lock", queue(1)), ("machines", queue(2))],
        vec![("machines", queue(2))],
        vec![("any", Strategy::Allow)],
        vec![
            ("newest-a", replace(CancelMode::AfterRunningTasks)),
            ("newest-b", replace(CancelMode::AtOnce)),
        ],
    ]
}

/// Groups in which every member replaces.
const REPLACING: [&str; 4] = ["replace", "newest-waits", "newest-a", "newest-b"];

/// Groups in which every member queues, with their limits.
const QUEUES: [(&str, usize); 4] = [("queue", 1), ("bounded", 2), ("lock", 1), ("machines", 2)];

const MAX_WAIT: SignedDuration = SignedDuration::from_mins(10);

struct World {
    store: Arc<dyn Store>,
    clock: ManualClock,
    dice: Dice,
    tenant: Tenant,
    workflows: Vec<Vec<(&'static str, Strategy)>>,
    /// Events whose runs have not been planned, with the workflow that they start.
    unplanned: Vec<(EventKey, i64, usize)>,
    /// Every run as it was seen last.
    runs: BTreeMap<RunKey, Run>,
    /// Decisions that were made and not committed.
    undecided: Vec<(Claim, Scheduled)>,
    held: BTreeSet<usize>,
    commands: u64,
    seed: u64,
    history: Vec<String>,
}

impl World {
    fn new(store: Arc<dyn Store>, clock: ManualClock, seed: u64) -> Self {
        Self {
            store,
            clock,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B),
            tenant: Tenant::default(),
            workflows: workflows(),
            unplanned: Vec::new(),
            runs: BTreeMap::new(),
            undecided: Vec::new(),
            held: BTreeSet::new(),
            commands: 0,
            seed,
            history: Vec::new(),
        }
    }

    async fn step(&mut self) {
        match self.dice.below(20) {
            0..=3 => self.arrive().await,
            4..=6 => self.plan().await,
            7..=9 => self.decide().await,
            10..=12 => self.commit_a_decision().await,
            13..=14 => self.dispatch().await,
            15..=16 => self.end_one().await,
            17 => self.command().await,
            18 => self.jump(),
            _ => {
                // A crash: what was decided is not committed, and its lease runs out.
                if !self.undecided.is_empty() {
                    let index = self.dice.below(self.undecided.len());
                    self.undecided.swap_remove(index);
                    self.note("a decision is lost");
                }
            }
        }
    }

    // --- what happens ----------------------------------------------------------------------------

    async fn arrive(&mut self) {
        let workflow = self.dice.below(self.workflows.len());
        let (event, order) = self.occur(EventKind::MANUAL).await;
        self.note(format!("event {order} arrives for workflow {workflow}"));
        self.unplanned.push((event, order, workflow));
    }

    /// Plans a run for one of the events, not in the order in which they came.
    async fn plan(&mut self) {
        if self.unplanned.is_empty() {
            return;
        }
        let index = self.dice.below(self.unplanned.len());
        let (event, order, workflow) = self.unplanned.swap_remove(index);
        let run = self.run_of(&event, order, workflow);
        self.note(format!("run {} of workflow {workflow} is planned", order));
        let key = run.key.clone();
        let effects = Effects {
            runs: vec![run],
            work: vec![NewWork::now(
                self.tenant.clone(),
                Stage::Schedule,
                WorkKey::run(key.clone()),
            )],
            ..Effects::default()
        };
        let claim = self.claim_event(event).await;
        self.must(self.store.commit(&claim.lease, effects).await);
        self.look(&[key]).await;
    }

    /// Decides a run; the decision is committed later, perhaps after others.
    async fn decide(&mut self) {
        let request = ClaimRequest::of(Stage::Schedule, 3);
        let mut claims = self.must(self.store.claim(request).await).claims;
        if claims.is_empty() {
            return;
        }
        let chosen = claims.swap_remove(self.dice.below(claims.len()));
        for other in claims {
            self.must(self.store.release(&other.lease, Release::default()).await);
        }
        self.decide_claim(chosen).await;
    }

    async fn decide_claim(&mut self, claim: Claim) {
        let WorkKey::Run { run: key } = claim.work.key.clone() else { return };
        let scheduler = Scheduler {
            store: self.store.as_ref(),
            connections: &NoRepository,
            call_timeout: Duration::from_secs(1),
            patient: false,
            now: self.clock.now(),
        };
        match scheduler.decide(&self.tenant, &key).await {
            Ok(scheduled) => {
                let held = self.held.contains(&self.workflow_of(&key));
                let admits = scheduled
                    .changes
                    .iter()
                    .any(|(_, after)| after.key == key && after.state == RunState::Admitted);
                self.check(!(held && admits), || "a run of a held workflow goes on");
                self.undecided.push((claim, scheduled));
            }
            Err(error) => {
                self.check(error.kind() == crate::ErrorKind::Conflict, || error.to_string());
                self.must(self.store.release(&claim.lease, Release::default()).await);
            }
        }
    }

    async fn commit_a_decision(&mut self) {
        if self.undecided.is_empty() {
            return;
        }
        let index = self.dice.below(self.undecided.len());
        let (claim, scheduled) = self.undecided.swap_remove(index);
        for (before, after) in &scheduled.changes {
            self.history.push(format!(
                "decided: run {} {} -> {} {}",
                before.order, before.state, after.state, after.message
            ));
        }
        let changes = scheduled.changes.clone();
        match self.store.commit(&claim.lease, scheduled.into_effects()).await {
            Ok(_) => {
                let keys: Vec<RunKey> = changes.iter().map(|(run, _)| run.key.clone()).collect();
                self.look(&keys).await;
                for (before, after) in &changes {
                    if after.state == RunState::Admitted && before.state != RunState::Admitted {
                        self.check_turn(after);
                    }
                }
            }
            Err(error) => {
                self.note("... which came too late");
                self.check(error.kind() == crate::ErrorKind::Conflict, || error.to_string());
                // The lease may be lost as well.
                let _ = self.store.release(&claim.lease, Release::default()).await;
            }
        }
    }

    /// Does what a dispatcher does: creates a run, or tells one to end.
    async fn dispatch(&mut self) {
        let request = ClaimRequest::of(Stage::Dispatch, 1);
        let claims = self.must(self.store.claim(request).await).claims;
        for claim in claims {
            let WorkKey::Run { run: key } = claim.work.key.clone() else { continue };
            let Some(mut run) = self.must(self.store.run(&self.tenant, &key).await) else {
                continue;
            };
            let mut effects = Effects::default();
            if let Some(cancel) = &mut run.cancel {
                if run.state.is_terminal() || cancel.delivered {
                } else if run.state == RunState::Running {
                    cancel.delivered = true;
                    effects.changes.push(RunChange { run });
                } else {
                    effects = self.ended(run).await;
                }
            } else if run.state == RunState::Admitted {
                for replaced in &run.replaces {
                    let told = &self.runs[replaced];
                    self.check(told.state.is_terminal() || told.cancel.is_some(), || {
                        format!("run {} was not told to end before its successor", told.order)
                    });
                }
                run.state = RunState::Running;
                effects.changes.push(RunChange { run });
            }
            let outcome = self.store.commit(&claim.lease, effects).await;
            if outcome.is_err() {
                let _ = self.store.release(&claim.lease, Release::default()).await;
            }
            self.note(format!("dispatched: {}", self.runs[&key].order));
            self.look(&[key]).await;
        }
    }

    /// Ends a run that is under way.
    async fn end_one(&mut self) {
        let running: Vec<RunKey> = self
            .runs
            .values()
            .filter(|run| run.state == RunState::Running)
            .map(|run| run.key.clone())
            .collect();
        if running.is_empty() {
            return;
        }
        let key = running[self.dice.below(running.len())].clone();
        let Some(run) = self.must(self.store.run(&self.tenant, &key).await) else { return };
        self.note(format!("run {} ends", run.order));
        let effects = self.ended(run).await;
        self.tell(effects).await;
        self.look(&[key]).await;
    }

    async fn ended(&self, mut run: Run) -> Effects {
        run.state = match run.cancel.as_ref().map(|cancel| &cancel.reason) {
            None => RunState::Succeeded,
            Some(CancelReason::Requested { .. }) => RunState::Cancelled,
            Some(CancelReason::SupersededBy(_)) => RunState::Superseded,
        };
        run.finished_at = Some(self.clock.now());
        let leaving =
            self.must(scheduler::leaving(self.store.as_ref(), &self.tenant, &[&run]).await);
        Effects {
            changes: vec![RunChange { run }],
            groups: leaving.groups,
            work: leaving.work,
            ..Effects::default()
        }
    }

    async fn command(&mut self) {
        let store = Arc::clone(&self.store);
        match self.dice.below(6) {
            0 => {
                let workflow = self.dice.below(self.workflows.len());
                let id = workflow_id(workflow);
                let now = self.clock.now();
                let hold = scheduler::hold(store.as_ref(), &self.tenant, &id, "me", "", now).await;
                let effects = self.must(hold);
                if self.tell(effects).await {
                    self.note(format!("workflow {workflow} is held"));
                    self.held.insert(workflow);
                }
            }
            1 | 2 => {
                let held: Vec<usize> = self.held.iter().copied().collect();
                if !held.is_empty() {
                    let workflow = held[self.dice.below(held.len())];
                    self.release(workflow).await;
                }
            }
            3 => {
                let (group, _) = QUEUES[self.dice.below(QUEUES.len())];
                let now = self.clock.now();
                let cleared =
                    scheduler::clear_queue(store.as_ref(), &self.tenant, &group.into(), "me", now)
                        .await;
                let cleared = self.must(cleared);
                let keys: Vec<RunKey> =
                    cleared.changes.iter().map(|(run, _)| run.key.clone()).collect();
                self.note(format!("the queue of {group} is cleared"));
                self.tell(cleared.into_effects()).await;
                self.look(&keys).await;
            }
            _ => {
                let alive: Vec<Run> =
                    self.runs.values().filter(|run| !run.state.is_terminal()).cloned().collect();
                if alive.is_empty() {
                    return;
                }
                let key = alive[self.dice.below(alive.len())].key.clone();
                let Some(mut run) = self.must(self.store.run(&self.tenant, &key).await) else {
                    return;
                };
                if run.cancel.is_some() || run.state.is_terminal() {
                    return;
                }
                self.note(format!("somebody cancels run {}", run.order));
                run.cancel = Some(Cancellation {
                    mode: CancelMode::RunFinally,
                    reason: CancelReason::Requested { by: "me".to_owned() },
                    at: self.clock.now(),
                    delivered: false,
                });
                let work =
                    NewWork::now(self.tenant.clone(), Stage::Dispatch, WorkKey::run(key.clone()));
                let effects = Effects {
                    changes: vec![RunChange { run }],
                    work: vec![work],
                    ..Effects::default()
                };
                self.tell(effects).await;
                self.look(&[key]).await;
            }
        }
    }

    async fn release(&mut self, workflow: usize) {
        let unhold =
            scheduler::unhold(self.store.as_ref(), &self.tenant, &workflow_id(workflow)).await;
        let effects = self.must(unhold);
        if self.tell(effects).await {
            self.note(format!("workflow {workflow} is released"));
            self.held.remove(&workflow);
        }
    }

    fn jump(&mut self) {
        let seconds = match self.dice.below(4) {
            0 => -60,
            1 => 40,
            2 => 5,
            _ => 240,
        };
        self.note(format!("the clock moves by {seconds} s"));
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    /// Nothing new comes any more, and what runs ends: then everything ends, without waiting for a
    /// limit of a queue.
    async fn come_to_rest(&mut self) {
        self.note("--- nothing new comes any more");
        self.undecided.clear();
        while !self.unplanned.is_empty() {
            self.plan().await;
        }
        while let Some(workflow) = self.held.first().copied() {
            self.release(workflow).await;
        }
        // The leases of what was lost run out.
        self.clock.advance(SignedDuration::from_secs(31));
        for _ in 0..2_000 {
            if self.runs.values().all(|run| run.state.is_terminal()) {
                break;
            }
            self.decide().await;
            self.commit_a_decision().await;
            self.dispatch().await;
            self.end_one().await;
        }
        let waiting: Vec<i64> = self
            .runs
            .values()
            .filter(|run| !run.state.is_terminal())
            .map(|run| run.order)
            .collect();
        self.check(waiting.is_empty(), || format!("runs {waiting:?} wait for ever"));
        for group in REPLACING {
            let newest = self.members(group).max_by_key(|run| (run.order, &run.key));
            let superseded = newest.is_some_and(|run| run.state == RunState::Superseded);
            self.check(
                // In its other group a newer one may have taken its place.
                !superseded || newest.is_some_and(|run| self.has_a_newer_rival(run)),
                || format!("the newest run of {group} was superseded"),
            );
        }
    }

    // --- how it is checked -----------------------------------------------------------------------

    /// Reads runs again that changed, and checks what was promised of them and of the groups.
    async fn look(&mut self, keys: &[RunKey]) {
        for key in keys {
            if let Some(run) = self.must(self.store.run(&self.tenant, key).await) {
                self.check_run(&run);
                self.runs.insert(key.clone(), run);
            }
        }
        self.check_groups();
    }

    fn check_run(&self, run: &Run) {
        if let Some(Cancellation { reason: CancelReason::SupersededBy(by), .. }) = &run.cancel {
            let newer = &self.runs[by];
            self.check((newer.order, &newer.key) > (run.order, &run.key), || {
                format!("run {} was superseded by the older run {}", run.order, newer.order)
            });
        }
        // The clock may have been put back since, by as much as it ever is.
        let waited = self.clock.now().duration_since(run.created_at);
        let expired = run.message.starts_with("expired in its queue");
        self.check(
            !expired || self.runs[&run.key].state.is_terminal() || waited >= MAX_WAIT,
            || format!("run {} expired too early", run.order),
        );
    }

    fn check_groups(&self) {
        for (group, limit) in QUEUES {
            let under_way = self.members(group).filter(|run| run.state.holds_a_place()).count();
            self.check(under_way <= limit, || format!("{under_way} runs are under way in {group}"));
        }
        let queued = self.members("bounded").filter(|run| run.state == RunState::Queued).count();
        self.check(queued <= 2, || format!("{queued} runs wait in bounded"));
        for group in REPLACING {
            let going_on = self
                .members(group)
                .filter(|run| run.state.holds_a_place() && run.cancel.is_none())
                .count();
            self.check(going_on <= 1, || format!("{going_on} runs of {group} go on together"));
        }
    }

    /// Checks that nobody waits in a queue of a run that was just admitted who came before it.
    fn check_turn(&self, admitted: &Run) {
        for membership in &admitted.groups {
            if !matches!(membership.strategy, Strategy::Queue(_)) {
                continue;
            }
            let group = membership.group.as_str();
            let before = self.members(group).find(|run| {
                matches!(run.state, RunState::Planned | RunState::Queued)
                    && (run.order, &run.key) < (admitted.order, &admitted.key)
                    && run.workflow == admitted.workflow
            });
            if let Some(before) = before {
                self.check(false, || {
                    format!("run {} goes on in {group} before {}", admitted.order, before.order)
                });
            }
        }
    }

    fn has_a_newer_rival(&self, run: &Run) -> bool {
        run.groups.iter().any(|membership| {
            self.members(membership.group.as_str()).any(|other| other.order > run.order)
        })
    }

    fn members<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs
            .values()
            .filter(move |run| run.groups.iter().any(|one| one.group.as_str() == group))
    }

    fn check<T: fmt::Display>(&self, holds: bool, otherwise: impl FnOnce() -> T) {
        if !holds {
            panic!("seed {}: {}\n{}", self.seed, otherwise(), self.history.join("\n"));
        }
    }

    fn must<T>(&self, result: Result<T>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => panic!("seed {}: {error}\n{}", self.seed, self.history.join("\n")),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    // --- how it is fed ---------------------------------------------------------------------------

    async fn occur(&mut self, kind: EventKind) -> (EventKey, i64) {
        self.commands += 1;
        let id = self.commands.to_string();
        let observation = Observation::new(
            self.tenant.clone(),
            repo(),
            "groups".into(),
            format!("{kind}-{id}").into(),
            Seen::Told,
            SubjectClaim::Occurrence(Box::new(Occurrence::new(kind, id))),
        );
        let admitted = self.must(self.store.admit(vec![observation], None).await);
        let event = admitted.first().and_then(|one| one.event());
        self.check(event.is_some(), || "a new occurrence is no event");
        event.map_or_else(|| ("".into(), 0), |event| (event.key.clone(), event.sequence))
    }

    async fn claim_event(&self, event: EventKey) -> Claim {
        let key = WorkKey::Event { event, attempt: AttemptId::first() };
        let request = ClaimRequest::of(Stage::Match, 1).only(self.tenant.clone(), key);
        let claimed = self.must(self.store.claim(request).await);
        self.check(claimed.claims.len() == 1, || "the work of an event cannot be claimed");
        self.must(
            claimed
                .claims
                .into_iter()
                .next()
                .ok_or_else(|| Error::not_found("claim the work of an event", "it is not there")),
        )
    }

    /// Commits effects as a command does. Returns whether they were taken.
    async fn tell(&mut self, effects: Effects) -> bool {
        let (event, _) = self.occur(EventKind::COMMAND).await;
        let claim = self.claim_event(event).await;
        match self.store.commit(&claim.lease, effects).await {
            Ok(_) => true,
            Err(error) => {
                self.check(error.kind() == crate::ErrorKind::Conflict, || error.to_string());
                self.must(self.store.commit(&claim.lease, Effects::default()).await);
                false
            }
        }
    }

    fn run_of(&self, event: &EventKey, order: i64, workflow: usize) -> Run {
        let id = workflow_id(workflow);
        let key = RunKey::of(&self.tenant, &id, "t", event, &AttemptId::first());
        let mut groups: Vec<GroupMembership> = self.workflows[workflow]
            .iter()
            .map(|(group, strategy)| GroupMembership {
                group: GroupKey::new(*group),
                strategy: strategy.clone(),
            })
            .collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        let state = if groups.is_empty() { RunState::Admitted } else { RunState::Planned };
        self.must(
            serde_json::from_value(json!({
                "key": key,
                "version": 1,
                "tenant": self.tenant,
                "repo": repo(),
                "workflow": id,
                "trigger": "t",
                "event": event,
                "order": order,
                "subject": SubjectKey::reference("refs/heads/main"),
                "attempt": "",
                "commit": null,
                "reference": null,
                "origin": { "digest": "d" },
                "name": format!("run-{order}"),
                "sink": "sink",
                "pipelineRun": {},
                "groups": groups,
                "state": state,
                "createdAt": self.clock.now(),
            }))
            .map_err(|error| Error::invalid("make a run", error.to_string())),
        )
    }

    fn workflow_of(&self, run: &RunKey) -> usize {
        let name = &self.runs[run].workflow.name;
        name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
    }
}

fn workflow_id(workflow: usize) -> WorkflowId {
    WorkflowId::registered(format!("workflow-{workflow}"))
}

fn repo() -> RepoRef {
    RepoRef { connection: "none".into(), id: "1".into(), name: "acme/api".into() }
}

#[derive(Debug)]
struct NoRepository;

#[async_trait]
impl Connections for NoRepository {
    async fn repository(
        &self,
        _tenant: &Tenant,
        _connection: &ConnectionName,
        _repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        Err(Error::unsupported("connect", "the order of intake decides here"))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z % bound.max(1) as u64) as usize
    }
}
