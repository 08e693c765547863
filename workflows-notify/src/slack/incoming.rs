//! With an incoming webhook: a message for each transition, and nothing that could be edited or
//! looked for.

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use reqwest::{StatusCode, header::CONTENT_TYPE};
use secrecy::ExposeSecret;
use serde_json::json;
use url::Url;
use workflows_core::{Delivered, Error, ErrorKind, NotificationView, Result, Transition};

use super::{
    cause,
    message::{self, Message},
    pace::Pace,
    people::People,
    template::Templates,
};
use crate::{
    http::{Address, Http, said},
    secret::NotifierSecret,
};

/// In bytes; Slack answers with a word.
const ANSWER: usize = 4 << 10;

/// An incoming webhook, which leads to one channel.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) http: Http,
    /// Whoever knows it can post.
    pub(super) url: NotifierSecret,
    pub(super) people: People,
    pub(super) templates: Templates,
    pub(super) pace: Pace,
    /// For how long further failures of a cause are told shorter than the first.
    pub(super) group_within: SignedDuration,
    pub(super) causes: Causes,
}

/// When the first failure of a cause was told.
#[derive(Debug)]
pub(super) struct Causes(Cache<String, Timestamp>);

impl Default for Causes {
    fn default() -> Self {
        Self(Cache::new(1_000))
    }
}

/// What is known of a failure's cause.
enum Failure {
    /// It is none, or has none that could be told apart.
    None,
    First(String),
    Further,
}

impl Incoming {
    pub(super) async fn address(&self) -> Result<Url> {
        let url = self.url.present().await?;
        let url = crate::http::address(url.expose_secret(), "the webhook's address")?;
        if url.path().len() < 2 {
            let why = "the webhook's address has no path; copy the whole of it from the app's page";
            return Err(Error::invalid("read the webhook's address", why));
        }
        Ok(url)
    }

    pub(super) async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        const OPERATION: &str = "post to Slack";
        let transition = notification.transition;
        let outdated = !notification.followed_by.is_empty() && !transition.is_end();
        if transition == Transition::Progress || outdated {
            return Ok(Delivered::default());
        }
        let address = self.address().await?;
        self.pace.take(self.http.now())?;
        let failure = self.failure(notification).await;
        let message = self.message(notification, &failure);
        let body = json!({
            "text": message.text,
            "blocks": message.blocks,
            "unfurl_links": false,
            "unfurl_media": false,
        });
        let request = self
            .http
            .post(address.clone())
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body.to_string());
        let answer = self.http.exchange(OPERATION, request, ANSWER).await?;
        if answer.status.is_success() {
            if let Failure::First(cause) = failure {
                self.causes.0.insert(cause, self.http.now()).await;
            }
            return Ok(Delivered::default());
        }
        let secrets = Address::from(address).secrets();
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let (kind, what) = match self.http.refusal(&answer) {
            ErrorKind::Denied => (
                ErrorKind::Denied,
                "Slack does not accept the webhook; it may have been removed, or its channel \
                 archived",
            ),
            kind if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                (kind, "Slack asks to come back later")
            }
            kind => (kind, "Slack does not take the message"),
        };
        Err(Error::new(kind, OPERATION, what)
            .with("status", answer.status.as_u16())
            .with("Slack says", said(&answer.body, &secrets)))
    }

    async fn failure(&self, notification: &NotificationView) -> Failure {
        let ended_badly = message::ended_badly(notification.transition);
        let cause = cause::of(&notification.run).filter(|_| ended_badly);
        let Some(cause) = cause else { return Failure::None };
        let first = self.causes.0.get(&cause).await;
        let age = first.map(|first| self.http.now().duration_since(first));
        match age.is_some_and(|age| age < self.group_within) {
            true => Failure::Further,
            false => Failure::First(cause),
        }
    }

    /// Nobody is called twice for one cause, nor shown twice what the step wrote.
    fn message(&self, notification: &NotificationView, failure: &Failure) -> Message {
        let NotificationView { transition, run, .. } = notification;
        match failure {
            Failure::Further => {
                message::of_further_failure(*transition, run, None, &self.templates)
            }
            _ => {
                let ended_badly = message::ended_badly(*transition);
                let call = self.people.to_look(run).filter(|_| ended_badly);
                message::of_run(*transition, run, call, &self.templates)
            }
        }
    }
}
