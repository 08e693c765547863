//! A sink in a directory of its own, and how tests meet the processes of its runs.
//!
//! Tests wait for what a run does by named pipes: a step that writes into one, or reads from one,
//! goes on when the test does.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use jiff::SignedDuration;
use serde_json::{Value, json};
use workflows_core::{
    CancelMode, ErrorKind, LogRef, RunKey, RunPhase, RunSink, RunStatus, TaskStatus, Tenant,
    local::{LocalSink, LocalSinkBuilder},
    sink::{RunRequest, SinkRun, TaskPhase},
};

/// Longer than anything takes on a slow machine; only a test that fails waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a test's own. When it goes, what still runs below it is ended, such as a step that
/// waits for a pipe that nobody will write into.
pub(super) struct Home(tempfile::TempDir);

impl Home {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let left = pids_below(self.path());
        if !left.is_empty() {
            let _ = std::process::Command::new("kill").arg("-KILL").args(left).status();
        }
    }
}

pub(super) struct Bench {
    pub(super) directory: Home,
    pub(super) sink: LocalSink,
}

pub(super) fn builder(root: &Path) -> LocalSinkBuilder {
    LocalSink::builder(root)
        .max_steps(NonZeroUsize::new(8).unwrap())
        .grace(SignedDuration::from_secs(20))
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub(super) async fn with(set: impl FnOnce(LocalSinkBuilder) -> LocalSinkBuilder) -> Self {
        let directory = Home::new();
        let sink = set(builder(&directory.path().join("root"))).build().await.unwrap();
        Self { directory, sink }
    }

    /// Drops the sink without waiting for its runs, and opens another on the same directory.
    pub(super) async fn reopen(self) -> Self {
        let Self { directory, sink } = self;
        drop(sink);
        let sink = builder(&directory.path().join("root")).build().await.unwrap();
        Self { directory, sink }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A named pipe.
    pub(super) fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    pub(super) async fn ensure(&self, key: &str, spec: Value) -> SinkRun {
        let request = request(key, spec);
        let ensured = self.sink.ensure(&request).await.unwrap();
        SinkRun {
            key: request.key,
            tenant: request.tenant,
            name: request.name,
            handle: Some(ensured.handle),
        }
    }

    /// Runs it to its end.
    pub(super) async fn run(&self, spec: Value) -> RunStatus {
        let run = self.ensure("key", spec).await;
        self.ended(&run).await
    }

    pub(super) async fn ended(&self, run: &SinkRun) -> RunStatus {
        ended(&self.sink, run).await
    }

    /// The status once it satisfies.
    pub(super) async fn until(
        &self,
        run: &SinkRun,
        satisfied: impl Fn(&RunStatus) -> bool,
    ) -> RunStatus {
        until(&self.sink, run, satisfied).await
    }

    pub(super) async fn cancel(&self, run: &SinkRun, mode: CancelMode) {
        self.sink.cancel(run, mode).await.unwrap();
    }

    pub(super) async fn log(&self, run: &SinkRun, task: &str, step: &str) -> String {
        let step = LogRef { task: task.into(), step: step.into() };
        let mut stream = self.sink.logs().unwrap().stream(run, &step, false);
        let mut log = Vec::new();
        while let Some(chunk) = stream.next().await {
            log.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(log).unwrap()
    }

    pub(super) async fn until_forgotten(&self, run: &SinkRun) {
        let mut changes = self.sink.changes().unwrap();
        let wait = async {
            while let Err(error) = self.sink.forget(&run.key).await {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                changes.next().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it still runs");
    }

    pub(super) async fn refused(&self, spec: Value) -> (ErrorKind, String) {
        let error = self.sink.ensure(&request("refused", spec)).await.unwrap_err();
        (error.kind(), error.to_string())
    }
}

pub(super) async fn until(
    sink: &LocalSink,
    run: &SinkRun,
    satisfied: impl Fn(&RunStatus) -> bool,
) -> RunStatus {
    let mut changes = sink.changes().unwrap();
    let wait = async {
        loop {
            let status = sink.state(run).await.unwrap();
            if satisfied(&status) {
                return status;
            }
            changes.next().await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(status) => status,
        Err(_) => panic!("it did not come to pass: {:?}", sink.state(run).await),
    }
}

pub(super) async fn ended(sink: &LocalSink, run: &SinkRun) -> RunStatus {
    until(sink, run, |status| status.phase.is_terminal()).await
}

pub(super) fn request(key: &str, spec: Value) -> RunRequest {
    let pipeline_run = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {"name": "ci-1"}, "spec": spec,
    });
    RunRequest::new(RunKey::from(key.to_owned()), Tenant::default(), "ci-1", pipeline_run)
}

/// A pipeline of these tasks.
pub(super) fn pipeline(tasks: Value) -> Value {
    json!({"pipelineSpec": {"tasks": tasks}})
}

/// A task of one step with this script.
pub(super) fn task(name: &str, script: &str) -> Value {
    json!({"name": name, "taskSpec": {"steps": [{"name": "main", "script": script}]}})
}

/// A copy with more fields.
pub(super) fn with(mut value: Value, more: Value) -> Value {
    for (name, field) in more.as_object().unwrap() {
        value[name] = field.clone();
    }
    value
}

pub(super) fn task_of<'a>(status: &'a RunStatus, name: &str) -> &'a TaskStatus {
    status.tasks.iter().find(|task| &*task.name == name).unwrap()
}

pub(super) fn phase_of(status: &RunStatus, name: &str) -> TaskPhase {
    task_of(status, name).phase
}

#[track_caller]
pub(super) fn assert_phase(status: &RunStatus, phase: RunPhase) {
    assert_eq!(status.phase, phase, "{status:#?}");
}

/// Opens a pipe for reading, and so waits for a writer; returns what is written to its end.
pub(super) async fn read_pipe(path: &Path) -> String {
    let path = Arc::<Path>::from(path);
    let read = tokio::task::spawn_blocking(move || fs::read_to_string(path).unwrap());
    tokio::time::timeout(PATIENCE, read).await.expect("nothing was written").unwrap()
}

/// Opens a pipe for writing, and so waits for a reader, and writes.
pub(super) async fn write_pipe(path: &Path, text: &str) {
    let (path, text) = (Arc::<Path>::from(path), text.to_owned());
    let write = tokio::task::spawn_blocking(move || fs::write(path, text).unwrap());
    tokio::time::timeout(PATIENCE, write).await.expect("nobody reads").unwrap();
}

/// The processes whose environment or command line names something below a directory.
pub(super) fn processes_below(directory: &Path) -> Vec<String> {
    let told = |pid: String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " "))
    };
    pids_below(directory).into_iter().map(told).collect()
}

/// Their numbers; this process is none of them.
fn pids_below(directory: &Path) -> Vec<String> {
    let mark = directory.to_str().unwrap();
    let own = std::process::id().to_string();
    let names_it = |pid: &String| {
        ["environ", "cmdline"].iter().any(|file| {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(mark)
        })
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| process.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
        .filter(names_it)
        .collect()
}
