//! Writing what is to be said about objects into their status: [`Statuses`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use workflows_core::SharedClock;

use super::{
    client::KubeClient,
    objects::{Key, Kind, Object},
};
use crate::resources::READY;

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

/// What this program has to say about an object. What others say of it is none of its business.
#[derive(Debug, Clone)]
struct Wish {
    uid: String,
    /// The generation that [`READY`] is about.
    generation: Option<i64>,
    /// By name, what is said of which generation.
    conditions: BTreeMap<String, (i64, Verdict)>,
    fields: Map<String, Value>,
}

/// What objects should say.
///
/// Several programs write into one status: each replica whether an object is used, and the one that leads
/// what it did at hosts. So each writes what it has to say into the newest object, holding its
/// version, and leaves the rest as it is; it writes nothing where the object says so already, or where
/// another one has said something of a later generation. The newest wish alone counts. What cannot be
/// written is tried again, later and later.
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
        self.change(object, |wish| {
            if condition == READY {
                wish.generation = Some(object.generation);
            }
            wish.conditions.insert(condition.to_owned(), (object.generation, verdict));
        });
    }

    /// Has an object say something else.
    pub(super) fn tell_field(&self, object: &Object, field: &str, value: Value) {
        self.change(object, |wish| {
            wish.fields.insert(field.to_owned(), value);
        });
    }

    fn change(&self, object: &Object, change: impl FnOnce(&mut Wish)) {
        let id = (object.kind, object.key());
        let mut state = self.state();
        let wish = state.wishes.entry(id.clone()).or_insert_with(|| Wish::of(&object.uid));
        if wish.uid != object.uid {
            *wish = Wish::of(&object.uid);
        }
        change(wish);
        if wish.change_to(&object.status, self.clock.now()).is_some() {
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
        /// What others write meanwhile is read again so often before it is put off.
        const TRIES: usize = 5;
        const PATIENCE: Duration = Duration::from_secs(20);
        let objects = kind.of(&self.client, &key.0);
        let writing = async {
            for _ in 0..TRIES {
                match self.write_into_newest(&objects, &key.1, wish).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    // It is gone.
                    Err(kube::Error::Api(status)) if status.code == 404 => return Ok(true),
                    done => return done.map(|()| true),
                }
            }
            Ok(false)
        };
        let (namespace, name) = key;
        match tokio::time::timeout(PATIENCE, writing).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                tracing::warn!(%error, kind = kind.name(), namespace, name, "a status was not written");
                false
            }
            Err(_) => {
                tracing::warn!(
                    kind = kind.name(),
                    namespace,
                    name,
                    "a status was not written in time"
                );
                false
            }
        }
    }

    async fn write_into_newest(
        &self,
        objects: &Api<DynamicObject>,
        name: &str,
        wish: &Wish,
    ) -> kube::Result<()> {
        let newest = objects.get_status(name).await?;
        if newest.metadata.uid.as_deref() != Some(&*wish.uid) {
            return Ok(());
        }
        let Some(status) = wish.change_to(&newest.data["status"], self.clock.now()) else {
            return Ok(());
        };
        let metadata = json!({
            "uid": wish.uid,
            "resourceVersion": newest.metadata.resource_version,
        });
        let patch = json!({"metadata": metadata, "status": status});
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        objects.patch_status(name, &params, &Patch::Merge(&patch)).await.map(drop)
    }
}

impl Wish {
    fn of(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            generation: None,
            conditions: BTreeMap::new(),
            fields: Map::new(),
        }
    }

    /// What is to be changed in a status so that it says this too; `None` when it does already.
    fn change_to(&self, status: &Value, now: Timestamp) -> Option<Value> {
        let mut change = self.fields.clone();
        change.retain(|name, value| status[name.as_str()] != *value);
        let observed = status["observedGeneration"].as_i64();
        if self.generation > observed {
            change.insert("observedGeneration".to_owned(), self.generation.into());
        }
        let there = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let mut conditions = there.to_vec();
        for (name, (generation, verdict)) in &self.conditions {
            let before = conditions.iter_mut().find(|one| one["type"] == *name);
            let said = verdict.condition(name, *generation, before.as_deref(), now);
            match before {
                Some(before) if before["observedGeneration"].as_i64() > Some(*generation) => {}
                Some(before) => *before = said,
                None => conditions.push(said),
            }
        }
        if conditions != there {
            change.insert("conditions".to_owned(), conditions.into());
        }
        (!change.is_empty()).then_some(Value::Object(change))
    }
}

impl Verdict {
    /// As a condition. When its status last changed stays what it was as long as that does not change.
    fn condition(
        &self,
        name: &str,
        generation: i64,
        before: Option<&Value>,
        now: Timestamp,
    ) -> Value {
        let status = if self.holds { "True" } else { "False" };
        let since = before.filter(|before| before["status"] == status);
        let since = since.and_then(|before| before["lastTransitionTime"].as_str());
        json!({
            "type": name,
            "status": status,
            "reason": self.reason,
            "message": cut(&self.message),
            "observedGeneration": generation,
            "lastTransitionTime": match since {
                Some(since) => since.to_owned(),
                None => now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            },
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(said: &[(&str, i64, Verdict)]) -> Wish {
        let mut wish = Wish::of("1");
        for (name, generation, verdict) in said {
            wish.conditions.insert((*name).to_owned(), (*generation, verdict.clone()));
        }
        wish
    }

    fn types(status: &Value) -> Vec<&str> {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().map(|one| one["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn what_others_say_stays() {
        let now = Timestamp::UNIX_EPOCH;
        let hooks = wish(&[("HooksRegistered", 1, Verdict::yes("Registered", ""))]);
        let leaders = hooks.change_to(&json!({}), now).unwrap();
        let ready = wish(&[(READY, 1, Verdict::yes("InUse", ""))]);
        let both = ready.change_to(&leaders, now).unwrap();
        assert_eq!(types(&both), ["HooksRegistered", READY]);
        assert_eq!(ready.change_to(&both, now), None, "it says so already");
        assert_eq!(hooks.change_to(&both, now), None);
    }

    #[test]
    fn who_lags_behind_does_not_take_back_what_is_newer() {
        let now = Timestamp::UNIX_EPOCH;
        let newer = wish(&[(READY, 2, Verdict::yes("InUse", ""))]);
        let status = newer.change_to(&json!({}), now).unwrap();
        let older = wish(&[(READY, 1, Verdict::no("Invalid", ""))]);
        assert_eq!(older.change_to(&status, now), None);
        let mut lagging = Wish::of("1");
        lagging.generation = Some(1);
        assert_eq!(lagging.change_to(&json!({"observedGeneration": 2}), now), None);
    }

    #[test]
    fn a_condition_tells_since_when_it_has_its_status() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let since = |status: &Value| status["conditions"][0]["lastTransitionTime"].clone();
        let missing = wish(&[(READY, 1, Verdict::no("SecretMissing", "a"))]);
        let status = missing.change_to(&json!({}), first).unwrap();
        let denied = wish(&[(READY, 1, Verdict::no("SecretDenied", "b"))]);
        let status = denied.change_to(&status, later).unwrap();
        assert_eq!(since(&status), "1970-01-01T00:00:00Z");
        let ready = wish(&[(READY, 1, Verdict::yes("InUse", "c"))]);
        let status = ready.change_to(&status, later).unwrap();
        assert_eq!(since(&status), "1970-01-01T00:01:00Z");
    }
}
