//! A cluster with Tekton and a sink that executes runs in it.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use workflows_core::{
    ManualClock, RunKey, Tenant,
    sink::{EnsuredRun, RunRequest, SinkRun},
};
use workflows_k8s::{Namespaces, TektonSink};
use workflows_kube_standin::{Cluster, Tekton};

/// Where the tenant's runs are.
pub(crate) const TEAM: &str = "team-a";

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) tekton: Tekton,
    pub(crate) sink: TektonSink,
    pub(crate) clock: Arc<ManualClock>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::of(Cluster::start().await)
    }

    /// One that is never real, for what only a stand-in can be made to do.
    pub(crate) async fn stand_in(because: &str) -> Self {
        Self::of(Cluster::stand_in(because).await)
    }

    fn of(cluster: Cluster) -> Self {
        let tekton = cluster.tekton();
        cluster.namespace(TEAM);
        let clock = Arc::new(ManualClock::at(Timestamp::now()));
        let of_cluster = Arc::clone(&clock);
        cluster.clock(move || workflows_core::Clock::now(&*of_cluster));
        let sink = TektonSink::new(cluster.client(), Namespaces::same_name())
            .clock(Arc::clone(&clock) as workflows_core::SharedClock);
        Self { cluster, tekton, sink, clock }
    }

    /// The PipelineRun of a request, as the API server has it.
    pub(crate) fn run(&self, name: &str) -> Value {
        self.tekton.run(TEAM, name).unwrap_or_else(|| panic!("there is no PipelineRun {name}"))
    }

    /// How many requests of this method and path there were.
    pub(crate) fn requests(&self, text: &str) -> usize {
        let all = self.cluster.requests();
        all.iter().filter(|(method, path)| format!("{method} {path}").contains(text)).count()
    }
}

pub(crate) fn tenant() -> Tenant {
    Tenant::new(TEAM).expect("a tenant's name")
}

/// A request for a run of two tasks; its name is a part of its key's.
pub(crate) fn request(name: &str) -> RunRequest {
    let key = workflows_core::conformance::sink::key_of(name);
    let run = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {
            "name": name,
            "labels": {"workflows.tekton.dev/workflow": "ci"},
            "annotations": {
                "workflows.tekton.dev/run-key": key.as_str(),
                "workflows.tekton.dev/tenant": TEAM,
                "results.tekton.dev/recordSummaryAnnotations": "{\"repo\":\"git.example.com/acme/api\"}",
            },
        },
        "spec": {"pipelineSpec": {"tasks": [
            {"name": "build", "taskSpec": {"steps": [{"name": "compile", "image": "rust", "script": "make"}]}},
            {"name": "test", "taskSpec": {"steps": [{"name": "run", "image": "rust", "script": "make test"}]}},
        ]}},
    });
    RunRequest::new(key, tenant(), name, run)
}

pub(crate) fn sink_run(request: &RunRequest, ensured: &EnsuredRun) -> SinkRun {
    SinkRun {
        key: request.key.clone(),
        tenant: request.tenant.clone(),
        name: request.name.clone(),
        handle: Some(ensured.handle.clone()),
    }
}

pub(crate) fn key(name: &str) -> RunKey {
    workflows_core::conformance::sink::key_of(name)
}
