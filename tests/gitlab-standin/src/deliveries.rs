//! Webhooks: who is told, what is sent, what disables a hook, and the log of it
//! (<https://docs.gitlab.com/user/project/integrations/webhooks/>).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    answer::Answer,
    world::{Project, World},
};

/// GitLab waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The log keeps deliveries for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A hook of a project or a group.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    pub(crate) url: String,
    /// Sent along.
    pub(crate) token: Option<String>,
    /// Signs.
    pub(crate) signing_token: Option<String>,
    pub(crate) events: BTreeMap<String, bool>,
    pub(crate) verifies: bool,
    pub(crate) branch_filter: String,
    pub(crate) created_at: Timestamp,
    /// Failures in a row.
    pub(crate) failures: u32,
    pub(crate) disabled_until: Option<Timestamp>,
}

impl Hook {
    /// After four failures in a row for a minute, then twice as long each time; after forty for good.
    pub(crate) fn alert_status(&self, now: Timestamp) -> &'static str {
        if self.failures >= 40 {
            "disabled"
        } else if self.disabled_until.is_some_and(|until| until > now) {
            "temporarily_disabled"
        } else {
            "executable"
        }
    }

    fn answered(&mut self, is_success: bool, now: Timestamp) {
        if is_success {
            (self.failures, self.disabled_until) = (0, None);
            return;
        }
        self.failures += 1;
        if self.failures >= 4 {
            let minutes = 1_i64 << (self.failures - 4).min(11);
            let wait = SignedDuration::from_mins(minutes).min(SignedDuration::from_hours(24));
            self.disabled_until = now.checked_add(wait).ok();
        }
    }
}

/// Whose hook it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    Project(u64),
    Group(String),
}

/// One sending of an event to one hook.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) id: u64,
    pub(crate) owner: Owner,
    pub(crate) hook: u64,
    pub(crate) event: &'static str,
    /// The name of the kind of event at the hook: `push_events`.
    pub(crate) trigger: &'static str,
    pub(crate) is_again: bool,
    pub(crate) at: Timestamp,
    pub(crate) payload: Arc<str>,
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// A code, or what went wrong.
    pub(crate) answer: Option<Result<u16, String>>,
}

impl World {
    pub(crate) fn hooks(&self, owner: &Owner) -> Option<&BTreeMap<u64, Hook>> {
        match owner {
            Owner::Project(id) => Some(&self.projects.get(id)?.hooks),
            Owner::Group(path) => Some(&self.groups.get(path)?.hooks),
        }
    }

    pub(crate) fn hooks_mut(&mut self, owner: &Owner) -> Option<&mut BTreeMap<u64, Hook>> {
        match owner {
            Owner::Project(id) => Some(&mut self.projects.get_mut(id)?.hooks),
            Owner::Group(path) => Some(&mut self.groups.get_mut(path)?.hooks),
        }
    }

    fn owners_above(&self, project: &Project) -> Vec<Owner> {
        let above = self.groups.keys().filter(|group| {
            project.path.strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        let above = above.map(|group| Owner::Group(group.clone()));
        [Owner::Project(project.id)].into_iter().chain(above).collect()
    }

    /// Tells everybody who wants to know.
    pub(crate) fn tell(
        &mut self,
        project: u64,
        event: &'static str,
        trigger: &'static str,
        payload: Value,
    ) {
        let Some(project) = self.projects.get(&project) else { return };
        let (now, text) = (self.now(), payload.to_string());
        let owners = self.owners_above(project);
        let mut to = Vec::new();
        for owner in owners {
            for hook in self.hooks(&owner).into_iter().flat_map(BTreeMap::values) {
                let is_wanted = hook.events.get(trigger) == Some(&true);
                if is_wanted && hook.alert_status(now) == "executable" {
                    to.push((owner.clone(), hook.clone()));
                }
            }
        }
        let uuid = self.uuid("event");
        for (owner, hook) in to {
            self.send(owner, &hook, (event, trigger), &uuid, &text);
        }
    }

    fn uuid(&mut self, of: &str) -> String {
        let id = self.new_id();
        let digest = HEXLOWER.encode(&Sha256::digest(format!("{of}/{}/{id}", self.root)));
        let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
    }

    fn send(
        &mut self,
        owner: Owner,
        hook: &Hook,
        (event, trigger): (&'static str, &'static str),
        event_uuid: &str,
        payload: &str,
    ) {
        let (id, key, at) = (self.new_id(), self.uuid("key"), self.now());
        let mut headers = BTreeMap::from([
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("User-Agent".to_owned(), "GitLab/19.5.0".to_owned()),
            ("Idempotency-Key".to_owned(), key.clone()),
            ("X-Gitlab-Event".to_owned(), event.to_owned()),
            ("X-Gitlab-Event-UUID".to_owned(), event_uuid.to_owned()),
            ("X-Gitlab-Instance".to_owned(), self.root.clone()),
            ("X-Gitlab-Webhook-UUID".to_owned(), format!("hook-{}", hook.id)),
            ("webhook-id".to_owned(), key.clone()),
        ]);
        if let Some(token) = &hook.token {
            headers.insert("X-Gitlab-Token".to_owned(), token.clone());
        }
        sign(&mut headers, hook, at, payload);
        self.deliveries.push(Delivery {
            id,
            owner,
            hook: hook.id,
            event,
            trigger,
            is_again: false,
            at,
            payload: payload.into(),
            url: hook.url.clone(),
            headers,
            answer: None,
        });
        self.post(id);
    }

    fn post(&mut self, id: u64) {
        self.unsent.send_modify(|unsent| *unsent += 1);
        if self.outbox.send(id).is_err() {
            self.unsent.send_modify(|unsent| *unsent -= 1);
        }
    }

    /// Sends a delivery again, with the same key.
    pub(crate) fn resend(&mut self, owner: &Owner, hook: u64, id: u64) -> Result<(), Answer> {
        let known = self.logged(owner, hook).into_iter().find(|one| one.id == id).cloned();
        let mut delivery = known.ok_or_else(|| Answer::not_found("Hook event"))?;
        let (new, now) = (self.new_id(), self.now());
        (delivery.id, delivery.at, delivery.is_again) = (new, now, true);
        delivery.answer = None;
        if let Some(hook) = self.hooks(owner).and_then(|hooks| hooks.get(&hook)).cloned() {
            delivery.url.clone_from(&hook.url);
            sign(&mut delivery.headers, &hook, now, &delivery.payload);
        }
        self.deliveries.push(delivery);
        self.post(new);
        Ok(())
    }

    /// What the log of a hook still has, newest first. What is being sent is not in it.
    pub(crate) fn logged(&self, owner: &Owner, hook: u64) -> Vec<&Delivery> {
        let oldest = self.now().saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
        let is_in = |one: &&Delivery| {
            one.owner == *owner && one.hook == hook && one.at >= oldest && one.answer.is_some()
        };
        let mut found: Vec<&Delivery> = self.deliveries.iter().filter(is_in).collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.id));
        found
    }

    /// Notes how a delivery went.
    pub(crate) fn delivered(&mut self, id: u64, answer: Result<u16, String>) {
        let now = self.now();
        let Some(delivery) = self.deliveries.iter_mut().find(|one| one.id == id) else { return };
        let is_success = matches!(answer, Ok(200..300));
        delivery.answer = Some(answer);
        let (owner, hook) = (delivery.owner.clone(), delivery.hook);
        if let Some(hook) = self.hooks_mut(&owner).and_then(|hooks| hooks.get_mut(&hook)) {
            hook.answered(is_success, now);
        }
    }
}

fn sign(headers: &mut BTreeMap<String, String>, hook: &Hook, at: Timestamp, payload: &str) {
    let Some(token) = &hook.signing_token else { return };
    let at = at.as_second().to_string();
    let id = headers.get("webhook-id").cloned().unwrap_or_default();
    let key = token.strip_prefix("whsec_").and_then(|key| BASE64.decode(key.as_bytes()).ok());
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key.unwrap_or_default()) else { return };
    mac.update(format!("{id}.{at}.{payload}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
    headers.insert("webhook-timestamp".to_owned(), at);
    headers.insert("webhook-signature".to_owned(), signature);
}

/// Sends one; called by the stand-in's own thread.
pub(crate) async fn post(
    client: &reqwest::Client,
    url: &str,
    headers: &BTreeMap<String, String>,
    payload: &str,
) -> Result<u16, String> {
    let mut request = client.post(url).timeout(PATIENCE).body(payload.to_owned());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    match request.send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) if error.is_timeout() => Err("internal error: timed out".to_owned()),
        Err(_) => Err("internal error: failed to connect".to_owned()),
    }
}

/// <https://docs.gitlab.com/api/project_webhooks/#list-all-events-for-a-project-webhook>
pub(crate) fn logged_view(delivery: &Delivery) -> Value {
    let payload: Value = serde_json::from_str(&delivery.payload).unwrap_or(Value::Null);
    let mut headers = delivery.headers.clone();
    if let Some(token) = headers.get_mut("X-Gitlab-Token") {
        *token = "[REDACTED]".to_owned();
    }
    let date = delivery.at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let (status, answered) = match &delivery.answer {
        Some(Ok(code)) => (code.to_string(), json!({ "Date": date })),
        Some(Err(text)) => (text.clone(), json!({})),
        None => (String::new(), json!({})),
    };
    json!({
        "id": delivery.id, "url": delivery.url, "trigger": delivery.trigger,
        "request_headers": headers, "request_data": payload, "response_headers": answered,
        "response_body": "", "execution_duration": 0.01, "response_status": status,
    })
}
