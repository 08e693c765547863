//! An engine that is killed at random moments while commits keep coming.
//!
//! What happened is judged by what is outside the engine: the lines that the runs' steps wrote, the
//! lines that the notifier wrote, and the branches that were pushed; then the ledger is asked whether
//! it agrees.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use git2::{Repository, Signature};
use workflows_core::{
    Run, RunState, Store, SystemClock, Tenant,
    store::{EventQuery, PageRequest, RunQuery, SqliteOptions, SqliteStore},
};

/// How often the engine is killed. A longer run sets `WORKFLOWS_CRASHES`.
const CRASHES: usize = 200;
/// How long everything may take to come to rest after the last kill.
const PATIENCE: Duration = Duration::from_secs(120);

const WORKFLOW: &str = r#"
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: every-branch }
spec:
  triggers:
  - { name: push, on: push, branches: ["work/**"] }
  params:
  - { name: branch, value: $(event.head.branch) }
  - { name: log, value: "@LOG@" }
  pipelineSpec:
    params: [{ name: branch }, { name: log }]
    tasks:
    - name: note
      params:
      - { name: branch, value: $(params.branch) }
      - { name: log, value: $(params.log) }
      taskSpec:
        params: [{ name: branch }, { name: log }]
        steps:
        - name: note
          image: none
          env:
          - { name: BRANCH, value: $(params.branch) }
          - { name: LOG, value: $(params.log) }
          script: |
            echo "$BRANCH" >> "$LOG"
  notify:
  - { notifier: journal, on: [succeeded, failed, refused] }
---
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: newest-only }
spec:
  triggers:
  - { name: push, on: push, branches: [main] }
  pipelineSpec:
    tasks:
    - name: wait
      taskSpec:
        steps:
        - { name: wait, image: none, script: "sleep 0.3" }
  concurrency:
  - { group: main, strategy: replace, cancel: atOnce }
"#;

/// A sequence of numbers that is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }
}

struct Pushes {
    repository: Repository,
    branches: Vec<String>,
}

impl Pushes {
    fn begin(path: &Path, log: &Path) -> Self {
        let repository = Repository::init_bare(path).unwrap();
        repository.set_head("refs/heads/main").unwrap();
        let pushes = Self { repository, branches: Vec::new() };
        let workflow = WORKFLOW.replace("@LOG@", &log.display().to_string());
        pushes.commit("main", Some(&workflow));
        pushes
    }

    /// Puts a commit on a branch, which begins at `main`.
    fn commit(&self, branch: &str, workflow: Option<&str>) {
        let name = format!("refs/heads/{branch}");
        let main = self.repository.find_reference("refs/heads/main").ok();
        let parent = main.map(|main| main.peel_to_commit().unwrap());
        let tree = match (workflow, &parent) {
            (Some(workflow), _) => {
                let blob = self.repository.blob(workflow.as_bytes()).unwrap();
                let mut directory = self.repository.treebuilder(None).unwrap();
                directory.insert("ci.yaml", blob, 0o100_644).unwrap();
                let directory = directory.write().unwrap();
                let mut root = self.repository.treebuilder(None).unwrap();
                root.insert(".tekton", directory, 0o040_000).unwrap();
                self.repository.find_tree(root.write().unwrap()).unwrap()
            }
            (None, parent) => parent.as_ref().unwrap().tree().unwrap(),
        };
        let who = Signature::now("Ada", "ada@example.com").unwrap();
        let parents: Vec<_> = parent.iter().collect();
        let made = self.repository.commit(None, &who, &who, branch, &tree, &parents).unwrap();
        self.repository.reference(&name, made, true, "push").unwrap();
    }

    fn next(&mut self) {
        let branch = format!("work/{}", self.branches.len());
        self.commit(&branch, None);
        self.branches.push(branch);
        if self.branches.len().is_multiple_of(5) {
            self.commit("main", None);
        }
    }
}

fn start(state: &Path, repository: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_engine-under-fire"))
        .args([state, repository])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits for something that another process does.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn killed_at_random_it_loses_nothing_and_repeats_nothing() {
    let crashes = std::env::var("WORKFLOWS_CRASHES")
        .map_or(CRASHES, |number| number.parse().expect("WORKFLOWS_CRASHES is a number"));
    let seed = 0x2545_F491_4F6C_DD1D;
    let mut dice = Dice(seed);
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let (log, repository) = (home.path().join("log"), home.path().join("repository.git"));
    let mut pushes = Pushes::begin(&repository, &log);

    for _ in 0..crashes {
        let mut engine = start(&state, &repository);
        // From before it has opened its ledger to well into its work.
        let naps = dice.up_to(8);
        for _ in 0..=naps {
            std::thread::sleep(Duration::from_millis(dice.up_to(60)));
            if dice.up_to(1) == 0 {
                pushes.next();
            }
        }
        engine.kill().unwrap();
        engine.wait().unwrap();
    }

    let mut engine = start(&state, &repository);
    let journal = state.join("journal");
    wait_until("a line of each branch's run", || lines(&log).len() >= pushes.branches.len());
    wait_until("a notification of each branch's run", || {
        let told: BTreeSet<_> = lines(&journal).into_iter().collect();
        told.len() >= pushes.branches.len()
    });
    // The last run on main may still be going on. A ledger that is in use cannot be asked, so the
    // engine is stopped for each look.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    wait_until("the end of every run", || {
        drop(engine.stdin.take());
        assert!(engine.wait().unwrap().success(), "it did not stop when it was told to");
        let all_ended =
            runtime.block_on(all_runs(&state)).iter().all(|run| run.state.is_terminal());
        if !all_ended {
            engine = start(&state, &repository);
            std::thread::sleep(Duration::from_secs(1));
        }
        all_ended
    });

    // No event lost, no run twice.
    let mut ran: BTreeMap<String, usize> = BTreeMap::new();
    for branch in lines(&log) {
        *ran.entry(branch).or_default() += 1;
    }
    let expected: BTreeMap<_, _> = pushes.branches.iter().map(|b| (b.clone(), 1)).collect();
    assert_eq!(ran, expected, "each branch's run writes one line; seed {seed}");

    // Every notification came, and a repeated one has the key of the first.
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines(&journal) {
        let [run, transition, key] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("a torn line in the journal: {line:?}");
        };
        assert_eq!(transition, "succeeded", "{line}");
        keys.entry(run.to_owned()).or_default().insert(key.to_owned());
    }
    assert_eq!(keys.len(), pushes.branches.len(), "one run told of for each branch");
    assert!(keys.values().all(|keys| keys.len() == 1), "a repeated notification changed its key");

    runtime.block_on(the_ledger_agrees(&state, &pushes));
}

async fn open(state: &Path) -> SqliteStore {
    let path: PathBuf = state.join("ledger.db");
    SqliteStore::open(path, SqliteOptions::default(), Arc::new(SystemClock)).await.unwrap()
}

async fn all_runs(state: &Path) -> Vec<Run> {
    let store = open(state).await;
    let mut runs = Vec::new();
    let mut page = PageRequest { limit: 1000, after: None };
    loop {
        let found = store.runs(RunQuery::of(Tenant::default()).page(page)).await.unwrap();
        runs.extend(found.items);
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    store.close().await;
    runs
}

async fn the_ledger_agrees(state: &Path, pushes: &Pushes) {
    let runs = all_runs(state).await;
    let of = |workflow: &str| {
        runs.iter().filter(|run| &*run.workflow.name == workflow).collect::<Vec<_>>()
    };
    let every_branch = of("every-branch");
    assert_eq!(every_branch.len(), pushes.branches.len());
    assert!(every_branch.iter().all(|run| run.state == RunState::Succeeded));
    let newest_only = of("newest-only");
    assert!(!newest_only.is_empty());
    let unended: Vec<_> = runs.iter().filter(|run| !run.state.is_terminal()).collect();
    assert!(unended.is_empty(), "runs without an end: {unended:#?}");
    let newest = newest_only.iter().max_by_key(|run| run.order).unwrap();
    assert_eq!(newest.state, RunState::Succeeded, "{}", newest.message);
    let store = open(state).await;
    let mut page = PageRequest { limit: 1000, after: None };
    let mut events = 0;
    loop {
        let found = store.events(EventQuery::of(Tenant::default()).page(page)).await.unwrap();
        events += found.items.iter().filter(|e| e.branch().is_some_and(|b| b != "main")).count();
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    assert_eq!(events, pushes.branches.len(), "one event for each branch");
}
