//! What a cluster says no to, and what is made of it.

use serde_json::json;
use workflows_core::{ErrorKind, RunSink, Tenant};
use workflows_kube_standin::{Cluster, Fault, Refusal, Resource};

use crate::world::{World, request};

#[tokio::test]
async fn a_run_that_tekton_does_not_take_is_refused_for_good() {
    let world = World::new().await;
    let mut wrong = request("ci-1");
    let mut run = (*wrong.pipeline_run).clone();
    run["spec"] = json!({});
    wrong.pipeline_run = run.into();
    let error = world.sink.ensure(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.to_string(),
        "create a run: admission webhook \"validation.webhook.pipeline.tekton.dev\" denied the \
         request: validation failed: expected exactly one, got neither: spec.pipelineRef, \
         spec.pipelineSpec"
    );
}

#[tokio::test]
async fn what_an_api_server_would_refuse_is_not_sent() {
    let world = World::new().await;
    let mut wrong = request("ci-1");
    let mut run = (*wrong.pipeline_run).clone();
    run["metadata"]["labels"]["branch"] = "feature/x".into();
    wrong.pipeline_run = run.into();
    let error = world.sink.ensure(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("metadata.labels[\"branch\"]: \"feature/x\" is no label value")
    );
    assert_eq!(world.cluster.requests(), []);
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let world = World::new().await;
    let webhook = "webhook.pipeline.tekton.dev";
    let runs = Resource::namespaced("tekton.dev", "v1", "PipelineRun", "pipelineruns");
    for fault in [
        Fault::Refused(Refusal::webhook_is_down(webhook)),
        Fault::unavailable(),
        Fault::Refused(Refusal::quota(&runs, "ci-1")),
    ] {
        world.cluster.fail("POST", 1, fault);
        let error = world.sink.ensure(&request("ci-1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    }
    world.cluster.fail("POST", 1, Fault::too_many_requests(7));
    let error = world.sink.ensure(&request("ci-1")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RateLimited { until: Some(_) }), "{error}");
    assert!(world.sink.ensure(&request("ci-1")).await.unwrap().created);
}

#[tokio::test]
async fn a_cluster_without_tekton_or_without_the_namespace_says_so() {
    let cluster = Cluster::stand_in("the real one has Tekton").await;
    let namespaces = workflows_k8s::Namespaces::same_name();
    let sink = workflows_k8s::TektonSink::new(cluster.client(), namespaces);
    let error = sink.ensure(&request("ci-1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.to_string().ends_with("; is Tekton Pipelines installed in this cluster?"),
        "{error}"
    );

    let world = World::new().await;
    let mut elsewhere = request("ci-1");
    elsewhere.tenant = Tenant::new("nobody").unwrap();
    let error = world.sink.ensure(&elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(
        error.to_string(),
        "create a run: namespaces \"nobody\" not found; create it, or map the tenant to another \
         namespace"
    );
}
