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
    time::Duration,
};

use workflows_core::{
    Run, RunState, SystemClock,
    store::{SqliteOptions, SqliteStore},
};

use crate::fire::{self, Dice, Pushes, lines, wait_until, wait_while_it_gets_on};

/// How often the engine is killed. A longer run sets `WORKFLOWS_CRASHES`.
const CRASHES: usize = 200;
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

fn start(state: &Path, repository: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_engine-under-fire"))
        .args([state, repository])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
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
    let workflow = WORKFLOW.replace("@LOG@", &log.display().to_string());
    let mut pushes = Pushes::begin(&repository, &workflow);

    for _ in 0..crashes {
        let mut engine = start(&state, &repository);
        // From before it has opened its ledger to well into its work.
        let naps = dice.up_to(8);
        for _ in 0..=naps {
            std::thread::sleep(Duration::from_millis(dice.up_to(60)));
            if dice.up_to(1) == 0 {
                pushes.next_branch("work");
                if pushes.branches("work").len().is_multiple_of(5) {
                    pushes.next_on_main();
                }
            }
        }
        engine.kill().unwrap();
        engine.wait().unwrap();
    }

    let mut engine = start(&state, &repository);
    let journal = state.join("journal");
    let branches = pushes.branches("work").len();
    wait_while_it_gets_on("a line of each branch's run", branches, || lines(&log).len());
    wait_while_it_gets_on("a notification of each branch's run", branches, || {
        lines(&journal).into_iter().collect::<BTreeSet<_>>().len()
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
    let expected: BTreeMap<_, _> = pushes.branches("work").iter().map(|b| (b.clone(), 1)).collect();
    assert_eq!(ran, expected, "each branch's run writes one line; seed {seed}");

    // Every notification came, and a repeated one has the key of the first.
    let told = fire::told(&journal);
    assert!(told.keys().all(|(_, transition)| transition == "succeeded"), "{told:?}");
    assert_eq!(told.len(), pushes.branches("work").len(), "one run told of for each branch");

    runtime.block_on(the_ledger_agrees(&state, &pushes));
    println!(
        "{crashes} kills, {branches} branches pushed, {} lines about {} runs in the journal",
        lines(&journal).len(),
        told.len()
    );
}

async fn open(state: &Path) -> SqliteStore {
    let path: PathBuf = state.join("ledger.db");
    SqliteStore::open(path, SqliteOptions::default(), Arc::new(SystemClock)).await.unwrap()
}

async fn all_runs(state: &Path) -> Vec<Run> {
    let store = open(state).await;
    let runs = fire::all_runs(&store).await;
    store.close().await;
    runs
}

async fn the_ledger_agrees(state: &Path, pushes: &Pushes) {
    let runs = all_runs(state).await;
    let of = |workflow: &str| {
        runs.iter().filter(|run| &*run.workflow.name == workflow).collect::<Vec<_>>()
    };
    let every_branch = of("every-branch");
    assert_eq!(every_branch.len(), pushes.branches("work").len());
    assert!(every_branch.iter().all(|run| run.state == RunState::Succeeded));
    let newest_only = of("newest-only");
    assert!(!newest_only.is_empty());
    let unended: Vec<_> = runs.iter().filter(|run| !run.state.is_terminal()).collect();
    assert!(unended.is_empty(), "runs without an end: {unended:#?}");
    let newest = newest_only.iter().max_by_key(|run| run.order).unwrap();
    assert_eq!(newest.state, RunState::Succeeded, "{}", newest.message);
    let store = open(state).await;
    let events = fire::events_of_branches(&store).await;
    let expected = pushes.branches("work").iter().map(|branch| (branch.clone(), 1)).collect();
    assert_eq!(events, expected, "one event for each branch");
}
