//! The nodes that a real cluster lacks, played: what kubelets would write into the pods of Tekton's
//! controller, which is the real one. Everything here waits until that controller has seen it.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Resource,
    real::Real,
    store::time,
    tekton::{first_tasks, has_ended, pipeline_runs, task_runs},
};

fn pods() -> Resource {
    Resource::namespaced("", "v1", "Pod", "pods")
}

impl Real {
    fn run(&self, namespace: &str, name: &str) -> Value {
        let run = self.object(&pipeline_runs(), namespace, name);
        run.unwrap_or_else(|| panic!("there is no PipelineRun {name}"))
    }

    fn pods_of(&self, namespace: &str, run: &str) -> Vec<Value> {
        let path = format!(
            "{}?labelSelector=tekton.dev/pipelineRun%3D{run}",
            pods().path(namespace, None)
        );
        let (_, list) = self.ask(axum::http::Method::GET, &path, &Value::Null);
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Starts the pods of a run, one for each task that waits for no other.
    pub(crate) fn start(&self, namespace: &str, name: &str) {
        let tasks = first_tasks(&self.run(namespace, name)).count();
        let pods = self.until("a pod for each task", || {
            let pods = self.pods_of(namespace, name);
            (pods.len() == tasks).then_some(pods)
        });
        for pod in &pods {
            self.tell(
                pod,
                "Running",
                |_| json!({"running": {"startedAt": time(Timestamp::now())}}),
            );
        }
        self.until("the controller to see that the steps are running", || {
            let status = self.run(namespace, name)["status"].clone();
            let children = status["childReferences"].as_array()?;
            let is_running = |child: &Value| {
                let task = self.object(&task_runs(), namespace, child["name"].as_str()?)?;
                let steps = task["status"]["steps"].as_array()?.clone();
                steps.iter().all(|step| step["running"].is_object()).then_some(())
            };
            let seen = children.iter().filter_map(is_running).count();
            (seen == tasks && !status["conditions"].is_null()).then_some(())
        });
    }

    /// Ends a container, and its pod with the last or with one that failed.
    pub(crate) fn end_step(&self, namespace: &str, pod: &str, step: &str, code: i32) {
        let container = format!("step-{step}");
        let pod = self.object(&pods(), namespace, pod).expect("the pod is there");
        let before: Vec<Value> =
            pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let state = |name: &str| {
            let now = before.iter().find(|one| one["name"] == name).map(|one| one["state"].clone());
            match now {
                Some(state) if state["terminated"].is_object() => state,
                _ if name == container => terminated(code),
                _ if code != 0 => terminated(1),
                Some(state) => state,
                None => json!({"waiting": {"reason": "PodInitializing"}}),
            }
        };
        let names = containers(&pod);
        let is_over = names.iter().all(|name| state(name)["terminated"].is_object());
        let phase = match (is_over, code) {
            (true, 0) => "Succeeded",
            (true, _) => "Failed",
            (false, _) => "Running",
        };
        self.tell(&pod, phase, state);
        let task = pod["metadata"]["labels"]["tekton.dev/taskRun"].as_str().unwrap_or_default();
        self.until("the controller to see that the step has ended", || {
            let task = self.object(&task_runs(), namespace, task)?;
            let steps = task["status"]["steps"].as_array()?.clone();
            let is_seen = steps
                .iter()
                .any(|one| one["container"] == container && one["terminated"].is_object());
            (is_seen && (!is_over || has_ended(&task))).then_some(())
        });
    }

    /// Ends all pods of a run, and those that come after them, until the run has ended.
    pub(crate) fn finish(&self, namespace: &str, name: &str, well: bool) {
        let code = i32::from(!well);
        let phase = if well { "Succeeded" } else { "Failed" };
        let status = self.until("the run to end", || {
            let run = self.run(namespace, name);
            if has_ended(&run) {
                return Some(run["status"].clone());
            }
            for pod in self.pods_of(namespace, name) {
                if !["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or(""))
                {
                    self.tell(&pod, phase, |_| terminated(code));
                }
            }
            None
        });
        let is_well = status["conditions"][0]["status"] == "True";
        let was_told = status["conditions"][0]["reason"] == "Cancelled";
        assert!(is_well == well || was_told, "{name} did not end as it was to: {status}");
    }

    /// Waits until the runs that were told to end have done so. Tasks that may go on end well.
    pub(crate) fn obey(&self) {
        for run in self.objects(&pipeline_runs()) {
            let asked = run["spec"]["status"].as_str().unwrap_or_default();
            if !has_ended(&run) && (asked.starts_with("Cancelled") || asked.starts_with("Stopped"))
            {
                let text = |field: &str| run["metadata"][field].as_str().unwrap_or_default();
                let (namespace, name) = (text("namespace"), text("name"));
                self.until("a run that is told to end to end", || {
                    if asked != "Cancelled" {
                        for pod in self.pods_of(namespace, name) {
                            self.tell(&pod, "Succeeded", |_| terminated(0));
                        }
                    }
                    has_ended(&self.run(namespace, name)).then_some(())
                });
            }
        }
    }

    /// Writes a pod's status as a kubelet does. A pod that has gone needs none.
    fn tell(&self, pod: &Value, phase: &str, state: impl Fn(&str) -> Value) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let statuses: Vec<Value> = pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| {
                let name = container["name"].as_str().unwrap_or_default();
                json!({
                    "name": name, "image": container["image"], "imageID": "played",
                    "ready": phase == "Running", "restartCount": 0, "state": state(name),
                })
            })
            .collect();
        let status = json!({"status": {
            "phase": phase, "startTime": time(Timestamp::now()), "containerStatuses": statuses,
        }});
        let path = format!("{}/status", pods().path(text("namespace"), Some(text("name"))));
        if self.object(&pods(), text("namespace"), text("name")).is_some() {
            self.merge(&path, &status);
        }
    }
}

fn containers(pod: &Value) -> Vec<String> {
    let all = pod["spec"]["containers"].as_array().into_iter().flatten();
    all.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
}

fn terminated(code: i32) -> Value {
    let now = time(Timestamp::now());
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}})
}
