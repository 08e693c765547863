//! What a container says, as it says it.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};

use crate::{
    Shared,
    store::{Name, Store},
    tekton::task_runs,
};

/// The text of a container of a pod from its beginning, until it has ended.
pub(crate) fn follow(
    shared: Arc<Shared>,
    pod: Name,
    container: String,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let key = (pod.0, pod.1, container);
    stream::unfold((shared, key, 0), |(shared, key, told)| async move {
        let mut newest = shared.version.subscribe();
        loop {
            let (news, is_over) = {
                let state = shared.lock();
                let text = state.logs.get(&key).map_or("", String::as_str);
                (Bytes::copy_from_slice(&text.as_bytes()[told..]), has_ended(&state.store, &key))
            };
            if !news.is_empty() {
                let told = told + news.len();
                return Some((Ok(news), (shared, key, told)));
            }
            if is_over || newest.changed().await.is_err() {
                return None;
            }
        }
    })
}

/// Whether the TaskRun that a pod belongs to says that the step in a container has ended.
fn has_ended(store: &Store, (namespace, pod, container): &(String, String, String)) -> bool {
    let is_of_pod = |status: &serde_json::Value| status["podName"] == **pod;
    let task_runs = task_runs();
    let mut of_pod = store
        .all(&task_runs)
        .filter(|(name, _)| name.0 == *namespace)
        .map(|(_, object)| &object["status"])
        .filter(|status| is_of_pod(status));
    let steps = of_pod.next().and_then(|status| status["steps"].as_array());
    let step = steps.into_iter().flatten().find(|step| step["container"] == **container);
    step.is_some_and(|step| step["terminated"].is_object())
}
