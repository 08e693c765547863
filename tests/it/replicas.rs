//! Three engines on one Postgres, killed at random moments while commits keep coming; one is frozen
//! for a minute and thawed, and the server is stopped and crashed again and again.
//!
//! What happened is judged by the log of the executor, which is none of them: it has a line for each
//! start, order to end, and end of a run. Then the ledger is asked whether it agrees.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use workflows_core::{
    RunState, SystemClock,
    store::{PostgresOptions, PostgresStore},
};
use workflows_test_postgres::{Durability, Server};
use workflows_tests::executor::{Executor, Happened, Line};

use crate::fire::{self, Dice, Pushes, wait_until};

/// How often an engine is killed. A longer run sets `WORKFLOWS_REPLICA_KILLS`.
const KILLS: usize = 300;
/// How often the server is stopped, or crashes.
const RESTARTS: usize = 10;
/// For how long one engine stands still.
const FROZEN: Duration = Duration::from_secs(60);

const WORKFLOWS: &str = r#"
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: every-branch }
spec:
  triggers: [{ name: push, on: push, branches: ["work/**"] }]
  params:
  - { name: branch, value: $(event.head.branch) }
  - { name: group, value: none }
  - { name: takes, value: "50" }
  @PIPELINE@
  notify: [{ notifier: journal, on: [succeeded, failed, refused, cancelled] }]
---
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: two-at-a-time }
spec:
  triggers: [{ name: push, on: push, branches: ["queue/**"] }]
  params:
  - { name: branch, value: $(event.head.branch) }
  - { name: group, value: two }
  - { name: takes, value: "300" }
  @PIPELINE@
  concurrency: [{ group: two, strategy: queue, maxRunning: 2 }]
  notify: [{ notifier: journal, on: [succeeded, failed, refused, cancelled] }]
---
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: newest-at-once }
spec:
  triggers: [{ name: push, on: push, branches: [main] }]
  params:
  - { name: branch, value: $(event.head.sha) }
  - { name: group, value: at-once }
  - { name: takes, value: "2000" }
  @PIPELINE@
  concurrency: [{ group: main, strategy: replace, cancel: atOnce }]
---
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: newest-gently }
spec:
  triggers: [{ name: push, on: push, branches: [main] }]
  params:
  - { name: branch, value: $(event.head.sha) }
  - { name: group, value: gently }
  - { name: takes, value: "2000" }
  @PIPELINE@
  concurrency: [{ group: main, strategy: replace }]
"#;

/// The executor looks at the parameters alone.
const PIPELINE: &str = r#"pipelineSpec:
    params: [{ name: branch }, { name: group }, { name: takes }]
    tasks: [{ name: t, taskSpec: { steps: [{ name: s, image: none, script: "true" }] } }]"#;

/// What every engine is started with.
struct Surroundings {
    state: PathBuf,
    repository: PathBuf,
    url: String,
    executor: String,
}

/// One of the engines.
struct Replica {
    number: usize,
    child: Child,
    stopped_by_itself: usize,
    /// Since when it stands still.
    frozen: Option<Instant>,
    /// It is not killed before.
    spared: Instant,
}

impl Replica {
    fn start(number: usize, with: &Surroundings) -> Self {
        let child = Self::spawn(number, with);
        Self { number, child, stopped_by_itself: 0, frozen: None, spared: Instant::now() }
    }

    fn spawn(number: usize, with: &Surroundings) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(with.state.join(format!("engine-{number}.log")))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_engine-under-fire"));
        command.arg(&with.state).arg(&with.repository).args([&with.url, &with.executor]);
        // The last one has no name to keep: its leases end with their time.
        if number < 2 {
            command.arg(format!("replica-{number}"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Starts it again when it gave up, as one does that cannot reach its ledger.
    fn keep_up(&mut self, with: &Surroundings) {
        if self.child.try_wait().unwrap().is_some() {
            self.stopped_by_itself += 1;
            self.child = Self::spawn(self.number, with);
        }
    }

    fn kill(&mut self, with: &Surroundings) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.number, with);
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success(), "kill {signal}");
    }

    fn freeze(&mut self) {
        self.signal("-STOP");
        self.frozen = Some(Instant::now());
    }

    fn thaw(&mut self) {
        self.signal("-CONT");
        self.frozen = None;
        // What it was about to do when it froze, it does now.
        self.spared = Instant::now() + Duration::from_secs(5);
    }
}

#[test]
fn three_replicas_lose_nothing_and_repeat_nothing_whatever_befalls_them() {
    let test = "three replicas on one Postgres";
    let Some(server) = workflows_test_postgres::server(test, Durability::Full) else { return };
    let kills = std::env::var("WORKFLOWS_REPLICA_KILLS")
        .map_or(KILLS, |number| number.parse().expect("WORKFLOWS_REPLICA_KILLS is a number"));
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let executor = Executor::start(&state.join("executor.log")).unwrap();
    let with = Surroundings {
        repository: home.path().join("repository.git"),
        url: server.url(),
        executor: executor.address().to_string(),
        state,
    };
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        play(&with, &server, &executor, kills);
    }));
    if let Err(why) = judged {
        let kept = home.keep();
        eprintln!("the logs of the engines and of the executor are in {}", kept.display());
        eprintln!("what Postgres said:\n{}", server.log());
        std::panic::resume_unwind(why);
    }
}

fn play(with: &Surroundings, server: &Server, executor: &Executor, kills: usize) {
    let mut dice = Dice(0x2545_F491_4F6C_DD1D);
    let workflows = WORKFLOWS.replace("@PIPELINE@", PIPELINE);
    let mut pushes = Pushes::begin(&with.repository, &workflows);
    let mut replicas: Vec<Replica> = (0..3).map(|number| Replica::start(number, with)).collect();

    let (mut killed, mut restarts, mut froze) = (0, 0, false);
    while killed < kills || replicas.iter().any(|replica| replica.frozen.is_some()) {
        sleep(Duration::from_millis(dice.up_to(450)));
        match dice.up_to(5) {
            0 | 1 => pushes.next_branch("work"),
            2 => pushes.next_branch("queue"),
            3 if dice.up_to(1) == 0 => pushes.next_on_main(),
            _ => {}
        }
        if !froze && killed >= kills / 6 {
            froze = true;
            replicas[1].freeze();
        }
        for replica in &mut replicas {
            match replica.frozen {
                Some(since) if since.elapsed() >= FROZEN => replica.thaw(),
                Some(_) => {}
                None => replica.keep_up(with),
            }
        }
        let which = usize::try_from(dice.up_to(2)).unwrap();
        let replica = &mut replicas[which];
        if killed < kills && replica.frozen.is_none() && replica.spared <= Instant::now() {
            replica.kill(with);
            killed += 1;
        }
        // Spread over the whole time, and not where an engine freezes.
        if restarts < RESTARTS && killed >= (2 * restarts + 1) * kills / (2 * RESTARTS) {
            if restarts % 2 == 0 {
                server.crash()
            } else {
                server.stop()
            }
            sleep(Duration::from_millis(dice.up_to(500)));
            server.start();
            restarts += 1;
        }
    }
    assert_eq!((killed, restarts, froze), (kills, RESTARTS, true));

    wait_until("the end of every run", || {
        replicas.iter_mut().for_each(|replica| replica.keep_up(with));
        let log = executor.log();
        let ended = ended(&log);
        let all = ["work", "queue"].into_iter().flat_map(|prefix| pushes.branches(prefix));
        let newest = pushes.main().last().unwrap();
        all.chain([newest]).all(|branch| ended.contains(branch)) && executor.running() == 0
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(async {
        let options = PostgresOptions::new(with.url.clone()).connections(2);
        PostgresStore::open(options, Arc::new(SystemClock)).await.unwrap()
    });
    wait_until("the end of every run in the ledger", || {
        let runs = runtime.block_on(fire::all_runs(&store));
        runs.iter().all(|run| run.state.is_terminal())
    });
    let journal = with.state.join("journal");
    let notified = pushes.branches("work").len() + pushes.branches("queue").len();
    wait_until("a notification of every run", || fire::told(&journal).len() >= notified);
    for replica in &mut replicas {
        drop(replica.child.stdin.take());
    }
    for replica in &mut replicas {
        let status = replica.child.wait().unwrap();
        assert!(status.success(), "engine {} did not stop in order: {status}", replica.number);
    }

    judge_the_log(&executor.log(), &pushes);
    let told = fire::told(&journal);
    assert!(told.keys().all(|(_, transition)| transition == "succeeded"), "{told:?}");
    assert_eq!(told.len(), notified);
    runtime.block_on(the_ledger_agrees(&store, &pushes));
    let again: Vec<usize> = replicas.iter().map(|replica| replica.stopped_by_itself).collect();
    eprintln!(
        "{killed} kills, {restarts} restarts of the server, {FROZEN:?} frozen; engines that gave up \
         by themselves: {again:?}; branches: {} and {} queued, {} commits on main; {} lines",
        pushes.branches("work").len(),
        pushes.branches("queue").len(),
        pushes.main().len(),
        executor.log().len(),
    );
}

fn ended(log: &[Line]) -> BTreeSet<&String> {
    log.iter()
        .filter(|line| line.happened == Happened::Succeeded)
        .map(|line| &line.branch)
        .collect()
}

/// What the executor saw: each run once, no group over its limit at any instant, and the newest at
/// the end.
fn judge_the_log(log: &[Line], pushes: &Pushes) {
    let mut started: BTreeMap<&str, usize> = BTreeMap::new();
    let mut running: BTreeMap<&str, (&Line, bool)> = BTreeMap::new();
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for line in log {
        match line.happened {
            Happened::Started => {
                *started.entry(&line.run).or_default() += 1;
                let together = running.values().filter(|(other, _)| other.group == line.group);
                match line.group.as_str() {
                    "two" => assert!(together.count() < 2, "three of {} together", line.group),
                    "at-once" => assert_eq!(together.count(), 0, "two of {} together", line.group),
                    "gently" => {
                        for (other, told_to_end) in together {
                            assert!(told_to_end, "{other:?} was not told to end before {line:?}");
                        }
                    }
                    _ => {}
                }
                if ["at-once", "gently"].contains(&line.group.as_str()) {
                    let place = pushes.main().iter().position(|commit| *commit == line.branch);
                    let place = place.expect("a commit of the main branch");
                    let before = newest.insert(&line.group, place);
                    assert!(
                        before.is_none_or(|before| before < place),
                        "an older run replaced one"
                    );
                }
                running.insert(&line.run, (line, false));
            }
            Happened::ToldToEnd => {
                assert!(["at-once", "gently"].contains(&line.group.as_str()), "{line:?}");
                if let Some((_, told_to_end)) = running.get_mut(line.run.as_str()) {
                    *told_to_end = true;
                }
            }
            Happened::Succeeded | Happened::Stopped => {
                assert!(running.remove(line.run.as_str()).is_some(), "{line:?} ended twice");
            }
        }
    }
    assert!(running.is_empty(), "{running:?} did not end");
    assert!(started.values().all(|times| *times == 1), "a run was created twice");

    let of = |group: &str| -> Vec<&String> {
        let of_group = log.iter().filter(|line| line.group == group);
        let succeeded = of_group.filter(|line| line.happened == Happened::Succeeded);
        let mut branches: Vec<_> = succeeded.map(|line| &line.branch).collect();
        branches.sort();
        branches
    };
    for (prefix, group) in [("work", "none"), ("queue", "two")] {
        let mut expected: Vec<_> = pushes.branches(prefix).iter().collect();
        expected.sort();
        assert_eq!(of(group), expected, "each branch has one run");
    }
    let last = pushes.main().last().unwrap();
    for group in ["at-once", "gently"] {
        assert!(of(group).contains(&last), "the newest of {group} did not succeed");
    }
}

async fn the_ledger_agrees(store: &PostgresStore, pushes: &Pushes) {
    let runs = fire::all_runs(store).await;
    let unended: Vec<_> = runs.iter().filter(|run| !run.state.is_terminal()).collect();
    assert!(unended.is_empty(), "runs without an end: {unended:#?}");
    for (workflow, prefix) in [("every-branch", "work"), ("two-at-a-time", "queue")] {
        let of_workflow: Vec<_> =
            runs.iter().filter(|run| &*run.workflow.name == workflow).collect();
        assert_eq!(of_workflow.len(), pushes.branches(prefix).len());
        assert!(of_workflow.iter().all(|run| run.state == RunState::Succeeded));
    }
    let events = fire::events_of_branches(store).await;
    let all = ["work", "queue"].into_iter().flat_map(|prefix| pushes.branches(prefix));
    let expected = all.map(|branch| (branch.clone(), 1)).collect();
    assert_eq!(events, expected, "one event for each branch");
}
