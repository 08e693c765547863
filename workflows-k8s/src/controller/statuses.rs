//! Writing what is to be said about objects into their status: [`Statuses`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use workflows_core::SharedClock;

use super::{
    client::KubeClient,
    objects::{Key, Kind, Object},
};

/// A condition's value, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds: true, reason, message: message.into() }
    }

    pub(super) fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }
}

/// What is to be said about an object.
#[derive(Debug, Clone)]
struct Wish {
    uid: String,
    /// The generation that the conditions are about.
    generation: Option<i64>,
    conditions: BTreeMap<String, Value>,
    fields: Map<String, Value>,
}

/// What objects should say, and what they say as far as is known.
///
/// A status is written when it is other than what the object has; the newest wish alone counts. What
/// cannot be written is tried again, later and later.
#[derive(Debug)]
pub(super) struct Statuses {
    client: KubeClient,
    clock: SharedClock,
    state: Mutex<State>,
    news: Notify,
    progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    wishes: BTreeMap<(Kind, Key), Wish>,
    due: BTreeSet<(Kind, Key)>,
    writing: BTreeSet<(Kind, Key)>,
}

/// The name under which the controller writes.
const MANAGER: &str = "workflows-controller";
/// The longest message of a condition.
const LONGEST_MESSAGE: usize = 8 * 1024;

impl Statuses {
    pub(super) fn new(client: KubeClient, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            client,
            clock,
            state: Mutex::default(),
            news: Notify::new(),
            progress: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an object say that a condition holds or not.
    pub(super) fn tell(&self, object: &Object, condition: &str, verdict: Verdict) {
        self.change(object, |wish, now| {
            wish.generation = Some(object.generation);
            let status = if verdict.holds { "True" } else { "False" };
            let since = match wish.conditions.get(condition) {
                Some(before) if before["status"] == status => before["lastTransitionTime"].clone(),
                _ => Value::Null,
            };
            let since = match since {
                Value::Null => json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
                since => since,
            };
            let told = json!({
                "type": condition,
                "status": status,
                "reason": verdict.reason,
                "message": cut(&verdict.message),
                "observedGeneration": object.generation,
                "lastTransitionTime": since,
            });
            wish.conditions.insert(condition.to_owned(), told);
        });
    }

    /// Has an object say something else.
    pub(super) fn tell_field(&self, object: &Object, field: &str, value: Value) {
        self.change(object, |wish, _| {
            wish.fields.insert(field.to_owned(), value);
        });
    }

    fn change(&self, object: &Object, change: impl FnOnce(&mut Wish, Timestamp)) {
        let id = (object.kind, object.key());
        let now = self.clock.now();
        let mut state = self.state();
        let wish = state.wishes.entry(id.clone()).or_insert_with(|| wish_of(object));
        if wish.uid != object.uid {
            *wish = wish_of(object);
        }
        change(wish, now);
        if differs(wish, &object.status) {
            state.due.insert(id);
            self.news.notify_one();
        }
    }

    /// Waits until what was told about an object is written, or no more is to be written.
    pub(super) async fn written(&self, object: &Object) {
        let id = (object.kind, object.key());
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            {
                let state = self.state();
                if !state.due.contains(&id) && !state.writing.contains(&id) {
                    return;
                }
            }
            progress.await;
        }
    }

    /// Forgets an object that is gone.
    pub(super) fn forget(&self, kind: Kind, key: &Key) {
        let mut state = self.state();
        state.wishes.remove(&(kind, key.clone()));
        state.due.remove(&(kind, key.clone()));
    }

    /// Writes what is due until it is told to stop.
    pub(super) async fn write(&self, shutdown: CancellationToken) {
        const TOGETHER: usize = 8;
        const LONGEST: Duration = Duration::from_secs(60);
        let mut pause = Duration::from_millis(500);
        loop {
            let due: Vec<_> = {
                let mut state = self.state();
                state.writing = std::mem::take(&mut state.due);
                let writing = state.writing.iter();
                writing.filter_map(|id| Some((id.clone(), state.wishes.get(id)?.clone()))).collect()
            };
            if due.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.news.notified() => continue,
                }
            }
            let failed: Vec<_> = stream::iter(due)
                .map(|(id, wish)| async move { (!self.write_one(&id, &wish).await).then_some(id) })
                .buffer_unordered(TOGETHER)
                .filter_map(std::future::ready)
                .collect()
                .await;
            {
                let mut state = self.state();
                state.writing.clear();
                state.due.extend(failed.iter().cloned());
            }
            self.progress.notify_waiters();
            if failed.is_empty() {
                pause = Duration::from_millis(500);
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Returns whether there is nothing more to do about it.
    async fn write_one(&self, (kind, key): &(Kind, Key), wish: &Wish) -> bool {
        let mut status = Value::Object(wish.fields.clone());
        if let Some(generation) = wish.generation {
            status["observedGeneration"] = generation.into();
        }
        status["conditions"] = wish.conditions.values().cloned().collect();
        let patch = json!({"metadata": {"uid": wish.uid}, "status": status});
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let objects = kind.of(&self.client, &key.0);
        match objects.patch_status(&key.1, &params, &Patch::Merge(&patch)).await {
            Ok(_) => true,
            // It is gone, or another one by now.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => true,
            Err(error) => {
                tracing::warn!(%error, kind = kind.name(), namespace = key.0, name = key.1, "a status was not written");
                false
            }
        }
    }
}

fn wish_of(object: &Object) -> Wish {
    let conditions = object.status["conditions"].as_array().into_iter().flatten();
    let conditions = conditions
        .filter_map(|one| Some((one["type"].as_str()?.to_owned(), one.clone())))
        .collect();
    let generation = object.status["observedGeneration"].as_i64();
    Wish { uid: object.uid.clone(), generation, conditions, fields: Map::new() }
}

/// Whether a status is other than it should be. When a condition last changed does not count: two
/// replicas that say the same say it once.
fn differs(wish: &Wish, status: &Value) -> bool {
    let without_time = |condition: &Value| {
        let mut condition = condition.clone();
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastTransitionTime");
        }
        condition
    };
    let says = |name: &str| {
        let all = status["conditions"].as_array();
        all.into_iter().flatten().find(|one| one["type"] == name).map(without_time)
    };
    status["observedGeneration"].as_i64() != wish.generation
        || wish
            .conditions
            .iter()
            .any(|(name, condition)| says(name) != Some(without_time(condition)))
        || wish.fields.iter().any(|(name, value)| status[name.as_str()] != *value)
}

fn cut(message: &str) -> String {
    if message.len() <= LONGEST_MESSAGE {
        return message.to_owned();
    }
    let mut end = LONGEST_MESSAGE;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &message[..end])
}
