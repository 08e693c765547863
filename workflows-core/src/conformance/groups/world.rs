//! What happens in a history, and in which order: the seed decides.

use std::sync::Arc;

use jiff::SignedDuration;

use super::{
    dice::Dice,
    model::Model,
    replica::{Gate, Made, Replica},
    workflows::{self, MANUAL, PUSH, QUEUES},
};
use crate::{
    CancelMode, Clock, ManualClock, Observation, RepoRef, Result, Run, RunKey, RunPhase, Store,
    Tenant, WorkflowId,
    conformance::{ScriptedRepo, ScriptedScm, ScriptedSink, TappedStore},
    engine::{
        ConnectionOptions, Engine, EngineBuilder, EngineHandle, EngineOptions, Submission,
        scheduler,
    },
    store::{PageRequest, RunQuery, Stage},
    workflow::Strategy,
};

const REPLICAS: usize = 3;
/// What decides about runs. Statuses and notifications do not, and are left alone.
const STAGES: [Stage; 4] = [Stage::Match, Stage::Schedule, Stage::Dispatch, Stage::Observe];

/// The engines, and all that is around them.
pub(super) struct World {
    store: Arc<dyn Store>,
    clock: ManualClock,
    scm: ScriptedScm,
    sink: ScriptedSink,
    handle: EngineHandle,
    replicas: Vec<Replica>,
}

impl World {
    pub(super) fn new(store: Arc<dyn Store>, clock: ManualClock) -> Self {
        let scm = ScriptedScm::new();
        let sink = ScriptedSink::polled();
        // What was told to end goes on until the history says so.
        sink.ignore_cancels();
        let builder = |store: Arc<dyn Store>| -> EngineBuilder {
            let options = EngineOptions {
                concurrency: 2,
                observe_interval: SignedDuration::from_secs(1),
                ..EngineOptions::default()
            };
            let builder = Engine::builder()
                .store(store)
                .clock(Arc::new(clock.clone()))
                .options(options)
                .sink("sink", Arc::new(sink.clone()))
                .connection_of(
                    scm.tenant(),
                    scm.connection(),
                    Arc::new(scm.clone()),
                    ConnectionOptions::registered_only(),
                );
            workflows::all(scm.connection().as_str())
                .into_iter()
                .fold(builder, EngineBuilder::workflow)
        };
        let build = |store| builder(store).build().expect("the engine is built");
        let replica = |_| {
            let gate = Arc::new(Gate::default());
            let tapped = TappedStore::new(Arc::clone(&store), Arc::clone(&gate) as _);
            Replica::new(build(Arc::new(tapped)), gate)
        };
        let replicas = (0..REPLICAS).map(replica).collect();
        let handle = build(Arc::clone(&store)).handle();
        Self { store, clock, scm, sink, handle, replicas }
    }

    /// Plays the history of a seed.
    pub(super) async fn play(&mut self, seed: u64) {
        let name = format!("acme/history-{seed}");
        let repo = self.scm.create(&name);
        // What is run by hand is run for another branch than that of the pushes.
        repo.push("ada", "else", &[("a", "b")]);
        self.sink.forget_everything();
        let mut history = History {
            repo_ref: repo.reference(),
            repo,
            name,
            world: self,
            dice: Dice::of(seed),
            model: Model::default(),
            undelivered: Vec::new(),
            created: 0,
            asked: 0,
            holding: false,
            seed,
            told: Vec::new(),
        };
        for _ in 0..history.dice.below(50) + 10 {
            history.step().await;
        }
        history.come_to_rest().await;
    }
}

/// One history.
struct History<'a> {
    world: &'a mut World,
    repo: ScriptedRepo,
    repo_ref: RepoRef,
    name: String,
    dice: Dice,
    model: Model,
    /// Pushes that the host has not told of yet.
    undelivered: Vec<Observation>,
    /// How many runs the sink had created when it was looked at last.
    created: usize,
    /// How many events and commands there were.
    asked: usize,
    /// Whether anybody held a workflow.
    holding: bool,
    seed: u64,
    told: Vec<String>,
}

impl History<'_> {
    async fn step(&mut self) {
        match self.dice.below(40) {
            0..=3 => self.submit().await,
            4 => self.push(),
            5 | 6 => self.deliver().await,
            7 => self.command().await,
            8 | 9 => self.end_one(),
            10 => self.jump(),
            11 => self.die(),
            _ => {
                let which = self.dice.below(REPLICAS);
                if !self.world.replicas[which].is_busy() {
                    let stages = [
                        Stage::Match,
                        Stage::Schedule,
                        Stage::Schedule,
                        Stage::Dispatch,
                        Stage::Observe,
                    ];
                    let stage = stages[self.dice.below(stages.len())];
                    self.begin(which, stage);
                }
                let loses_answer = self.dice.below(60) == 0;
                self.go_on(which, loses_answer).await;
            }
        }
    }

    // --- what happens ----------------------------------------------------------------------------

    async fn submit(&mut self) {
        let workflow = MANUAL[self.dice.below(MANUAL.len())];
        self.asked += 1;
        let key = format!("{}-{}", self.seed, self.asked);
        let connection = self.world.scm.connection();
        let submission = Submission::new(connection, self.name.as_str(), key, "ada")
            .at_ref("refs/heads/else")
            .for_workflow(workflow);
        let event = self.must(self.world.handle.submit(submission).await);
        self.note(format!("event {} is for {workflow}", event.sequence));
    }

    /// A commit on the branch. The host tells of it some time.
    fn push(&mut self) {
        let number = self.model.chain.len().to_string();
        let told = self.repo.push("ada", "main", &[("number", &number)]);
        self.model.chain.push(self.repo.head("main"));
        self.note(format!("commit {number} is pushed: {}", self.repo.head("main")));
        self.undelivered.push(told);
    }

    /// The host tells of a push, of any that it has not told of, or tells it once more; or somebody
    /// reads the branch.
    async fn deliver(&mut self) {
        if self.undelivered.is_empty() {
            return;
        }
        let which = self.dice.below(self.undelivered.len());
        let (observation, how) = match self.dice.below(8) {
            0 => {
                let position = self.must(self.world.store.position().await);
                (self.repo.read_ref("refs/heads/main", position), "the branch is read")
            }
            1 => (self.undelivered[which].clone(), "a push is told, and will be again"),
            2 => {
                self.undelivered.swap_remove(which);
                self.note("a push is never told");
                return;
            }
            _ => (self.undelivered.swap_remove(which), "a push is told"),
        };
        let admitted = self.must(self.world.store.admit(vec![observation], None).await);
        let event = admitted.first().and_then(|one| one.event());
        let event = event.map_or_else(
            || "no event".to_owned(),
            |event| {
                let doubt = if event.unchained { " (with a gap before it)" } else { "" };
                let head = event.head.as_ref().map_or("", |head| head.sha.as_str());
                format!("event {}{doubt} at {head}", event.sequence)
            },
        );
        self.note(format!("{how}: {event}"));
    }

    async fn command(&mut self) {
        self.asked += 1;
        let tenant = Tenant::default();
        let key = format!("{}-{}", self.seed, self.asked);
        let workflow = MANUAL[self.dice.below(MANUAL.len())];
        match self.dice.below(6) {
            0 => {
                self.holding = true;
                self.note(format!("somebody holds {workflow}"));
                let held = self.world.handle.hold(&tenant, workflows::id(workflow), "", &key, "me");
                let held = held.await;
                self.must(held);
            }
            1 | 2 => {
                let held: Vec<WorkflowId> = self.held();
                if let Some(workflow) = self.dice.one_of(&held) {
                    let released =
                        self.world.handle.unhold(&tenant, workflow.clone(), &key, "me").await;
                    self.must(released);
                    self.note(format!("somebody releases {workflow}"));
                }
            }
            3 => {
                let queue = QUEUES[self.dice.below(QUEUES.len())];
                let group = workflows::group(&self.name, queue);
                self.model.cleared.insert(group.clone());
                self.note(format!("somebody clears {queue}"));
                let cleared = self.world.handle.clear_queue(&tenant, group, &key, "me").await;
                self.must(cleared);
            }
            _ => {
                let alive: Vec<(RunKey, i64)> = self
                    .model
                    .runs()
                    .filter(|run| !run.state.is_terminal())
                    .map(|run| (run.key.clone(), run.order))
                    .collect();
                let Some((run, order)) = self.dice.one_of(&alive) else { return };
                let modes = [CancelMode::AtOnce, CancelMode::RunFinally];
                let mode = modes[self.dice.below(modes.len())];
                self.model.cancels.insert(run.clone());
                self.told.push(format!("somebody cancels run {order}"));
                let cancelled = self.world.handle.cancel(&tenant, run, mode, &key, "me").await;
                self.must(cancelled);
            }
        }
    }

    fn held(&self) -> Vec<WorkflowId> {
        MANUAL.map(workflows::id).into_iter().filter(|id| self.model.is_held(id)).collect()
    }

    /// Something that executes comes to its end.
    fn end_one(&mut self) {
        let executing: Vec<RunKey> = self.executing().map(|run| run.key.clone()).collect();
        let Some(key) = self.dice.one_of(&executing).cloned() else { return };
        let told_to_end = self.world.sink.cancels().iter().any(|(run, _)| *run == key);
        let succeeds = !told_to_end || self.dice.below(3) == 0;
        let phase = if succeeds { RunPhase::Succeeded } else { RunPhase::Cancelled };
        self.world.sink.set_phase(&key, phase);
        let order = self.model.run(&key).map_or(0, |run| run.order);
        self.note(format!("run {order} ends where it executes: {phase:?}"));
    }

    /// The runs that execute, as the sink knows them.
    fn executing(&self) -> impl Iterator<Item = &Run> {
        let executes =
            |run: &&Run| self.world.sink.phase(&run.key).is_some_and(|phase| !phase.is_terminal());
        self.model.runs().filter(executes)
    }

    fn jump(&mut self) {
        let seconds = [-60, 2, 5, 31, 40, 240][self.dice.below(6)];
        self.pass(seconds);
    }

    fn pass(&mut self, seconds: i64) {
        self.note(format!("the clock moves by {seconds} s"));
        self.world.clock.advance(SignedDuration::from_secs(seconds));
        let now = self.world.clock.now();
        self.world.replicas.iter_mut().for_each(|replica| replica.clock_moved(now));
    }

    fn die(&mut self) {
        let which = self.dice.below(REPLICAS);
        if self.world.replicas[which].is_busy() {
            self.note(format!("engine {which} dies"));
            self.world.replicas[which].die();
        }
    }

    fn begin(&mut self, which: usize, stage: Stage) {
        let (since, now) = (self.model.commits(), self.world.clock.now());
        self.world.replicas[which].begin(stage, since, now);
    }

    /// An engine goes on to its next call of the ledger; what came of it is judged.
    async fn go_on(&mut self, which: usize, loses_answer: bool) {
        let gone_on = self.world.replicas[which].go_on(loses_answer).await;
        if let Some(made) = self.must(gone_on) {
            self.judge(which, made).await;
        }
        self.judge_execution();
    }

    /// Nothing new comes any more, and what executes ends: then everything ends.
    async fn come_to_rest(&mut self) {
        self.note("--- nothing new comes any more");
        while !self.undelivered.is_empty() {
            self.deliver().await;
        }
        for workflow in self.held() {
            self.asked += 1;
            let key = format!("{}-{}", self.seed, self.asked);
            let released = self.world.handle.unhold(&Tenant::default(), workflow, &key, "me").await;
            self.must(released);
        }
        for which in 0..REPLICAS {
            self.finish(which).await;
        }
        // The leases of what was lost run out.
        self.pass(31);
        for _ in 0..200 {
            for stage in STAGES {
                self.begin(0, stage);
                self.finish(0).await;
            }
            for workflow in self.held() {
                // It was commanded before, and came to something only now.
                self.asked += 1;
                let key = format!("{}-{}", self.seed, self.asked);
                let released =
                    self.world.handle.unhold(&Tenant::default(), workflow, &key, "me").await;
                self.must(released);
            }
            let executing: Vec<RunKey> = self.executing().map(|run| run.key.clone()).collect();
            for run in executing {
                self.world.sink.set_phase(&run, RunPhase::Succeeded);
            }
            if self.is_at_rest().await {
                break;
            }
            self.pass(2);
        }
        self.judge_the_end().await;
    }

    async fn finish(&mut self, which: usize) {
        while self.world.replicas[which].is_busy() {
            self.go_on(which, false).await;
        }
    }

    /// Whether every run has ended and no stage has anything left to do. What a run that has ended
    /// would have done at the limit of its queue may still wait for that.
    async fn is_at_rest(&self) -> bool {
        let backlog = self.must(self.world.store.backlog().await);
        self.model.runs().all(|run| run.state.is_terminal())
            && backlog
                .iter()
                .filter(|one| STAGES.contains(&one.stage))
                .all(|one| one.due == 0 && (one.stage == Stage::Schedule || one.waiting == 0))
    }

    // --- how it is judged ------------------------------------------------------------------------

    async fn judge(&mut self, which: usize, made: Made) {
        let query = RunQuery::of(Tenant::default())
            .repo(Some(self.repo_ref.id.clone()))
            .page(PageRequest { limit: 1_000, after: None });
        let runs = self.must(self.world.store.runs(query).await).items;
        match self.model.see(runs, made) {
            Ok(seen) => {
                for what in seen {
                    self.note(format!("engine {which}, {}: {what}", made.stage));
                }
            }
            Err(broken) => self.fails(&format!("engine {which}, {}: {broken}", made.stage)),
        }
        if self.holding && made.stage == Stage::Match {
            for workflow in MANUAL.map(workflows::id) {
                let held =
                    scheduler::is_held(&*self.world.store, &Tenant::default(), &workflow).await;
                let held = self.must(held);
                self.model.see_hold(&workflow, held);
            }
        }
    }

    /// Looks at where runs execute, which is the proof: the ledger may say what it likes.
    fn judge_execution(&mut self) {
        let created = self.world.sink.created();
        let told = self.world.sink.cancels();
        for request in created.iter().skip(self.created) {
            let Some(run) = self.model.run(&request.key) else {
                self.fails("a run is created that the ledger does not know");
            };
            self.check(self.world.sink.creations(&run.key) == 1, || {
                format!("run {} is created once more", run.order)
            });
            for older in self.executing().filter(|older| run.replaces.contains(&older.key)) {
                self.check(told.iter().any(|(key, _)| *key == older.key), || {
                    format!("run {} starts before run {} was told to end", run.order, older.order)
                });
            }
        }
        self.created = created.len();
        for queue in QUEUES {
            let group = workflows::group(&self.name, queue);
            let members = self.executing().flat_map(|run| &run.groups);
            let mut limits = members.filter(|one| one.group == group).map(|one| &one.strategy);
            let Some(Strategy::Queue(first)) = limits.next() else { continue };
            let executing = limits.count() + 1;
            self.check(executing <= first.max_running as usize, || {
                format!("{executing} runs of {queue} execute together")
            });
        }
    }

    async fn judge_the_end(&self) {
        let waiting: Vec<i64> =
            self.model.runs().filter(|run| !run.state.is_terminal()).map(|run| run.order).collect();
        self.check(waiting.is_empty(), || format!("runs {waiting:?} never end"));
        self.check(self.is_at_rest().await, || {
            "there is work left that comes to nothing".to_owned()
        });
        let of_branch = || self.model.runs().filter(|run| &*run.workflow.name == PUSH);
        let newest = of_branch()
            .find(|run| of_branch().all(|other| other == *run || self.model.is_newer(run, other)));
        if let Some(newest) = newest {
            self.check(newest.state != crate::RunState::Superseded, || {
                format!("the newest run of the branch, {}, was superseded", newest.order)
            });
        }
    }

    fn check(&self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.fails(&otherwise());
        }
    }

    fn must<T>(&self, result: Result<T>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => self.fails(&format!("{:?}: {error}", error.kind())),
        }
    }

    fn fails(&self, broken: &str) -> ! {
        panic!("seed {}:\n{}\n=> {broken}", self.seed, self.told.join("\n"))
    }

    fn note(&mut self, what: impl Into<String>) {
        self.told.push(what.into());
    }
}
