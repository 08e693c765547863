//! What runs do: order, variables, results, workspaces, conditions, ends.

use std::{collections::BTreeMap, fs};

use jiff::SignedDuration;
use serde_json::{Value, json};
use workflows_core::{
    CancelMode, ErrorKind, RunPhase, RunSink, Tenant, local::VolumeKind, sink::TaskPhase,
};

use super::bench::{
    Bench, assert_phase, phase_of, pipeline, processes_below, read_pipe, request, task, task_of,
    with, write_pipe,
};

fn results(status: &workflows_core::RunStatus) -> BTreeMap<String, Value> {
    status.results.iter().map(|result| (result.name.to_string(), result.value.clone())).collect()
}

#[tokio::test]
async fn a_script_without_an_interpreter_line_stops_at_the_first_failure() {
    let bench = Bench::new().await;
    let run = bench.ensure("k", pipeline(json!([task("a", "echo one\nfalse\necho two\n")]))).await;
    let status = bench.ended(&run).await;
    assert_phase(&status, RunPhase::Failed);
    assert_eq!(bench.log(&run, "a", "main").await, "one\n");
    assert_eq!(task_of(&status, "a").steps[0].exit_code, Some(1));
    assert!(status.message.contains("step \"main\" exited with code 1"), "{}", status.message);
    assert!(status.started_at.unwrap() <= status.finished_at.unwrap());
}

#[tokio::test]
async fn a_script_is_given_to_its_own_interpreter_with_args() {
    let bench = Bench::new().await;
    let spec = pipeline(json!([{"name": "a", "taskSpec": {"steps": [
        {"name": "main", "script": "#!/usr/bin/env perl\nprint \"perl: @ARGV\\n\";",
         "args": ["x", "y z"]},
    ]}}]));
    let run = bench.ensure("k", spec).await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);
    assert_eq!(bench.log(&run, "a", "main").await, "perl: x y z\n");
}

#[tokio::test]
async fn commands_are_programs_and_never_shell() {
    let bench = Bench::new().await;
    let spec = pipeline(json!([{"name": "a", "taskSpec": {"steps": [
        {"name": "main", "command": ["printf", "%s|"], "args": ["$HOME; exit 3", "`id`", "$$(X)"]},
        {"name": "exit", "command": ["exit", "0"]},
    ]}}]));
    let run = bench.ensure("k", spec).await;
    let status = bench.ended(&run).await;
    assert_eq!(bench.log(&run, "a", "main").await, "$HOME; exit 3|`id`|$(X)|");
    // There is no program of that name, although each shell has a command of it.
    assert_eq!(task_of(&status, "a").steps[1].exit_code, Some(127), "{status:#?}");
}

#[tokio::test]
async fn parameters_reach_steps_in_every_form() {
    let bench = Bench::new().await;
    let spec = json!({
        "params": [
            {"name": "text", "value": "$(params.list[0]) `hostile` \"quoted\""},
            {"name": "list", "value": ["one", "two words"]},
            {"name": "object", "value": {"key": "inner"}},
        ],
        "pipelineSpec": {
            "params": [
                {"name": "text"}, {"name": "list", "type": "array"},
                {"name": "object", "type": "object", "properties": {"key": {}, "other": {}},
                 "default": {"key": "unused", "other": "default"}},
                {"name": "absent", "default": "by default"},
            ],
            "tasks": [{
                "name": "a",
                "params": [
                    {"name": "renamed", "value": "<$(params.text)>"},
                    {"name": "all", "value": ["first", "$(params.list[*])"]},
                    {"name": "whole", "value": "$(params.object[*])"},
                ],
                "taskSpec": {
                    "params": [
                        {"name": "renamed"}, {"name": "all", "type": "array"},
                        {"name": "whole", "type": "object", "properties": {"key": {}}},
                        {"name": "own", "default": "task default"},
                    ],
                    "steps": [{
                        "name": "main",
                        "env": [{"name": "TEXT", "value": "$(params.renamed)"},
                                {"name": "AGAIN", "value": "again $(TEXT)"}],
                        "command": ["sh", "-c", "printf '%s\\n' \"$TEXT\" \"$AGAIN\" \"$@\"", "sh"],
                        "args": ["$(params.all[*])", "$(params.all[2])", "$(params.whole.key)",
                                 "$(params[\"whole\"].other)", "$(params.own)", "$(params.absent)",
                                 "$(TEXT)"],
                    }],
                },
            }],
        },
    });
    let run = bench.ensure("k", spec).await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);
    let text = "<$(params.list[0]) `hostile` \"quoted\">";
    assert_eq!(
        bench.log(&run, "a", "main").await,
        format!(
            "{text}\nagain {text}\nfirst\none\ntwo words\ntwo words\ninner\ndefault\ntask default\nby default\n{text}\n"
        )
    );
}

#[tokio::test]
async fn results_order_tasks_and_carry_values() {
    let bench = Bench::new().await;
    let spec = json!({"pipelineSpec": {
        "tasks": [
            {"name": "use", "params": [
                {"name": "text", "value": "$(tasks.make.results.text)!"},
                {"name": "list", "value": "$(tasks.make.results.list[*])"},
                {"name": "second", "value": "$(tasks.make.results.list[1])"},
                {"name": "key", "value": "$(tasks.make.results['object'].key)"}],
             "taskSpec": {
                "params": [{"name": "text"}, {"name": "list", "type": "array"},
                           {"name": "second"}, {"name": "key"}],
                "results": [{"name": "seen"}],
                "steps": [{"name": "main", "command": ["sh", "-c", "printf '%s,' \"$@\" > $0"],
                    "args": ["$(results.seen.path)", "$(params.text)", "$(params.list[*])",
                             "$(params.second)", "$(params.key)"]}]}},
            {"name": "make", "taskSpec": {
                "results": [{"name": "text"}, {"name": "list", "type": "array"},
                            {"name": "object", "type": "object", "properties": {"key": {}}}],
                "steps": [{"name": "main", "script": concat!(
                    "printf 'made' > $(results.text.path)\n",
                    "printf '[\"x\",\"y\"]' > $(results.list.path)\n",
                    "printf '{\"key\":\"k\"}' > $(results[\"object\"].path)\n")}]}},
        ],
        "results": [{"name": "seen", "value": "$(tasks.use.results.seen)"},
                    {"name": "list", "type": "array", "value": "$(tasks.make.results.list[*])"}],
    }});
    let status = bench.run(spec).await;
    assert_phase(&status, RunPhase::Succeeded);
    let results = results(&status);
    assert_eq!(results["seen"], "made!,x,y,y,k,");
    assert_eq!(results["list"], json!(["x", "y"]));
    let order: Vec<&str> = status.tasks.iter().map(|task| &*task.name).collect();
    assert_eq!(order, ["make", "use"]);
}

#[tokio::test]
async fn independent_tasks_run_at_the_same_time() {
    let bench = Bench::new().await;
    let (one, two) = (bench.pipe("one"), bench.pipe("two"));
    // Each waits for the other: one after the other they would never end.
    let spec = pipeline(json!([
        task("a", &format!("echo a > {}; read x < {}", one.display(), two.display())),
        task("b", &format!("read x < {}; echo b > {}", one.display(), two.display())),
    ]));
    assert_phase(&bench.run(spec).await, RunPhase::Succeeded);
}

#[tokio::test]
async fn no_more_steps_run_than_there_are_slots() {
    let bench = Bench::with(|builder| builder.max_steps(2.try_into().unwrap())).await;
    let counter = bench.path("running");
    fs::create_dir(&counter).unwrap();
    let script = format!(
        "touch {0}/$$; ls {0} | wc -l >> {0}.seen; i=0; while [ $i -lt 3 ]; do ls / > /dev/null; i=$((i+1)); done; rm {0}/$$",
        counter.display()
    );
    let tasks: Vec<Value> = (0..8).map(|i| task(&format!("t{i}"), &script)).collect();
    assert_phase(&bench.run(pipeline(tasks.into())).await, RunPhase::Succeeded);
    let seen = fs::read_to_string(counter.with_extension("seen")).unwrap();
    assert_eq!(seen.lines().count(), 8);
    assert!(seen.lines().all(|line| line.trim().parse::<u32>().unwrap() <= 2), "{seen}");
}

#[tokio::test]
async fn a_condition_skips_its_task_and_those_that_use_its_results_but_not_those_after_it() {
    let bench = Bench::new().await;
    let skipped = with(
        json!({"name": "skipped", "taskSpec": {"results": [{"name": "r"}], "steps": [
            {"name": "main", "script": "printf x > $(results.r.path)"}]}}),
        json!({"when": [{"input": "a", "operator": "notin", "values": ["a", "b"]}]}),
    );
    let spec = pipeline(json!([
        skipped,
        with(task("after", "true"), json!({"runAfter": ["skipped"]})),
        with(task("uses", "echo $(tasks.skipped.results.r)"), json!({})),
        with(task("after-uses", "true"), json!({"runAfter": ["uses"]})),
        with(
            task("holds", "true"),
            json!({"when": [
            {"input": "$(context.pipelineRun.name)", "operator": "in", "values": ["ci-1"]}]})
        ),
    ]));
    let status = bench.run(spec).await;
    assert_phase(&status, RunPhase::Succeeded);
    for (name, phase) in [
        ("skipped", TaskPhase::Skipped),
        ("after", TaskPhase::Succeeded),
        ("uses", TaskPhase::Skipped),
        ("after-uses", TaskPhase::Skipped),
        ("holds", TaskPhase::Succeeded),
    ] {
        assert_eq!(phase_of(&status, name), phase, "{name}");
    }
}

#[tokio::test]
async fn after_a_failure_nothing_new_starts_and_finally_sees_it() {
    let bench = Bench::new().await;
    let report = "printf '%s' '$(tasks.bad.status) $(tasks.next.status) $(tasks.status)' > $(results.seen.path)";
    let spec = json!({"pipelineSpec": {
        "tasks": [task("bad", "exit 7"), with(task("next", "true"), json!({"runAfter": ["bad"]}))],
        "finally": [
            {"name": "report", "taskSpec": {"results": [{"name": "seen"}], "steps": [
                {"name": "main", "script": format!("{report}; cat $(results.seen.path)")}]}},
            {"name": "missing", "taskSpec": {"steps": [{"name": "main", "script": "true"}]},
             "when": [{"input": "$(tasks.status)", "operator": "in", "values": ["Succeeded"]}]},
        ],
    }});
    let run = bench.ensure("k", spec).await;
    let status = bench.ended(&run).await;
    assert_phase(&status, RunPhase::Failed);
    assert_eq!(phase_of(&status, "next"), TaskPhase::Skipped);
    assert_eq!(phase_of(&status, "missing"), TaskPhase::Skipped);
    assert_eq!(bench.log(&run, "report", "main").await, "Failed None Failed");
}

#[tokio::test]
async fn a_failed_task_is_tried_again_in_a_fresh_place() {
    let bench = Bench::new().await;
    let tries = bench.path("tries");
    let script = format!(
        "test ! -e left; touch left; echo $(context.task.retry-count) >> {0}; test $(context.task.retry-count) = 2",
        tries.display()
    );
    let status =
        bench.run(pipeline(json!([with(task("a", &script), json!({"retries": 5}))]))).await;
    assert_phase(&status, RunPhase::Succeeded);
    assert_eq!(fs::read_to_string(tries).unwrap(), "0\n1\n2\n");
}

#[tokio::test]
async fn workspaces_are_shared_mapped_copied_or_absent_as_asked() {
    let bench = Bench::with(|builder| {
        let data = builder_data();
        builder.volume(Tenant::default(), VolumeKind::ConfigMap, "settings", data)
    })
    .await;
    let spec = json!({
        "workspaces": [
            {"name": "shared", "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "settings", "configMap": {"name": "settings"}},
        ],
        "pipelineSpec": {
            "workspaces": [{"name": "shared"}, {"name": "scratch"}, {"name": "settings"},
                           {"name": "none", "optional": true}],
            "tasks": [
                {"name": "write", "workspaces": [
                    {"name": "out", "workspace": "shared", "subPath": "sub/dir"}, {"name": "scratch"}],
                 "taskSpec": {"workspaces": [{"name": "out"}, {"name": "scratch"},
                                             {"name": "settings", "readOnly": true}],
                    "steps": [{"name": "main", "script": concat!(
                        "cp $(workspaces.settings.path)/mode $(workspaces.out.path)/mode\n",
                        "touch $(workspaces.scratch.path)/mine\n",
                        "touch $(workspaces.settings.path)/added || true\n")}]}},
                {"name": "read", "runAfter": ["write"],
                 "workspaces": [{"name": "in", "workspace": "shared"}, {"name": "scratch"},
                                {"name": "none"}],
                 "taskSpec": {"workspaces": [{"name": "in"}, {"name": "scratch"},
                                             {"name": "none", "optional": true}],
                    "steps": [{"name": "main", "script": concat!(
                        "cat $(workspaces.in.path)/sub/dir/mode\n",
                        "test ! -e $(workspaces.scratch.path)/mine\n",
                        "echo '$(workspaces.in.bound) $(workspaces.none.bound)<$(workspaces.none.path)>'")}]}},
            ],
        },
    });
    let run = bench.ensure("k", spec).await;
    let status = bench.ended(&run).await;
    assert_phase(&status, RunPhase::Succeeded);
    assert_eq!(bench.log(&run, "read", "main").await, "fast\ntrue false<>\n");
    assert!(!builder_data().join("added").exists());
}

/// A directory with a file `mode`.
fn builder_data() -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("workflows-settings-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("mode"), "fast\n").unwrap();
    directory
}

#[tokio::test]
async fn the_context_names_run_task_and_attempt() {
    let bench = Bench::new().await;
    let script = "echo '$(context.pipelineRun.name) $(context.pipelineRun.namespace) $(context.pipeline.name) $(context.task.name) $(context.taskRun.name) $(context.task.retry-count)'\necho $(context.pipelineRun.uid)";
    let run = bench.ensure("k", pipeline(json!([task("a", script)]))).await;
    bench.ended(&run).await;
    let log = bench.log(&run, "a", "main").await;
    let (names, uid) = log.split_once('\n').unwrap();
    assert_eq!(names, "ci-1 default ci-1 a ci-1-a 0");
    assert_eq!(uid.trim().split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
}

#[tokio::test]
async fn a_step_sees_nothing_of_this_process_environment() {
    let bench = Bench::with(|builder| builder.env("GIVEN", "yes")).await;
    let spec = pipeline(json!([{"name": "a", "taskSpec": {"steps": [
        {"name": "main", "command": ["env"], "env": [{"name": "OWN", "value": "1"}]}]}}]));
    let run = bench.ensure("k", spec).await;
    bench.ended(&run).await;
    let log = bench.log(&run, "a", "main").await;
    let names: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    for name in &names {
        let expected =
            ["PATH", "LANG", "HOME", "TMPDIR", "GIVEN", "OWN", "WORKFLOWS_STEP_DIR", "PWD"];
        assert!(expected.contains(name), "{name} leaked:\n{log}");
    }
    assert!(names.contains(&"GIVEN") && names.contains(&"OWN"));
    assert!(log.contains("/home\n"));
}

#[tokio::test]
async fn a_task_ends_when_its_time_is_up() {
    let bench = Bench::new().await;
    let spec = json!({"pipelineSpec": {
        "tasks": [with(task("slow", "sleep 1000"), json!({"timeout": "200ms"}))],
        "finally": [task("after", "true")],
    }});
    let status = bench.run(spec).await;
    assert_phase(&status, RunPhase::Failed);
    assert_eq!(phase_of(&status, "slow"), TaskPhase::TimedOut);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Succeeded);
    assert_eq!(processes_below(bench.directory.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn the_time_of_all_tasks_leaves_time_for_finally() {
    let bench = Bench::new().await;
    let spec = json!({
        "timeouts": {"tasks": "200ms", "pipeline": "10m"},
        "pipelineSpec": {
            "tasks": [task("slow", "sleep 1000"), with(task("next", "true"), json!({"runAfter": ["slow"]}))],
            "finally": [task("after", "true")],
        },
    });
    let status = bench.run(spec).await;
    assert_phase(&status, RunPhase::TimedOut);
    assert_eq!(phase_of(&status, "slow"), TaskPhase::TimedOut);
    assert_eq!(phase_of(&status, "next"), TaskPhase::Skipped);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Succeeded);
}

#[tokio::test]
async fn when_the_time_of_the_pipeline_is_up_finally_does_not_run() {
    let bench = Bench::new().await;
    let spec = json!({
        "timeouts": {"pipeline": "200ms"},
        "pipelineSpec": {"tasks": [task("slow", "sleep 1000")], "finally": [task("after", "true")]},
    });
    let status = bench.run(spec).await;
    assert_phase(&status, RunPhase::TimedOut);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Skipped);
}

/// A run whose task tells that it runs and waits, with a task after it and a finally task.
async fn cancelled(mode: CancelMode) -> (Bench, workflows_core::RunStatus) {
    let bench = Bench::new().await;
    let (up, go) = (bench.pipe("up"), bench.pipe("go"));
    let script = format!("echo up > {}; read x < {}", up.display(), go.display());
    let spec = json!({"pipelineSpec": {
        "tasks": [task("runs", &script), with(task("next", "true"), json!({"runAfter": ["runs"]}))],
        "finally": [task("after", "true")],
    }});
    let run = bench.ensure("k", spec).await;
    read_pipe(&up).await;
    bench.cancel(&run, mode).await;
    bench.cancel(&run, mode).await;
    if mode == CancelMode::AfterRunningTasks {
        write_pipe(&go, "go\n").await;
    }
    let status = bench.ended(&run).await;
    bench.cancel(&run, mode).await;
    assert_eq!(processes_below(bench.directory.path()), [] as [&str; 0]);
    (bench, status)
}

#[tokio::test]
async fn cancelled_at_once_everything_stops() {
    let (_bench, status) = cancelled(CancelMode::AtOnce).await;
    assert_phase(&status, RunPhase::Cancelled);
    assert_eq!(phase_of(&status, "runs"), TaskPhase::Cancelled);
    assert_eq!(phase_of(&status, "next"), TaskPhase::Skipped);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Skipped);
}

#[tokio::test]
async fn cancelled_with_finally_tasks_stop_and_finally_runs() {
    let (_bench, status) = cancelled(CancelMode::RunFinally).await;
    assert_phase(&status, RunPhase::Cancelled);
    assert_eq!(phase_of(&status, "runs"), TaskPhase::Cancelled);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Succeeded);
}

#[tokio::test]
async fn cancelled_after_running_tasks_those_end_by_themselves() {
    let (_bench, status) = cancelled(CancelMode::AfterRunningTasks).await;
    assert_phase(&status, RunPhase::Cancelled);
    assert_eq!(phase_of(&status, "runs"), TaskPhase::Succeeded);
    assert_eq!(phase_of(&status, "next"), TaskPhase::Skipped);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Succeeded);
}

#[tokio::test]
async fn a_stronger_cancel_follows_a_weaker_one() {
    let bench = Bench::new().await;
    let up = bench.pipe("up");
    let script = format!("echo up > {}; sleep 1000", up.display());
    let run = bench.ensure("k", pipeline(json!([task("a", &script)]))).await;
    read_pipe(&up).await;
    bench.cancel(&run, CancelMode::AfterRunningTasks).await;
    bench.cancel(&run, CancelMode::AtOnce).await;
    bench.cancel(&run, CancelMode::RunFinally).await;
    assert_phase(&bench.ended(&run).await, RunPhase::Cancelled);
}

#[tokio::test]
async fn a_step_that_ignores_the_polite_signal_is_killed() {
    let bench = Bench::with(|builder| builder.grace(SignedDuration::from_millis(50))).await;
    let up = bench.pipe("up");
    let script = format!("trap '' TERM; echo up > {}; sleep 1000", up.display());
    let run = bench.ensure("k", pipeline(json!([task("a", &script)]))).await;
    read_pipe(&up).await;
    bench.cancel(&run, CancelMode::AtOnce).await;
    assert_phase(&bench.ended(&run).await, RunPhase::Cancelled);
    assert_eq!(processes_below(bench.directory.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn the_same_key_makes_one_run_and_another_run_under_it_is_refused() {
    let bench = Bench::new().await;
    let count = bench.path("count");
    let spec = pipeline(json!([task("a", &format!("echo x >> {}", count.display()))]));
    let calls = (0..8).map(|_| {
        let (sink, request) = (bench.sink.clone(), request("k", spec.clone()));
        async move { sink.ensure(&request).await.unwrap().created }
    });
    let created = futures::future::join_all(calls).await;
    assert_eq!(created.iter().filter(|created| **created).count(), 1);
    let run = bench.ensure("k", spec.clone()).await;
    bench.ended(&run).await;
    assert!(!bench.sink.ensure(&request("k", spec)).await.unwrap().created);
    assert_eq!(fs::read_to_string(count).unwrap(), "x\n");
    let other = request("k", pipeline(json!([task("other", "true")])));
    let error = bench.sink.ensure(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
