//! Webhooks: who is told, what is sent, and the log of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    answer::{Answer, Reply, Request},
    world::{AccountKind, Repo, World},
};

/// GitHub waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The log keeps deliveries for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// A hook of a repository, of an organisation, or of an App.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    pub(crate) url: String,
    pub(crate) secret: Option<String>,
    pub(crate) content_type: String,
    pub(crate) events: Vec<String>,
    pub(crate) active: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) last: Option<(u16, String)>,
}

impl Hook {
    pub(crate) fn wants(&self, event: &str) -> bool {
        self.active && self.events.iter().any(|wanted| wanted == event || wanted == "*")
    }
}

/// Whose hook it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    Repo(u64),
    Organization(String),
    App(u64),
}

/// One sending of an event to one hook.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) id: u64,
    pub(crate) guid: String,
    pub(crate) owner: Owner,
    pub(crate) hook: u64,
    pub(crate) event: String,
    pub(crate) action: Option<String>,
    pub(crate) installation: Option<u64>,
    pub(crate) repo: Option<u64>,
    pub(crate) redelivery: bool,
    pub(crate) at: Timestamp,
    pub(crate) payload: Arc<str>,
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) answer: Option<Answered>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) code: u16,
    pub(crate) status: String,
    pub(crate) seconds: f64,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// An event before it is known who is told of it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) event: &'static str,
    pub(crate) action: Option<String>,
    pub(crate) payload: Value,
    pub(crate) sender: String,
    pub(crate) repo: Option<u64>,
    /// The App that alone is told; `None` for everybody who wants to know.
    pub(crate) app: Option<u64>,
}

impl World {
    /// Tells everybody who wants to know.
    pub(crate) fn tell(&mut self, told: Told) {
        let mut payload = told.payload;
        if let Some(action) = &told.action {
            payload["action"] = action.as_str().into();
        }
        payload["sender"] = self.user_view(&told.sender);
        let repo = told.repo.and_then(|id| self.repos.get(&id));
        if let Some(repo) = repo {
            payload["repository"] = self.repo_view(repo);
            let owner = self.account(&repo.owner);
            if owner.is_some_and(|owner| owner.kind == AccountKind::Organization) {
                payload["organization"] = self.organization_view(&repo.owner);
            }
        }
        let mut to: Vec<(Owner, Hook, Option<u64>)> = Vec::new();
        if let (Some(repo), None) = (repo, told.app) {
            to.extend(repo.hooks.values().map(|hook| (Owner::Repo(repo.id), hook.clone(), None)));
            let of_owner = self.account(&repo.owner).into_iter().flat_map(|one| one.hooks.values());
            to.extend(
                of_owner.map(|hook| (Owner::Organization(repo.owner.clone()), hook.clone(), None)),
            );
            to.retain(|(_, hook, _)| hook.wants(told.event));
        }
        for installation in self.installations.values() {
            let Some(app) = self.apps.get(&installation.app) else { continue };
            let Some(hook) = &app.hook else { continue };
            let is_reached = match repo {
                Some(repo) => self.covers(installation, repo),
                // About the installation itself.
                None => payload["installation"]["id"] == json!(installation.id),
            };
            // What is about the App itself is told without asking for it.
            let is_wanted = match told.app {
                Some(only) => only == app.id,
                None => app.events.iter().any(|event| event == told.event),
            };
            if is_reached && is_wanted && installation.suspended_at.is_none() {
                to.push((Owner::App(app.id), hook.clone(), Some(installation.id)));
            }
        }
        for (owner, hook, installation) in to {
            let mut payload = payload.clone();
            if let Some(id) = installation
                && payload.get("installation").is_none()
            {
                payload["installation"] =
                    json!({ "id": id, "node_id": crate::views::node_id("Installation", id) });
            }
            if let Some(description) = self.description {
                let action = told.action.as_deref();
                self.problems.extend(description.check_event(told.event, action, &payload));
            }
            self.send(
                owner,
                &hook,
                told.event,
                told.action.clone(),
                installation,
                told.repo,
                payload.to_string(),
            );
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each is a column of the delivery log")]
    fn send(
        &mut self,
        owner: Owner,
        hook: &Hook,
        event: &str,
        action: Option<String>,
        installation: Option<u64>,
        repo: Option<u64>,
        payload: String,
    ) {
        let id = self.new_id();
        let digest = HEXLOWER.encode(&Sha256::digest(format!("{id}/{payload}")));
        let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
        let guid = format!(
            "{}-{}-{}-{}-{}",
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32)
        );
        let (target, target_id) = match &owner {
            Owner::Repo(id) => ("repository", *id),
            Owner::Organization(login) => {
                ("organization", self.account(login).map_or(0, |one| one.id))
            }
            Owner::App(id) => ("integration", *id),
        };
        let mut headers = BTreeMap::from([
            ("Accept".to_owned(), "*/*".to_owned()),
            ("User-Agent".to_owned(), "GitHub-Hookshot/standin".to_owned()),
            ("X-GitHub-Delivery".to_owned(), guid.clone()),
            ("X-GitHub-Event".to_owned(), event.to_owned()),
            ("X-GitHub-Hook-ID".to_owned(), hook.id.to_string()),
            ("X-GitHub-Hook-Installation-Target-Type".to_owned(), target.to_owned()),
            ("X-GitHub-Hook-Installation-Target-ID".to_owned(), target_id.to_string()),
        ]);
        let is_form = hook.content_type == "form";
        let payload = if is_form {
            url::form_urlencoded::Serializer::new(String::new())
                .append_pair("payload", &payload)
                .finish()
        } else {
            payload
        };
        let content_type =
            if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
        headers.insert("Content-Type".to_owned(), content_type.to_owned());
        if let Some(secret) = &hook.secret {
            let sign = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
            if let Ok(mut sign) = sign {
                sign.update(payload.as_bytes());
                let digest = HEXLOWER.encode(&sign.finalize().into_bytes());
                headers.insert("X-Hub-Signature-256".to_owned(), format!("sha256={digest}"));
            }
        }
        self.deliveries.push(Delivery {
            id,
            guid,
            owner,
            hook: hook.id,
            event: event.to_owned(),
            action,
            installation,
            repo,
            redelivery: false,
            at: self.clock.now(),
            payload: payload.into(),
            url: hook.url.clone(),
            headers,
            answer: None,
        });
        self.post(id);
    }

    /// Tells a hook that it is there.
    pub(crate) fn ping(&mut self, owner: Owner, hook: &Hook, sender: &str) {
        let (kind, repo) = match &owner {
            Owner::Repo(id) => ("Repository", Some(*id)),
            Owner::Organization(_) => ("Organization", None),
            Owner::App(_) => ("App", None),
        };
        let mut payload = json!({
            "zen": "Keep it logically awesome.", "hook_id": hook.id,
            "hook": {
                "type": kind, "id": hook.id, "name": "web", "active": hook.active,
                "events": hook.events, "created_at": hook.created_at,
                "updated_at": hook.updated_at, "config": config_view(hook),
            },
            "sender": self.user_view(sender),
        });
        if let Some(repo) = repo.and_then(|id| self.repos.get(&id)) {
            payload["repository"] = self.repo_view(repo);
        }
        self.send(owner, hook, "ping", None, None, repo, payload.to_string());
    }

    fn post(&mut self, id: u64) {
        self.unsent.send_modify(|unsent| *unsent += 1);
        if self.outbox.send(id).is_err() {
            self.unsent.send_modify(|unsent| *unsent -= 1);
        }
    }

    fn hook_of(&mut self, owner: &Owner, id: u64) -> Option<&mut Hook> {
        match owner {
            Owner::Repo(repo) => self.repos.get_mut(repo)?.hooks.get_mut(&id),
            Owner::Organization(login) => {
                self.accounts.get_mut(&login.to_ascii_lowercase())?.hooks.get_mut(&id)
            }
            Owner::App(app) => self.apps.get_mut(app)?.hook.as_mut(),
        }
    }

    /// Sends a delivery again, with the same id of the event.
    pub(crate) fn redeliver(&mut self, owner: &Owner, id: u64) -> Result<u64, Answer> {
        let found = self.logged(owner).into_iter().find(|one| one.id == id).cloned();
        let mut delivery = found.ok_or_else(Answer::not_found)?;
        let new = self.new_id();
        delivery.id = new;
        delivery.redelivery = true;
        delivery.at = self.clock.now();
        delivery.answer = None;
        let hook = delivery.hook;
        if let Some(hook) = self.hook_of(owner, hook) {
            delivery.url = hook.url.clone();
        }
        self.deliveries.push(delivery);
        self.post(new);
        Ok(new)
    }

    /// What the log of a hook's owner still has, newest first. What is being sent is not in it.
    pub(crate) fn logged(&self, owner: &Owner) -> Vec<&Delivery> {
        let oldest = self.clock.now().saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
        let mut found: Vec<&Delivery> = self
            .deliveries
            .iter()
            .filter(|one| one.owner == *owner && one.at >= oldest && one.answer.is_some())
            .collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.id));
        found
    }

    /// Notes how a delivery went.
    pub(crate) fn delivered(&mut self, id: u64, answered: Answered) {
        let Some(delivery) = self.deliveries.iter_mut().find(|one| one.id == id) else { return };
        let (owner, hook) = (delivery.owner.clone(), delivery.hook);
        let last = (answered.code, answered.status.clone());
        delivery.answer = Some(answered);
        if let Some(hook) = self.hook_of(&owner, hook) {
            hook.last = Some(last);
        }
    }
}

/// Sends what is to be sent, in order; called by the stand-in's own thread.
pub(crate) async fn post(
    client: &reqwest::Client,
    url: &str,
    headers: &BTreeMap<String, String>,
    payload: &str,
) -> Answered {
    let started = std::time::Instant::now();
    let mut request = client.post(url).timeout(PATIENCE).body(payload.to_owned());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let done = async {
        let response = request.send().await?;
        let code = response.status();
        let headers = response
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        let body = response.text().await?;
        Ok::<_, reqwest::Error>(Answered {
            code: code.as_u16(),
            status: if code.is_success() {
                "OK".to_owned()
            } else {
                format!("Invalid HTTP Response: {}", code.as_u16())
            },
            seconds: 0.0,
            headers,
            body,
        })
    };
    let mut answered = done.await.unwrap_or_else(|error| Answered {
        code: if error.is_timeout() { 504 } else { 502 },
        status: if error.is_timeout() { "timed out" } else { "failed to connect to host" }
            .to_owned(),
        seconds: 0.0,
        headers: BTreeMap::new(),
        body: String::new(),
    });
    answered.seconds = (started.elapsed().as_secs_f64() * 100.0).round() / 100.0;
    answered
}

/// How a hook is set up; its secret is never told.
pub(crate) fn config_view(hook: &Hook) -> Value {
    let mut view =
        json!({ "url": hook.url, "content_type": hook.content_type, "insecure_ssl": "0" });
    if hook.secret.is_some() {
        view["secret"] = "********".into();
    }
    view
}

pub(crate) fn item_view(delivery: &Delivery) -> Value {
    let answer = delivery.answer.as_ref();
    json!({
        "id": delivery.id, "guid": delivery.guid, "delivered_at": delivery.at,
        "redelivery": delivery.redelivery, "duration": answer.map_or(0.0, |one| one.seconds),
        "status": answer.map_or("pending", |one| one.status.as_str()),
        "status_code": answer.map_or(0, |one| one.code), "event": delivery.event,
        "action": delivery.action, "installation_id": delivery.installation,
        "repository_id": delivery.repo, "throttled_at": null,
    })
}

pub(crate) fn whole_view(delivery: &Delivery) -> Value {
    let mut view = item_view(delivery);
    let answer = delivery.answer.as_ref();
    let payload: Value = serde_json::from_str(&delivery.payload).unwrap_or(Value::Null);
    let more = json!({
        "url": delivery.url,
        "request": { "headers": delivery.headers, "payload": payload },
        "response": {
            "headers": answer.map(|one| &one.headers), "payload": answer.map(|one| &one.body),
        },
    });
    crate::views::merge(&mut view, more);
    view
}

/// One page of a log, which is read by a cursor.
pub(crate) fn list(world: &World, request: &Request, owner: &Owner, hook: Option<u64>) -> Reply {
    let mut logged = world.logged(owner);
    logged.retain(|one| hook.is_none_or(|hook| one.hook == hook));
    let cursor = request
        .query("cursor")
        .map(|text| text.strip_prefix('v').and_then(|text| text.parse::<u64>().ok()));
    let from = match cursor {
        Some(Some(id)) => id,
        Some(None) => return Err(Answer::error(422, "The cursor is invalid.")),
        None => u64::MAX,
    };
    let mut rest = logged.into_iter().filter(|one| one.id <= from);
    let page: Vec<Value> = rest.by_ref().take(request.per_page()).map(item_view).collect();
    let next = rest.next().map(|one| {
        let again = request.again(&world.root, "cursor", &format!("v{}", one.id));
        format!("<{again}>; rel=\"next\"")
    });
    Answer::listed((page, next))
}

pub(crate) fn get(world: &World, request: &Request, owner: &Owner, hook: Option<u64>) -> Reply {
    let id = request.number("delivery_id")?;
    let fits = |one: &&Delivery| one.id == id && hook.is_none_or(|hook| one.hook == hook);
    let found = world.logged(owner).into_iter().find(fits).map(whole_view);
    Answer::ok(found.ok_or_else(Answer::not_found)?)
}

pub(crate) fn attempt(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let id = request.number("delivery_id")?;
    world.redeliver(owner, id)?;
    Ok(Answer::json(202, json!({})))
}

impl World {
    /// A repository by its id.
    pub(crate) fn repo(&self, id: u64) -> Result<&Repo, Answer> {
        self.repos.get(&id).ok_or_else(Answer::not_found)
    }

    pub(crate) fn repo_mut(&mut self, id: u64) -> Result<&mut Repo, Answer> {
        self.repos.get_mut(&id).ok_or_else(Answer::not_found)
    }
}
