//! The runs that a cluster has, for a ledger that was lost.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use kube::{Api, ResourceExt, api::ListParams, core::DynamicObject};
use serde_json::json;
use workflows_core::{Result, sink::ExistingRun};

use super::{
    TektonSink, credential,
    identity::{RUN, is_child, run_of},
    kinds::RunKind,
};
use crate::error::from_kube;

/// Runs that ended longer ago than this are history.
const RECENT: SignedDuration = SignedDuration::from_hours(24);

/// The sink's own runs that are under way or have ended a short time ago.
pub(super) fn existing(
    sink: TektonSink,
    places: Vec<(RunKind, Api<DynamicObject>)>,
) -> impl Stream<Item = Result<ExistingRun>> + Send + 'static {
    stream::iter(places).flat_map(move |(kind, place)| {
        let sink = sink.clone();
        objects(sink.clone(), place)
            .try_filter_map(move |object| existing_run(sink.clone(), kind.clone(), object))
    })
}

/// All of a place, a page at a time.
fn objects(
    sink: TektonSink,
    place: Api<DynamicObject>,
) -> impl Stream<Item = Result<DynamicObject>> + Send + 'static {
    let first = Some(ListParams::default().labels(RUN).limit(500));
    let pages = stream::try_unfold(first, move |params| {
        let (sink, place) = (sink.clone(), place.clone());
        async move {
            let Some(params) = params else { return Ok(None) };
            let page = place.list(&params).await;
            let page = page.map_err(|error| from_kube("list runs", error, sink.now()))?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            let next = next.map(|token| params.continue_token(&token));
            Ok(Some((stream::iter(page.items.into_iter().map(Ok)), next)))
        }
    });
    pages.try_flatten()
}

async fn existing_run(
    sink: TektonSink,
    kind: RunKind,
    object: DynamicObject,
) -> Result<Option<ExistingRun>> {
    if is_child(&object) {
        return Ok(None);
    }
    let Some((tenant, key)) = run_of(&object) else { return Ok(None) };
    // A tenant's runs are where its namespace is: what somebody wrote elsewhere is not its.
    let is_its = Some(sink.namespaces.of(&tenant)) == object.namespace();
    let status = kind.status(&object)?;
    let ended_at = status.finished_at.filter(|_| status.phase.is_terminal());
    let is_recent = ended_at.is_none_or(|at| sink.now().duration_since(at) < RECENT);
    if !is_its || !is_recent {
        return Ok(None);
    }
    let pipeline_run = json!({
        "apiVersion": kind.resource().api_version, "kind": kind.resource().kind,
        "metadata": {
            "name": object.name_any(), "namespace": object.namespace(),
            "labels": object.labels(), "annotations": object.annotations(),
        },
        "spec": object.data["spec"],
    });
    let handle = sink.handle(&kind, &object)?;
    let ensured = sink.ensured(false, &handle);
    let mut existing = ExistingRun::new(pipeline_run, ensured.handle);
    existing.link = ensured.link;
    let secrets = sink.secrets(&handle.namespace);
    let given = credential::given(&secrets, &handle.name, &key, sink.now()).await?;
    Ok(Some(existing.with_credential(given)))
}
