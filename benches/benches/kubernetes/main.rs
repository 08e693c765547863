//! From deliveries of GitHub to PipelineRuns: a controller in a process of its own, as it is deployed,
//! between a stand-in for GitHub and one for the API server.
//!
//! ```text
//! cargo bench -p workflows-benches --bench kubernetes
//! cargo bench -p workflows-benches --bench kubernetes -- storm
//! ```
//!
//! - `storm`: 200 pull requests in four organisations, from 16 senders, whose workflow is in the
//!   repository: how long until all their runs are in the API server, and what the controller takes for
//!   it. In one organisation they would be more than GitHub lets an App do in a minute;
//! - `latency`: from a push to its run, among 1, 100, 1,000 and 100,000 Workflows, of which one matches;
//!   and from a change of a Workflow until its status says that it counts;
//! - `spread`: one push that starts a hundred runs;
//! - `memory`: 10,000 Workflows in the controller.
//!
//! Without a name it is all of them. The program that is measured is this one again, started with an
//! argument: the ledger is a file, and the stand-ins are in the process that measures, so that neither
//! their memory nor their processor time is counted, though they share the processors. A run is there
//! when a watch tells of it. With `WORKFLOWS_TEST_KUBECONFIG`, `storm` goes to that API server, through a
//! port of the stand-in's.

mod program;
mod world;

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use workflows_benches::spread::Spread;

use self::world::{Delivery, World};

const EVENTS: usize = 200;
const SENDERS: usize = 16;
/// Each has limits of its own at GitHub.
const ORGANISATIONS: usize = 4;
/// So many pushes are measured one by one, and so many changes.
const SINGLE: usize = 200;
const CHANGES: usize = 20;
/// What was begun may come to its end.
const REST: Duration = Duration::from_secs(5);

const IN_REPOSITORY: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers: [{ name: pull-request, on: pull_request }]
  params: [{ name: revision, value: $(event.head.sha) }]
  pipelineSpec:
    params: [{ name: revision }]
    tasks:
    - name: test
      taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] }
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let [role, api, ledger] = &arguments[..]
        && role == program::ROLE
    {
        return runtime.block_on(program::run(api, ledger));
    }
    let wanted = |name: &str| {
        let mut names = arguments.iter().filter(|one| !one.starts_with("--")).peekable();
        names.peek().is_none() || names.any(|one| one == name)
    };
    println!("cores: {}", std::thread::available_parallelism().map_or(0, usize::from));
    runtime.block_on(async {
        if wanted("storm") {
            storm().await;
        }
        if wanted("latency") {
            for workflows in [1, 100, 1_000, 100_000] {
                latency(workflows).await;
            }
        }
        if wanted("spread") {
            spread().await;
        }
        if wanted("memory") {
            memory().await;
        }
    });
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn storm() {
    let world = World::new(&[(".tekton/ci.yaml", IN_REPOSITORY)], ".tekton", ORGANISATIONS).await;
    let mut deliveries: Vec<Delivery> = (0..=EVENTS).map(|n| world.pull_request(n)).collect();
    let program = world.start().await;
    let mut runs = world.runs();
    // The first of all finds nothing in caches, and no connection that is open.
    let warm_up = deliveries.remove(0);
    world.send_when_ready(&program, &warm_up).await;
    runs.next().await;
    tokio::time::sleep(REST).await;
    let (idle, spent) = (program.memory(), program.processor_time());
    world.forget_calls();

    let begin = std::time::Instant::now();
    let sent = world.send_all(&program, &deliveries, SENDERS).await;
    let acknowledged = begin.elapsed();
    let mut seen: HashMap<String, Vec<std::time::Instant>> = HashMap::new();
    while seen.len() < EVENTS
        && let Some((commit, at)) = runs.within(Duration::from_secs(60)).await
    {
        seen.entry(commit).or_default().push(at);
    }
    let all = begin.elapsed();
    world.until_checked(&deliveries).await;
    let checks = begin.elapsed();
    while let Some((commit, at)) = runs.within(REST).await {
        seen.entry(commit).or_default().push(at);
    }
    let missing = deliveries.iter().filter(|one| !seen.contains_key(&one.commit)).count();
    let surplus: usize = seen.values().map(|times| times.len() - 1).sum();
    let times = sent.iter().filter_map(|(commit, sent)| {
        let first = seen.get(commit)?.first()?;
        Some(first.saturating_duration_since(*sent))
    });
    let times = Spread::of(times.collect());
    println!("storm: {EVENTS} pull requests from {SENDERS} senders, at {}", world.server());
    println!("  all acknowledged after {:.0} ms", acknowledged.as_secs_f64() * 1e3);
    println!("  all runs there after {:.0} ms", all.as_secs_f64() * 1e3);
    println!("  all checks shown after {:.0} ms", checks.as_secs_f64() * 1e3);
    println!("  {missing} missing, {surplus} surplus");
    println!(
        "  sent to run there: p50 {:.0} ms, p95 {:.0} ms",
        times.milliseconds(0.5),
        times.milliseconds(0.95)
    );
    println!(
        "  calls of GitHub: {}, processor time {:?}",
        world.calls(),
        program.processor_time() - spent
    );
    println!(
        "  resident memory: idle {:.1} MiB, after {:.1} MiB, at most {:.1} MiB",
        mib(idle),
        mib(program.memory()),
        mib(program.most_memory())
    );
}

/// Ten Workflows for each repository, each for a branch of its own.
fn one_of(number: usize) -> serde_json::Value {
    let repo = match number / 10 {
        0 => "acme/api".to_owned(),
        other => format!("acme/r{other}"),
    };
    world::workflow(
        number,
        &repo,
        &json!([{
            "name": "push", "on": "push", "branches": [format!("branch-{}", number % 10)],
            "filter": format!("event.sender != 'bot-{number}'"),
        }]),
    )
}

async fn latency(workflows: usize) {
    let world = World::new(&[("README.md", "An interface.")], "", 1).await;
    world.create_workflows(workflows, one_of).await;
    let begin = std::time::Instant::now();
    let program = world.start().await;
    let started = begin.elapsed();
    world.all_registered(workflows).await;
    let settled = begin.elapsed();
    let mut runs = world.runs();
    world.send_when_ready(&program, &world.push("branch-0", 0)).await;
    runs.next().await;
    tokio::time::sleep(REST).await;

    let mut times = Vec::with_capacity(SINGLE);
    for turn in 1..=SINGLE {
        let delivery = world.push("branch-0", turn);
        let sent = std::time::Instant::now();
        world.send(&program, &delivery).await;
        let (commit, at) = runs.next().await;
        assert_eq!(commit, delivery.commit, "one push makes one run");
        times.push(at.saturating_duration_since(sent));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let times = Spread::of(times);
    let mut changes = Vec::with_capacity(CHANGES);
    for turn in 0..CHANGES {
        let mut changed = one_of(0);
        changed["spec"]["params"] = json!([{"name": "turn", "value": turn.to_string()}]);
        changes.push(world.change(&changed).await);
    }
    let changes = Spread::of(changes);
    println!(
        "latency among {workflows} workflows: sent to run there p50 {:.1} ms, p99 {:.1} ms; \
         a change counts after p50 {:.1} ms, at most {:.1} ms; resident {:.0} MiB; \
         read after {:.1} s, all statuses written after {:.1} s",
        times.milliseconds(0.5),
        times.milliseconds(0.99),
        changes.milliseconds(0.5),
        changes.milliseconds(1.0),
        mib(program.memory()),
        started.as_secs_f64(),
        settled.as_secs_f64(),
    );
}

async fn spread() {
    const RUNS: usize = 100;
    const TURNS: usize = 10;
    let world = World::new(&[("README.md", "An interface.")], "", 1).await;
    let trigger = json!([{"name": "push", "on": "push"}]);
    world.create_workflows(RUNS, |number| world::workflow(number, "acme/api", &trigger)).await;
    let program = world.start().await;
    world.all_registered(RUNS).await;
    let mut runs = world.runs();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let delivery = world.push("main", turn);
        let sent = std::time::Instant::now();
        match turn {
            0 => world.send_when_ready(&program, &delivery).await,
            _ => world.send(&program, &delivery).await,
        }
        let mut times = Vec::with_capacity(RUNS);
        while times.len() < RUNS {
            times.push(runs.next().await.1.saturating_duration_since(sent));
        }
        tokio::time::sleep(REST).await;
        // The first of all finds nothing in caches.
        if turn > 0 {
            first.push(times[0]);
            last.push(times[RUNS - 1]);
        }
    }
    let (first, last) = (Spread::of(first), Spread::of(last));
    println!(
        "spread: {RUNS} runs of one push: the first there after p50 {:.0} ms, all after p50 {:.0} ms, \
         at most {:.0} ms",
        first.milliseconds(0.5),
        last.milliseconds(0.5),
        last.milliseconds(1.0)
    );
}

async fn memory() {
    const WORKFLOWS: usize = 10_000;
    let mut resident = Vec::new();
    for workflows in [0, WORKFLOWS] {
        let world = World::new(&[("README.md", "An interface.")], "", 1).await;
        world.create_workflows(workflows, one_of).await;
        let program = world.start().await;
        world.all_registered(workflows).await;
        tokio::time::sleep(REST).await;
        resident.push((program.memory(), program.most_memory()));
    }
    println!(
        "memory: {:.1} MiB resident without Workflows, {:.1} MiB with {WORKFLOWS}, at most {:.1} MiB",
        mib(resident[0].0),
        mib(resident[1].0),
        mib(resident[1].1)
    );
}
