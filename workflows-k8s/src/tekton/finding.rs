//! Where runs are in the cluster, and what is theirs there.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::Value;
use workflows_core::{
    Error, ErrorKind, LogRef, Result, RunKey,
    sink::{EnsuredRun, SinkRun},
};

use super::{
    TektonSink,
    identity::{self, Handle, RUN_KEY},
    kinds::RunKind,
    logs::StepPlace,
    read, resource,
    status::TaskRun,
};
use crate::error::from_kube;

impl TektonSink {
    pub(super) fn objects(&self, kind: &RunKind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, kind.resource())
    }

    /// The objects of a kind in each place that is watched.
    pub(super) fn watched(&self, resource: &ApiResource) -> Vec<Api<DynamicObject>> {
        let api = |namespace: Option<String>| match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        self.namespaces.watched().into_iter().map(api).collect()
    }

    /// The kind of an object that is to be made.
    pub(super) fn kind_of(&self, object: &Value) -> Result<&RunKind> {
        self.kinds.iter().find(|kind| kind.is_of(object)).ok_or_else(|| {
            let of = |kind: &RunKind| {
                format!("{} {}", kind.resource().api_version, kind.resource().kind)
            };
            let known: Vec<String> = self.kinds.iter().map(of).collect();
            let (version, kind) = (&object["apiVersion"], &object["kind"]);
            let known = known.join(", ");
            let message = format!("the sink makes no {version} {kind}; it makes: {known}");
            Error::invalid("create a run", message)
        })
    }

    pub(super) fn task_runs(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource("TaskRun"))
    }

    pub(super) fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The run's own object of one of these kinds. Another one of that name is none.
    pub(super) async fn find(
        &self,
        kinds: &[RunKind],
        namespace: &str,
        name: &str,
        key: &RunKey,
        uid: Option<&str>,
    ) -> Result<(RunKind, DynamicObject)> {
        const OPERATION: &str = "read a run";
        for kind in kinds {
            let object = match self.objects(kind, namespace).get(name).await {
                Ok(object) => object,
                Err(error) => {
                    let error = from_kube(OPERATION, error, self.now());
                    if error.kind() == ErrorKind::NotFound {
                        continue;
                    }
                    return Err(error);
                }
            };
            let its_key = object.annotations().get(RUN_KEY).map(String::as_str);
            let is_the_one = uid.is_none_or(|uid| object.metadata.uid.as_deref() == Some(uid));
            if its_key == Some(key.as_str()) && is_the_one && !identity::is_child(&object) {
                return Ok((kind.clone(), object));
            }
        }
        Err(Error::not_found(
            OPERATION,
            "there is nothing of that name that is this run's (any more)",
        )
        .with("namespace", namespace)
        .with("name", name))
    }

    pub(super) async fn find_run(&self, run: &SinkRun) -> Result<(RunKind, DynamicObject)> {
        let Some(handle) = run.handle.as_deref().and_then(Handle::parse) else {
            let namespace = self.namespaces.of(&run.tenant);
            return self.find(&self.kinds, &namespace, &run.name, &run.key, None).await;
        };
        let is_its = |kind: &&RunKind| {
            kind.resource().api_version == handle.api_version && kind.resource().kind == handle.kind
        };
        let Some(kind) = self.kinds.iter().find(is_its) else {
            return Err(Error::transient(
                "read a run",
                "the sink does not know its kind (any more)",
            )
            .with("kind", format!("{} {}", handle.api_version, handle.kind)));
        };
        let Handle { namespace, name, uid, .. } = &handle;
        self.find(std::slice::from_ref(kind), namespace, name, &run.key, Some(uid)).await
    }

    pub(super) async fn task_runs_of(&self, namespace: &str, uid: &str) -> Result<Vec<TaskRun>> {
        // By the run's uid and not its name, which another run may have had before.
        let params = ListParams::default().labels(&format!("tekton.dev/pipelineRunUID={uid}"));
        let listed = self.task_runs(namespace).list(&params).await;
        let listed = listed.map_err(|error| from_kube("read a run's tasks", error, self.now()))?;
        listed.items.iter().map(read).collect()
    }

    pub(super) fn handle(&self, kind: &RunKind, object: &DynamicObject) -> Result<Handle> {
        match (object.namespace(), object.metadata.uid.clone()) {
            (Some(namespace), Some(uid)) => {
                let ApiResource { api_version, kind, .. } = kind.resource().clone();
                Ok(Handle { namespace, name: object.name_any(), uid, api_version, kind })
            }
            _ => Err(Error::transient(
                "read a run",
                "the API server's answer has no namespace or no uid",
            )),
        }
    }

    pub(super) fn ensured(&self, created: bool, handle: &Handle) -> EnsuredRun {
        EnsuredRun { created, handle: handle.to_text().into(), link: self.link(handle) }
    }

    pub(super) fn link(&self, handle: &Handle) -> Option<String> {
        let Handle { namespace, name, .. } = handle;
        let plural = match handle.kind.as_str() {
            "PipelineRun" => "pipelineruns",
            "TaskRun" => "taskruns",
            _ => return None,
        };
        let address = self.dashboard.as_ref()?;
        Some(format!("{address}/#/namespaces/{namespace}/{plural}/{name}"))
    }

    /// Where a step of a run writes its log.
    pub(super) async fn step(&self, run: &SinkRun, step: &LogRef) -> Result<StepPlace> {
        let (kind, object) = self.find_run(run).await?;
        let handle = self.handle(&kind, &object)?;
        let task_runs = match kind.is_task_run() {
            true => vec![read(&object)?],
            false => self.task_runs_of(&handle.namespace, &handle.uid).await?,
        };
        let is_alone = kind.is_task_run();
        let of_task = task_runs.iter().find(|one| is_alone || one.task() == &*step.task);
        match of_task.and_then(|one| one.container(&step.step)) {
            Some((pod, container)) => Ok(StepPlace {
                namespace: handle.namespace,
                pod: pod.to_owned(),
                container: container.to_owned(),
            }),
            None => Err(Error::not_found("read a log", "the step has no pod")
                .with("task", &step.task)
                .with("step", &step.step)),
        }
    }
}
