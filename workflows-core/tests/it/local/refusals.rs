//! What is refused, what is hostile, and what is kept: logs, credentials, old runs.

use std::{fs, os::unix::fs::PermissionsExt};

use futures::StreamExt;
use serde_json::{Value, json};
use workflows_core::{
    CloneCredential, ErrorKind, LogRef, RunPhase, RunSink,
    sink::{SinkRun, TaskPhase},
};

use super::bench::{
    Bench, assert_phase, phase_of, pipeline, read_pipe, request, task, with, write_pipe,
};

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name() {
    let bench = Bench::new().await;
    let step = |more: Value| {
        pipeline(json!([{"name": "a", "taskSpec": {"steps": [
            with(json!({"name": "s", "script": "true"}), more)]}}]))
    };
    let task_spec = |more: Value| {
        pipeline(json!([{"name": "a", "taskSpec":
            with(json!({"steps": [{"name": "s", "script": "true"}]}), more)}]))
    };
    let of_task = |more: Value| pipeline(json!([with(task("a", "true"), more)]));
    let of_run = |more: Value| with(pipeline(json!([task("a", "true")])), more);
    let spec = "spec.pipelineSpec.tasks[0]";
    for (place, document) in [
        (format!("{spec}.matrix"), of_task(json!({"matrix": {"params": []}, "retries": 1}))),
        (format!("{spec}.taskRef"), of_task(json!({"taskRef": {"name": "x"}}))),
        (format!("{spec}.pipelineSpec"), of_task(json!({"pipelineSpec": {"tasks": [1]}}))),
        (format!("{spec}.onError"), of_task(json!({"onError": "continue"}))),
        (format!("{spec}.when[0].cel"), of_task(json!({"when": [{"cel": "true"}]}))),
        (format!("{spec}.taskSpec.sidecars"), task_spec(json!({"sidecars": [{"name": "x"}]}))),
        (format!("{spec}.taskSpec.stepTemplate"), task_spec(json!({"stepTemplate": {"env": [1]}}))),
        (format!("{spec}.taskSpec.volumes"), task_spec(json!({"volumes": [{"name": "x"}]}))),
        (format!("{spec}.taskSpec.apiVersion"), task_spec(json!({"apiVersion": "x/v1"}))),
        (
            format!("{spec}.taskSpec.workspaces[0].mountPath"),
            task_spec(json!({"workspaces": [{"name": "w", "mountPath": "/w", "optional": true}]})),
        ),
        (format!("{spec}.taskSpec.steps[0].ref"), step(json!({"ref": {"name": "x"}}))),
        (format!("{spec}.taskSpec.steps[0].onError"), step(json!({"onError": "continue"}))),
        (format!("{spec}.taskSpec.steps[0].volumeMounts"), step(json!({"volumeMounts": [1]}))),
        (
            format!("{spec}.taskSpec.steps[0].computeResources"),
            step(json!({"computeResources": {"limits": {"memory": "1Gi"}}})),
        ),
        (
            format!("{spec}.taskSpec.steps[0].env[0].valueFrom"),
            step(json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s"}}}]})),
        ),
        ("spec.pipelineRef".into(), of_run(json!({"pipelineRef": {"name": "x"}}))),
        ("spec.taskRunSpecs".into(), of_run(json!({"taskRunSpecs": [{"stepSpecs": []}]}))),
        ("spec.status".into(), of_run(json!({"status": "PipelineRunPending"}))),
        ("spec.managedBy".into(), of_run(json!({"managedBy": "somebody"}))),
        (
            "spec.taskRunTemplate.podTemplate".into(),
            of_run(json!({"taskRunTemplate": {"podTemplate": {"nodeSelector": {"a": "b"}}}})),
        ),
        (
            "spec.workspaces[0].secret".into(),
            of_run(json!({"workspaces": [{"name": "w", "secret": {"secretName": "s"}}]})),
        ),
        (
            "spec.workspaces[0].persistentVolumeClaim".into(),
            of_run(
                json!({"workspaces": [{"name": "w", "persistentVolumeClaim": {"claimName": "s"}}]}),
            ),
        ),
        (
            "spec.workspaces[0].csi".into(),
            of_run(json!({"workspaces": [{"name": "w", "csi": {"driver": "s"}}]})),
        ),
    ] {
        let (kind, message) = bench.refused(document).await;
        assert_eq!(kind, ErrorKind::Unsupported, "{place}: {message}");
        assert!(message.contains(&place), "{place}: {message}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_place() {
    let bench = Bench::new().await;
    let of_task = |more: Value| pipeline(json!([with(task("a", "true"), more), task("b", "true")]));
    let script = |text: &str| pipeline(json!([task("a", text)]));
    for (words, document) in [
        (
            "tasks wait for each other: a -> b -> a",
            pipeline(json!([
                with(task("a", "true"), json!({"runAfter": ["b"]})),
                with(task("b", "true"), json!({"runAfter": ["a"]}))
            ])),
        ),
        ("tasks wait for each other: a -> a", of_task(json!({"runAfter": ["a"]}))),
        ("runAfter names \"nobody\"", of_task(json!({"runAfter": ["nobody"]}))),
        ("it uses a result of \"nobody\"", script("$(tasks.nobody.results.r)")),
        (
            "$(tasks.b.results.r): the task declares no such result",
            of_task(json!({"params": [{"name": "x", "value": "$(tasks.b.results.r)"}]})),
        ),
        ("$(params.nobody): the task has no such parameter", script("echo $(params.nobody)")),
        ("$(workspaces.w.path): the task has no such workspace", script("$(workspaces.w.path)")),
        ("$(results.r.path): the task declares no such result", script("$(results.r.path)")),
        ("$(context.pipelineRun.nothing)", script("$(context.pipelineRun.nothing)")),
        ("$(tasks.status): it is known only in finally", script("$(tasks.status)")),
        ("two tasks are called \"a\"", pipeline(json!([task("a", "true"), task("a", "true")]))),
        ("is not a DNS label", pipeline(json!([task("../../etc", "true")]))),
        (
            "is not a DNS label",
            pipeline(json!([{"name": "a", "taskSpec": {"steps": [
            {"name": "..", "script": "true"}]}}])),
        ),
        (
            "is not a name",
            pipeline(json!([{"name": "a", "taskSpec": {
            "results": [{"name": "../r"}], "steps": [{"name": "s", "script": "true"}]}}])),
        ),
        (
            "expected a relative path without '..'",
            with(
                script("true"),
                json!({"workspaces": [
            {"name": "w", "emptyDir": {}, "subPath": "../../x"}]}),
            ),
        ),
        (
            "a step has a script or a command",
            pipeline(json!([{"name": "a", "taskSpec": {"steps": [
            {"name": "s", "script": "true", "command": ["true"]}]}}])),
        ),
        (
            "it needs a script or a command",
            pipeline(json!([{"name": "a", "taskSpec": {"steps": [
            {"name": "s", "image": "alpine"}]}}])),
        ),
        (
            "tasks and finally together exceed pipeline",
            with(
                script("true"),
                json!({"timeouts": {
            "pipeline": "1h", "tasks": "50m", "finally": "11m"}}),
            ),
        ),
        (
            "parameter \"p\" has no value",
            json!({"pipelineSpec": {
            "params": [{"name": "p"}], "tasks": [task("a", "true")]}}),
        ),
        (
            "parameter \"p\" is of type array",
            json!({
            "params": [{"name": "p", "value": "text"}],
            "pipelineSpec": {"params": [{"name": "p", "type": "array"}], "tasks": [task("a", "true")]}}),
        ),
        (
            "workspace \"w\" is not bound",
            json!({"pipelineSpec": {
            "workspaces": [{"name": "w"}], "tasks": [task("a", "true")]}}),
        ),
    ] {
        let (kind, message) = bench.refused(document).await;
        assert_eq!(kind, ErrorKind::Invalid, "{words}: {message}");
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(fs::read_dir(bench.path("root/runs")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_result_that_is_no_plain_file_of_the_declared_type_fails_its_task() {
    let bench = Bench::new().await;
    for (index, (script, words)) in [
        ("mkfifo $(results.r.path)", "not a regular file"),
        ("ln -s /etc/hostname $(results.r.path)", "result \"r\""),
        ("head -c 70000 /dev/zero > $(results.r.path)", "more than 65536 bytes"),
        ("printf '\\377' > $(results.r.path)", "not UTF-8"),
        ("printf 'x' > $(results.r.path)", "not JSON"),
        ("printf '{}' > $(results.r.path)", "is of type array"),
    ]
    .into_iter()
    .enumerate()
    {
        let spec = pipeline(json!([{"name": "a", "taskSpec": {
            "results": [{"name": "r", "type": "array"}],
            "steps": [{"name": "s", "script": script}]}}]));
        let run = bench.ensure(&format!("k{index}"), spec).await;
        let status = bench.ended(&run).await;
        assert_phase(&status, RunPhase::Failed);
        assert!(status.message.contains(words), "{script}: {}", status.message);
    }
}

#[tokio::test]
async fn a_result_that_was_not_written_fails_the_task_that_uses_it() {
    let bench = Bench::new().await;
    let spec = json!({"pipelineSpec": {
        "tasks": [
            {"name": "make", "taskSpec": {"results": [{"name": "r"}],
                "steps": [{"name": "s", "script": "true"}]}},
            task("use", "echo $(tasks.make.results.r)"),
        ],
        "finally": [task("after", "true"), task("reports", "echo $(tasks.make.results.r)")],
    }});
    let status = bench.run(spec).await;
    assert_phase(&status, RunPhase::Failed);
    assert!(status.message.contains("has not written this result"), "{}", status.message);
    assert_eq!(phase_of(&status, "after"), TaskPhase::Succeeded);
    assert_eq!(phase_of(&status, "reports"), TaskPhase::Skipped);
}

#[tokio::test]
async fn a_log_is_followed_until_its_step_ends() {
    let bench = Bench::new().await;
    let go = bench.pipe("go");
    let script = format!("echo first; read x < {}; echo last >&2", go.display());
    let run = bench.ensure("k", pipeline(json!([task("a", &script)]))).await;
    let step = LogRef { task: "a".into(), step: "main".into() };
    let mut log = bench.sink.logs().unwrap().stream(&run, &step, true);
    assert_eq!(&log.next().await.unwrap().unwrap()[..], b"first\n");
    write_pipe(&go, "go\n").await;
    assert_eq!(&log.next().await.unwrap().unwrap()[..], b"last\n");
    assert!(log.next().await.is_none());
    bench.ended(&run).await;
    let tail = bench.sink.logs().unwrap().tail(&run, &step, 8).await.unwrap();
    assert_eq!(&tail[..], b"st\nlast\n");
}

#[tokio::test]
async fn logs_of_what_is_not_there_are_not_found() {
    let bench = Bench::new().await;
    let run = bench.ensure("k", pipeline(json!([task("a", "true")]))).await;
    bench.ended(&run).await;
    let logs = bench.sink.logs().unwrap();
    let unknown = SinkRun { key: "other".to_owned().into(), ..run.clone() };
    for (run, task, step) in
        [(&run, "b", "main"), (&run, "a", "other"), (&run, "../a", "main"), (&unknown, "a", "main")]
    {
        for follow in [false, true] {
            let step = LogRef { task: task.into(), step: step.into() };
            let error = logs.stream(run, &step, follow).next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }
}

#[tokio::test]
async fn git_finds_the_credential_for_its_host_alone_and_it_goes_with_the_run() {
    let bench = Bench::new().await;
    let (out, go) = (bench.pipe("out"), bench.pipe("go"));
    let fill = |host: &str| {
        format!(
            "printf 'protocol=https\\nhost={host}\\n\\n' | GIT_TERMINAL_PROMPT=0 git credential fill 2>&1 | sort || true"
        )
    };
    let script = format!(
        "{{ {}; echo --; {}; stat -c %a $HOME/.git-credentials; }} > {}; read x < {}",
        fill("git.example:8443"),
        fill("evil.example"),
        out.display(),
        go.display()
    );
    let request = request("k", pipeline(json!([task("a", &script)])))
        .with_credential(Some(CloneCredential {
            username: "x-token".into(),
            token: "s3cr@t/:%".to_owned().into(),
            expires_at: None,
        }))
        .with_clone_url("https://git.example:8443/acme/api.git");
    let ensured = bench.sink.ensure(&request).await.unwrap();
    let run = SinkRun {
        key: request.key,
        tenant: request.tenant,
        name: request.name,
        handle: Some(ensured.handle),
    };
    let said = read_pipe(&out).await;
    let (own, other) = said.split_once("--").unwrap();
    assert!(own.contains("username=x-token") && own.contains("password=s3cr@t/:%"), "{own}");
    assert!(!other.contains("s3cr"), "{other}");
    assert!(other.contains("600"), "{other}");
    write_pipe(&go, "go\n").await;
    assert_phase(&bench.ended(&run).await, RunPhase::Succeeded);
    let found = std::process::Command::new("grep")
        .args(["-rl", "s3cr"])
        .arg(bench.path("root"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[tokio::test]
async fn a_credential_without_an_address_it_is_for_is_refused() {
    let bench = Bench::new().await;
    let credential =
        || CloneCredential { username: "u".into(), token: "t".to_owned().into(), expires_at: None };
    let plain =
        request("k", pipeline(json!([task("a", "true")]))).with_credential(Some(credential()));
    for request in [
        plain.clone(),
        plain.clone().with_clone_url("ssh://git@host/repo"),
        plain.with_clone_url("https://user@host/repo"),
    ] {
        assert_eq!(bench.sink.ensure(&request).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn of_older_runs_only_the_end_is_kept() {
    let bench = Bench::with(|builder| builder.keep_runs(1)).await;
    let spec = pipeline(json!([task("a", "echo x")]));
    let mut runs = Vec::new();
    for key in ["k1", "k2", "k3"] {
        let run = bench.ensure(key, spec.clone()).await;
        bench.ended(&run).await;
        runs.push(run);
    }
    // Retiring comes after the end is told: a later answer of the same sink waits for nothing, so
    // that the last run is forgotten, which waits for its turn.
    let bench = bench.reopen().await;
    let bench = {
        let root = bench.path("root");
        let Bench { directory, sink } = bench;
        drop(sink);
        let sink = super::bench::builder(&root).keep_runs(1).build().await.unwrap();
        Bench { directory, sink }
    };
    let has_tasks = |run: &SinkRun| bench.sink.run_directory(&run.key).join("tasks").exists();
    assert_eq!(runs.iter().map(has_tasks).collect::<Vec<_>>(), [false, false, true]);
    for run in &runs {
        assert_phase(&bench.sink.state(run).await.unwrap(), RunPhase::Succeeded);
    }
    assert!(!bench.sink.ensure(&request("k1", spec)).await.unwrap().created);
}

#[tokio::test]
async fn a_run_is_forgotten_once_it_has_ended() {
    let bench = Bench::new().await;
    let go = bench.pipe("go");
    let run = bench
        .ensure("k", pipeline(json!([task("a", &format!("read x < {}", go.display()))])))
        .await;
    assert_eq!(bench.sink.forget(&run.key).await.unwrap_err().kind(), ErrorKind::Conflict);
    write_pipe(&go, "go\n").await;
    bench.ended(&run).await;
    // The end is told a moment before the run leaves the list of those that run.
    bench.until_forgotten(&run).await;
    assert_eq!(bench.sink.state(&run).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!bench.sink.run_directory(&run.key).exists());
}

#[tokio::test]
async fn records_are_for_their_owner_alone() {
    let bench = Bench::new().await;
    let run = bench.ensure("k", pipeline(json!([task("a", "true")]))).await;
    bench.ended(&run).await;
    let mode = fs::metadata(bench.sink.run_directory(&run.key)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}
