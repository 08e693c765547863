//! With an incoming webhook: a message for each transition, and nothing that could be edited or
//! looked for.

use reqwest::{StatusCode, header::CONTENT_TYPE};
use secrecy::ExposeSecret;
use serde_json::json;
use url::Url;
use workflows_core::{Delivered, Error, ErrorKind, NotificationView, Result, Transition};

use super::{message, pace::Pace, people::People, template::Templates};
use crate::{
    http::{Http, said},
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
        let url = self.address().await?;
        self.pace.take(self.http.now())?;
        let message = message::of_run(transition, &notification.run, &self.people, &self.templates);
        let body = json!({
            "text": message.text,
            "blocks": message.blocks,
            "unfurl_links": false,
            "unfurl_media": false,
        });
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body.to_string());
        let answer = self.http.exchange(OPERATION, request, ANSWER).await?;
        if answer.status.is_success() {
            return Ok(Delivered::default());
        }
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
            .with("Slack says", said(&answer.body)))
    }
}
