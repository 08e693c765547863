//! Tekton Pipelines: what its admission refuses, and what its controller does, played. With a real
//! cluster both are the real ones, and its nodes are played.

use axum::http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Admission, Cluster, Refusal, Resource,
    store::{Name, time},
};

const WEBHOOK: &str = "validation.webhook.pipeline.tekton.dev";

/// Tekton in a cluster: its kinds, its admission, and a controller that does what it is told.
///
/// A PipelineRun that was created waits until [`start`](Self::start). A running one that is asked to
/// end does so when [`obey`](Self::obey) is called, as the controller does on its next look.
#[derive(Debug, Clone)]
pub struct Tekton {
    cluster: Cluster,
}

/// The kind of runs.
pub(crate) fn pipeline_runs() -> Resource {
    Resource::namespaced("tekton.dev", "v1", "PipelineRun", "pipelineruns")
}

/// The kind of runs of tasks.
pub(crate) fn task_runs() -> Resource {
    Resource::namespaced("tekton.dev", "v1", "TaskRun", "taskruns")
}

impl Tekton {
    pub(crate) fn install(cluster: Cluster) -> Self {
        if let Some(real) = &cluster.shared.real {
            let (code, _) = real.ask(Method::GET, "/apis/tekton.dev/v1", &Value::Null);
            assert_eq!(code, 200, "the real cluster has no Tekton Pipelines with tekton.dev/v1");
            return Self { cluster };
        }
        cluster.install(pipeline_runs());
        cluster.install(task_runs());
        cluster.admit(admission);
        Self { cluster }
    }

    /// Every PipelineRun.
    pub fn runs(&self) -> Vec<Value> {
        self.cluster.objects(&pipeline_runs())
    }

    /// Every PipelineRun that has not ended.
    pub fn under_way(&self) -> Vec<Value> {
        self.runs().into_iter().filter(|run| !has_ended(run)).collect()
    }

    /// One PipelineRun.
    pub fn run(&self, namespace: &str, name: &str) -> Option<Value> {
        self.cluster.object(&pipeline_runs(), namespace, name)
    }

    /// Picks a PipelineRun up: it is running from now on, with a TaskRun and a pod for each task of
    /// its `pipelineSpec` that waits for no other.
    ///
    /// # Panics
    ///
    /// When there is no such PipelineRun.
    pub fn start(&self, namespace: &str, name: &str) {
        if let Some(real) = &self.cluster.shared.real {
            return real.start(namespace, name);
        }
        let run = self.run(namespace, name).expect("the PipelineRun is there");
        let mut children = Vec::new();
        for task in first_tasks(&run) {
            children.push(self.start_task(namespace, &run, task));
        }
        self.set_status(namespace, name, |status, now| {
            *status = json!({
                "conditions": [condition("Unknown", "Running", "Tasks Completed: 0")],
                "startTime": time(now),
                "childReferences": children,
                "pipelineSpec": run["spec"]["pipelineSpec"],
            });
        });
    }

    fn start_task(&self, namespace: &str, run: &Value, task: &Value) -> Value {
        let task_name = task["name"].as_str().unwrap_or_default();
        let run_name = run["metadata"]["name"].as_str().unwrap_or_default();
        let name = format!("{run_name}-{task_name}");
        let pod = format!("{name}-pod");
        let owner = json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "name": run_name,
            "uid": run["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
        });
        let mut labels = run["metadata"]["labels"].clone();
        labels["tekton.dev/pipelineRun"] = run_name.into();
        labels["tekton.dev/pipelineRunUID"] = run["metadata"]["uid"].clone();
        labels["tekton.dev/pipelineTask"] = task_name.into();
        let metadata = json!({
            "labels": labels, "annotations": run["metadata"]["annotations"],
            "ownerReferences": [owner],
        });
        let steps: Vec<Value> = task["taskSpec"]["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|step| {
                let step = step["name"].as_str().unwrap_or_default();
                json!({"name": step, "container": format!("step-{step}"), "running": {}})
            })
            .collect();
        self.create(&task_runs(), namespace, &name, json!({"metadata": metadata, "spec": {}}));
        self.create(
            &Resource::namespaced("", "v1", "Pod", "pods"),
            namespace,
            &pod,
            json!({"metadata": {"ownerReferences": [owner]}}),
        );
        self.change(&task_runs(), namespace, &name, |object, now| {
            object["status"] = json!({
                "conditions": [condition("Unknown", "Running", "")],
                "startTime": time(now), "podName": pod, "steps": steps,
            });
        });
        json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "name": name,
               "pipelineTaskName": task_name})
    }

    /// Ends a step of a task with an exit code, and its TaskRun with it when it is the last or has
    /// failed; writes what it said.
    ///
    /// # Panics
    ///
    /// When there is no such TaskRun or step.
    pub fn end_step(
        &self,
        namespace: &str,
        run: &str,
        task: &str,
        step: &str,
        code: i32,
        log: &str,
    ) {
        let name = format!("{run}-{task}");
        let pod = format!("{name}-pod");
        self.cluster.log(namespace, &pod, &format!("step-{step}"), log);
        if let Some(real) = &self.cluster.shared.real {
            return real.end_step(namespace, &pod, step, code);
        }
        self.change(&task_runs(), namespace, &name, |object, now| {
            let status = &mut object["status"];
            let steps = status["steps"].as_array_mut().expect("a TaskRun that was started");
            let index = steps.iter().position(|one| one["name"] == step).expect("such a step");
            steps[index]["terminated"] = json!({"exitCode": code});
            let last = index + 1 == steps.len();
            if code != 0 || last {
                let end = if code == 0 {
                    condition("True", "Succeeded", "All Steps have completed executing")
                } else {
                    condition(
                        "False",
                        "Failed",
                        &format!("\"step-{step}\" exited with code {code}: Error"),
                    )
                };
                status["conditions"] = json!([end]);
                status["completionTime"] = json!(time(now));
            }
        });
    }

    /// Ends a PipelineRun by itself.
    ///
    /// # Panics
    ///
    /// When there is no such PipelineRun.
    pub fn finish(&self, namespace: &str, name: &str, well: bool) {
        if let Some(real) = &self.cluster.shared.real {
            return real.finish(namespace, name, well);
        }
        let end = match well {
            true => condition("True", "Succeeded", "Tasks Completed: 1 (Failed: 0, Cancelled 0)"),
            false => condition("False", "Failed", "Tasks Completed: 1 (Failed: 1, Cancelled 0)"),
        };
        self.end(namespace, name, end);
    }

    /// Does what PipelineRuns were asked by `spec.status`: those that are to be cancelled end.
    pub fn obey(&self) {
        if let Some(real) = &self.cluster.shared.real {
            return real.obey();
        }
        for run in self.runs() {
            let text = |field: &str| run["metadata"][field].as_str().unwrap_or_default().to_owned();
            let asked = run["spec"]["status"].as_str().unwrap_or_default();
            let is_over = has_ended(&run);
            if !is_over && (asked.starts_with("Cancelled") || asked.starts_with("Stopped")) {
                let message = format!("PipelineRun {:?} was cancelled", text("name"));
                let end = condition("False", "Cancelled", &message);
                self.end(&text("namespace"), &text("name"), end);
            }
        }
    }

    fn end(&self, namespace: &str, name: &str, end: Value) {
        self.set_status(namespace, name, |status, now| {
            if status["startTime"].is_null() {
                status["startTime"] = json!(time(now));
            }
            status["conditions"] = json!([end]);
            status["completionTime"] = json!(time(now));
        });
    }

    fn set_status(&self, namespace: &str, name: &str, set: impl FnOnce(&mut Value, Timestamp)) {
        self.change(&pipeline_runs(), namespace, name, |object, now| {
            if !object["status"].is_object() {
                object["status"] = json!({});
            }
            set(&mut object["status"], now);
        });
    }

    fn create(&self, resource: &Resource, namespace: &str, name: &str, object: Value) {
        self.cluster.shared.write(|state| {
            let now = (state.clock)();
            let name: Name = (namespace.to_owned(), name.to_owned());
            // The controller finds what an earlier look made.
            let _ = state.store.create(resource, &name, object, now);
        });
    }

    fn change(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value, Timestamp),
    ) {
        self.cluster.shared.write(|state| {
            let now = (state.clock)();
            let name: Name = (namespace.to_owned(), name.to_owned());
            let object = state.store.get(resource, &name).cloned();
            let mut object =
                object.unwrap_or_else(|| panic!("there is no {} {}", resource.kind, name.1));
            change(&mut object, now);
            let replaced = state.store.replace(resource, &name, object, now);
            assert!(replaced.is_ok(), "{replaced:?}");
        });
    }
}

/// The tasks of a run that wait for no other.
pub(crate) fn first_tasks(run: &Value) -> impl Iterator<Item = &Value> {
    let tasks = run["spec"]["pipelineSpec"]["tasks"].as_array();
    tasks.into_iter().flatten().filter(|task| task["runAfter"].is_null())
}

fn condition(status: &str, reason: &str, message: &str) -> Value {
    json!({"type": "Succeeded", "status": status, "reason": reason, "message": message})
}

pub(crate) fn has_ended(run: &Value) -> bool {
    run["status"]["conditions"][0]["status"].as_str().is_some_and(|status| status != "Unknown")
}

/// What Tekton's validating webhook refuses of a PipelineRun
/// (`pkg/apis/pipeline/v1/pipelinerun_validation.go` in <https://github.com/tektoncd/pipeline>).
fn admission(admission: &Admission<'_>) -> Result<(), Refusal> {
    if *admission.resource != pipeline_runs() || admission.operation == "DELETE" {
        return Ok(());
    }
    let denied = |message: &str| Err(Refusal::denied(WEBHOOK, message));
    let spec = &admission.after["spec"];
    if let Some(before) = admission.before {
        let mut same = spec.clone();
        match before["spec"].get("status") {
            Some(status) => same["status"] = status.clone(),
            None => {
                same.as_object_mut().map(|fields| fields.remove("status"));
            }
        }
        let changed = before["spec"] != *spec;
        if has_ended(before) && changed {
            return denied(
                "validation failed: invalid value: Once the PipelineRun is complete, no updates are \
                 allowed: spec",
            );
        }
        if same != before["spec"] {
            return denied(
                "validation failed: invalid value: Once the PipelineRun has started, only status \
                 updates are allowed: spec",
            );
        }
    }
    let name = admission.after["metadata"]["name"].as_str().unwrap_or_default();
    if name.len() > 63 {
        return denied(
            "validation failed: invalid resource name: must be no more than 63 characters: metadata.name",
        );
    }
    match (spec.get("pipelineRef"), spec.get("pipelineSpec")) {
        (None, None) => {
            return denied(
                "validation failed: expected exactly one, got neither: spec.pipelineRef, spec.pipelineSpec",
            );
        }
        (Some(_), Some(_)) => {
            return denied(
                "validation failed: expected exactly one, got both: spec.pipelineRef, spec.pipelineSpec",
            );
        }
        _ => {}
    }
    let allowed =
        ["", "Cancelled", "CancelledRunFinally", "StoppedRunFinally", "PipelineRunPending"];
    let status = spec.get("status").and_then(Value::as_str).unwrap_or_default();
    if !allowed.contains(&status) {
        return denied(&format!(
            "validation failed: invalid value: {status} should be Cancelled, CancelledRunFinally, \
             StoppedRunFinally or PipelineRunPending: spec.status"
        ));
    }
    let started = admission.before.is_some_and(|before| !before["status"]["startTime"].is_null());
    if started && status == "PipelineRunPending" {
        return denied(
            "validation failed: invalid value: PipelineRun cannot be Pending after it is started: spec.status",
        );
    }
    let unique = |list: &str| {
        let names: Vec<_> =
            spec[list].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
        (1..names.len()).all(|index| !names[..index].contains(&names[index]))
    };
    for list in ["params", "workspaces"] {
        if !unique(list) {
            return denied(&format!(
                "validation failed: expected exactly one, got both: spec.{list}.name"
            ));
        }
    }
    Ok(())
}
