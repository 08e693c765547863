//! Killed at any point, opened again, the same end.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use workflows_core::{CancelMode, ErrorKind, RunPhase, RunSink, sink::TaskPhase};

use super::bench::{
    Bench, Home, assert_phase, builder, ended, phase_of, pipeline, processes_below, read_pipe,
    request, task, with, write_pipe,
};

const ROOT: &str = "WORKFLOWS_TEST_ROOT";

/// What the process does that is killed: a sink with one run, until the run has ended.
async fn engine_process(root: &Path) {
    let spec = serde_json::from_slice(&fs::read(root.with_extension("json")).unwrap()).unwrap();
    let sink = builder(root).build().await.unwrap();
    let request = request("k", spec);
    let ensured = sink.ensure(&request).await.unwrap();
    let run = workflows_core::sink::SinkRun {
        key: request.key,
        tenant: request.tenant,
        name: request.name,
        handle: Some(ensured.handle),
    };
    ended(&sink, &run).await;
}

fn start_engine(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("local::crash::killed_at_any_point_each_step_runs_exactly_once")
        .env(ROOT, root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A task of two steps, each of which leaves a line.
fn effects(name: &str, file: &Path) -> Value {
    let script = |step: &str| format!("echo {name}-{step} >> {}", file.display());
    json!({"name": name, "taskSpec": {"results": [{"name": "r"}], "steps": [
        {"name": "one", "script": script("one")},
        {"name": "two", "script": format!("{}; printf {name} > $(results.r.path)", script("two"))},
    ]}})
}

/// Numbers that look like chance (xorshift), so that a seed tells a run of the test.
fn chance(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[tokio::test]
async fn killed_at_any_point_each_step_runs_exactly_once() {
    if let Some(root) = std::env::var_os(ROOT) {
        return engine_process(Path::new(&root)).await;
    }
    let mut seed = 0x5eed_0001_u64;
    let mut kills = 0;
    for round in 0..6 {
        let directory = Home::new();
        let (root, file) = (directory.path().join("root"), directory.path().join("effects"));
        let third = with(
            effects("c", &file),
            json!({"params": [{"name": "x", "value": "$(tasks.a.results.r)"}], "runAfter": ["b"]}),
        );
        let spec = json!({"pipelineSpec": {
            "tasks": [effects("a", &file), effects("b", &file), third],
            "finally": [effects("f", &file)],
            "results": [{"name": "all", "value": "$(tasks.a.results.r)$(tasks.c.results.r)"}],
        }});
        fs::write(root.with_extension("json"), spec.to_string()).unwrap();
        loop {
            let mut engine = start_engine(&root);
            let pause = Duration::from_micros(5_000 + chance(&mut seed) % 60_000);
            std::thread::sleep(pause);
            if engine.try_wait().unwrap().is_some_and(|status| status.success()) {
                break;
            }
            engine.kill().unwrap();
            engine.wait().unwrap();
            kills += 1;
        }
        let sink = builder(&root).build().await.unwrap();
        let request = request("k", spec);
        let ensured = sink.ensure(&request).await.unwrap();
        assert!(!ensured.created);
        let run = workflows_core::sink::SinkRun {
            key: request.key,
            tenant: request.tenant,
            name: request.name,
            handle: None,
        };
        let status = ended(&sink, &run).await;
        assert_phase(&status, RunPhase::Succeeded);
        assert_eq!(status.results[0].value, "ac", "round {round}");
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = BTreeMap::<&str, u32>::new();
        text.lines().for_each(|line| *lines.entry(line).or_default() += 1);
        let expected: Vec<String> = ["a", "b", "c", "f"]
            .iter()
            .flat_map(|t| [format!("{t}-one"), format!("{t}-two")])
            .collect();
        assert_eq!(lines.keys().copied().collect::<Vec<_>>(), expected, "round {round}");
        assert!(lines.values().all(|times| *times == 1), "round {round}: {lines:?}");
        assert_eq!(processes_below(directory.path()), [] as [&str; 0], "round {round}");
    }
    assert!(kills > 6, "only {kills} kills hit: the test tests nothing");
}

#[tokio::test]
async fn a_step_that_was_broken_off_with_the_engine_ends_the_run_as_interrupted() {
    let directory = Home::new();
    let root = directory.path().join("root");
    let (up, after) = (directory.path().join("up"), directory.path().join("after"));
    assert!(Command::new("mkfifo").arg(&up).status().unwrap().success());
    let script = format!("ps -o pgid= -p $$ > {}; sleep 1000", up.display());
    let spec = json!({"pipelineSpec": {
        "tasks": [task("broken", &script), with(task("next", "true"), json!({"runAfter": ["broken"]}))],
        "finally": [task("after", &format!("touch {}", after.display()))],
    }});
    fs::write(root.with_extension("json"), spec.to_string()).unwrap();
    let mut engine = start_engine(&root);
    let group = read_pipe(&up).await;
    engine.kill().unwrap();
    engine.wait().unwrap();
    let group = format!("-{}", group.trim());
    assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());

    let sink = builder(&root).build().await.unwrap();
    let request = request("k", spec);
    let run = workflows_core::sink::SinkRun {
        key: request.key.clone(),
        tenant: request.tenant.clone(),
        name: request.name.clone(),
        handle: None,
    };
    sink.ensure(&request).await.unwrap();
    let status = ended(&sink, &run).await;
    assert_phase(&status, RunPhase::Interrupted);
    assert!(status.message.contains("task \"broken\": step \"main\""), "{}", status.message);
    assert_eq!(phase_of(&status, "next"), TaskPhase::Skipped);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Succeeded);
    assert!(after.exists());
}

#[tokio::test]
async fn a_step_that_runs_while_the_sink_is_opened_again_is_waited_for() {
    let bench = Bench::new().await;
    let (up, go, count) = (bench.pipe("up"), bench.pipe("go"), bench.path("count"));
    let script = format!(
        "echo x >> {}; echo up > {}; read x < {}",
        count.display(),
        up.display(),
        go.display()
    );
    let spec = pipeline(json!([
        task("runs", &script),
        with(task("next", "true"), json!({"runAfter": ["runs"]})),
    ]));
    let run = bench.ensure("k", spec.clone()).await;
    read_pipe(&up).await;
    let bench = bench.reopen().await;
    assert!(!bench.sink.ensure(&request("k", spec)).await.unwrap().created);
    assert_eq!(
        phase_of(
            &bench
                .until(&run, |status| {
                    status.tasks.iter().any(|task| task.phase == TaskPhase::Running)
                })
                .await,
            "next"
        ),
        TaskPhase::Pending
    );
    write_pipe(&go, "go\n").await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);
    assert_eq!(fs::read_to_string(count).unwrap(), "x\n");
}

#[tokio::test]
async fn a_cancel_that_was_accepted_holds_after_the_sink_is_opened_again() {
    let bench = Bench::new().await;
    let up = bench.pipe("up");
    let script = format!("trap '' TERM; echo up > {}; sleep 1000", up.display());
    let run = bench.ensure("k", pipeline(json!([task("a", &script)]))).await;
    read_pipe(&up).await;
    bench.cancel(&run, CancelMode::AtOnce).await;
    let Bench { directory, sink } = bench;
    drop(sink);
    let sink = builder(&directory.path().join("root"))
        .grace(jiff::SignedDuration::from_millis(20))
        .build()
        .await
        .unwrap();
    assert_phase(&ended(&sink, &run).await, RunPhase::Cancelled);
    assert_eq!(processes_below(directory.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn a_directory_that_was_being_made_is_cleared_away() {
    let bench = Bench::new().await;
    let key = request("k", json!({})).key;
    let half_made = bench.sink.run_directory(&key).with_extension("unfinished");
    fs::create_dir_all(half_made.join("tasks")).unwrap();
    let bench = bench.reopen().await;
    assert!(!half_made.exists());
    assert_phase(&bench.run(pipeline(json!([task("a", "true")]))).await, RunPhase::Succeeded);
}

#[tokio::test]
async fn one_directory_serves_one_sink() {
    let bench = Bench::new().await;
    let error = builder(&bench.path("root")).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}
