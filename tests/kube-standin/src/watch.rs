//! Watches: what happened to objects since a version, as it happens.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Refusal, Resource, Shared, selector::Selector, store::Change};

/// What a watch asks for.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) selector: Selector,
    pub(crate) from: u64,
    pub(crate) bookmarks: bool,
    pub(crate) lasts: Duration,
}

/// How often a quiet watch gets a bookmark.
const BOOKMARK: Duration = Duration::from_secs(60);

enum Next {
    Going(u64),
    Over,
}

/// The lines of a watch, until its time is over or its place was forgotten.
pub(crate) fn lines(
    shared: Arc<Shared>,
    watch: Watch,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let until = Instant::now() + watch.lasts;
    let start = (shared, watch, Next::Going(0));
    stream::unfold(start, move |(shared, watch, next)| async move {
        let Next::Going(seen) = next else { return None };
        let mut from = seen.max(watch.from);
        let mut newest = shared.version.subscribe();
        let mut bookmark_at = Instant::now() + BOOKMARK;
        loop {
            let (text, last) = match new_lines(&shared, &watch, from) {
                Ok(news) => news,
                Err(refusal) => {
                    let line = line("ERROR", &refusal.body);
                    return Some((Ok(Bytes::from(line)), (shared, watch, Next::Over)));
                }
            };
            from = last;
            if !text.is_empty() {
                return Some((Ok(Bytes::from(text)), (shared, watch, Next::Going(from))));
            }
            let wake = until.min(bookmark_at);
            tokio::select! {
                changed = newest.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if wake == until {
                        return None;
                    }
                    bookmark_at = Instant::now() + BOOKMARK;
                    if watch.bookmarks {
                        let line = line("BOOKMARK", &bookmark(&watch.resource, from));
                        return Some((Ok(Bytes::from(line)), (shared, watch, Next::Going(from))));
                    }
                }
            }
        }
    })
}

fn new_lines(shared: &Shared, watch: &Watch, from: u64) -> Result<(String, u64), Refusal> {
    let state = shared.lock();
    if from < state.store.oldest {
        return Err(Refusal::too_old(from, state.store.oldest));
    }
    let news = state.store.changes.partition_point(|change| change.version <= from);
    let text =
        state.store.changes[news..].iter().filter_map(|change| told(watch, change)).collect();
    Ok((text, state.store.version))
}

/// A change as this watch tells it: an object that comes to match was added, one that matches no
/// more was deleted.
fn told(watch: &Watch, change: &Change) -> Option<String> {
    if change.resource != watch.resource {
        return None;
    }
    let matches = |object: &Value| {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        (watch.namespace.is_empty() || watch.namespace == namespace)
            && watch.selector.matches(object)
    };
    let before = change.before.as_ref().filter(|object| matches(object));
    let after = change.after.as_ref().filter(|object| matches(object));
    match (before, after) {
        (None, None) => None,
        (None, Some(object)) => Some(line("ADDED", object)),
        (Some(_), Some(object)) => Some(line("MODIFIED", object)),
        (Some(object), None) => Some(line("DELETED", change.after.as_ref().unwrap_or(object))),
    }
}

pub(crate) fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

pub(crate) fn bookmark(resource: &Resource, version: u64) -> Value {
    json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind,
        "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
    })
}
