//! Calls of Slack's Web API.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};
use workflows_core::{Error, ErrorKind, Result};

use super::message::Message;
use crate::{
    http::{Answer, Http, said},
    secret::NotifierSecret,
};

/// In bytes. A page of history with its metadata is the longest answer.
const ANSWER: usize = 4 << 20;
/// How many messages a page of history has at most (Slack: 999).
const PAGE: usize = 200;
/// The type of the metadata of messages here. Its payload names the run, the delivery and the cause.
const METADATA: &str = "workflows_run";

/// Why Slack did not do what it was asked.
#[derive(Debug)]
pub(super) struct Refused {
    /// Slack's word for it; empty when there was no answer that has one.
    pub(super) word: String,
    pub(super) error: Error,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { word: String::new(), error }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

/// A message that is there: its channel, its time stamp, which is its id, and the message in whose
/// thread it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) channel: String,
    pub(super) ts: String,
    pub(super) thread: Option<String>,
}

impl Place {
    /// As a delivery's reference.
    pub(super) fn reference(&self) -> String {
        let Self { channel, ts, thread } = self;
        match thread {
            None => format!("{channel}/{ts}"),
            Some(thread) => format!("{channel}/{ts}/{thread}"),
        }
    }

    pub(super) fn of_reference(reference: &str) -> Option<Self> {
        let mut parts = reference.split('/');
        let (channel, ts, thread) = (parts.next()?, parts.next()?, parts.next());
        let is_ts =
            |ts: &str| !ts.is_empty() && ts.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        let is_place = is_ts(ts) && thread.is_none_or(is_ts) && parts.next().is_none();
        let thread = thread.map(str::to_owned);
        is_place.then(|| Self { channel: channel.to_owned(), ts: ts.to_owned(), thread })
    }

    /// The message that begins the thread of its answers: Slack has no threads in threads.
    pub(super) fn root(&self) -> &str {
        self.thread.as_deref().unwrap_or(&self.ts)
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// That of a run.
    Message,
    /// What stands in the thread of a failure.
    Details,
    /// That a run failed as others did, in the thread of the first, when the run has its message
    /// elsewhere.
    Line,
    /// It begins the thread of many runs at once.
    Crowd,
}

impl Part {
    const ALL: [Self; 4] = [Self::Message, Self::Details, Self::Line, Self::Crowd];

    fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Details => "details",
            Self::Line => "line",
            Self::Crowd => "crowd",
        }
    }
}

/// Whose a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) run: String,
    pub(super) delivery: String,
    pub(super) cause: String,
    pub(super) part: Part,
}

impl Mark {
    fn metadata(&self) -> Value {
        let Self { run, delivery, cause, part } = self;
        let part = part.as_str();
        let payload = json!({ "run": run, "delivery": delivery, "cause": cause, "part": part });
        json!({ "event_type": METADATA, "event_payload": payload })
    }

    fn of(message: &Value) -> Option<Self> {
        let metadata = message.get("metadata")?;
        let payload = metadata.get("event_payload")?;
        let field = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
        (metadata.get("event_type")?.as_str()? == METADATA).then_some(())?;
        let part = field("part")?;
        Some(Self {
            run: field("run")?,
            delivery: field("delivery")?,
            cause: field("cause")?,
            part: Part::ALL.into_iter().find(|one| one.as_str() == part)?,
        })
    }
}

/// A message of ours that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) ts: String,
    pub(super) mark: Mark,
}

impl Found {
    pub(super) fn of(message: &Value) -> Option<Self> {
        let ts = message.get("ts")?.as_str()?.to_owned();
        Some(Self { ts, mark: Mark::of(message)? })
    }
}

/// A page of messages.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) messages: Vec<Value>,
    pub(super) next: Option<String>,
}

/// The Web API with a bot's token.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) http: Http,
    pub(super) base: Url,
    pub(super) token: NotifierSecret,
}

impl Api {
    /// Calls a method with JSON.
    async fn call(&self, method: &'static str, body: &Value) -> Result<Value, Refused> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Error::invalid("call Slack", error.to_string()))?;
        self.send(method, "application/json; charset=utf-8", bytes).await.map(|(value, _)| value)
    }

    /// Calls a method that reads, with a form: not all of these take JSON.
    async fn read(
        &self,
        method: &'static str,
        fields: &[(&str, &str)],
    ) -> Result<(Value, Answer), Refused> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(method, "application/x-www-form-urlencoded", form.into_bytes()).await
    }

    async fn send(
        &self,
        method: &'static str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<(Value, Answer), Refused> {
        let token = self.token.present().await?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| Error::invalid("call Slack", "the token holds characters of no token"))?;
        authorization.set_sensitive(true);
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{method}", url.path().trim_end_matches('/')));
        let request = self
            .http
            .post(url)
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, content_type)
            .body(body);
        let answer = self.http.exchange("call Slack", request, ANSWER).await?;
        let said = |text: &[u8]| said(text, &[token.expose_secret()]);
        let failed =
            |kind, message: &str| Error::new(kind, "call Slack", message).with("method", method);
        if !answer.status.is_success() {
            let kind = self.http.refusal(&answer);
            let error = failed(kind, "Slack refuses")
                .with("status", answer.status.as_u16())
                .with("Slack says", said(&answer.body));
            return Err(error.into());
        }
        // What was cut off or is no JSON may all the same have been done.
        let value: Value = serde_json::from_slice(&answer.body).map_err(|_| {
            failed(ErrorKind::Transient, "the answer is not what Slack's API answers")
        })?;
        if value.get("ok").and_then(Value::as_bool) == Some(true) {
            return Ok((value, answer));
        }
        let word = said(value.get("error").and_then(Value::as_str).unwrap_or("?").as_bytes());
        let kind = match kind_of(&word) {
            ErrorKind::RateLimited { .. } => {
                ErrorKind::RateLimited { until: self.http.retry_after(&answer.headers) }
            }
            kind => kind,
        };
        let mut error = failed(kind, help(&word)).with("Slack says", &word);
        for (name, field) in [("needed", "needed"), ("provided", "provided")] {
            if let Some(scopes) = value.get(field).and_then(Value::as_str) {
                error = error.with(name, said(scopes.as_bytes()));
            }
        }
        let messages = value.pointer("/response_metadata/messages").and_then(Value::as_array);
        if let Some(first) = messages.and_then(|all| all.first()).and_then(Value::as_str) {
            error = error.with("because", said(first.as_bytes()));
        }
        Err(Refused { word, error })
    }

    /// Posts a message, or a reply in a thread, which may show in the channel too.
    pub(super) async fn post(
        &self,
        channel: &str,
        message: &Message,
        mark: &Mark,
        thread: Option<(&Place, bool)>,
    ) -> Result<Place, Refused> {
        let mut body = self.body(channel, message, mark);
        if let Some((parent, broadcast)) = thread {
            body["thread_ts"] = json!(parent.root());
            body["reply_broadcast"] = json!(broadcast);
        }
        let answer = self.call("chat.postMessage", &body).await?;
        let field = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        match (field("channel"), field("ts")) {
            (Some(channel), Some(ts)) => {
                let thread = thread.map(|(parent, _)| parent.root().to_owned());
                Ok(Place { channel, ts, thread })
            }
            _ => {
                Err(Error::transient("call Slack", "Slack did not say where the message is").into())
            }
        }
    }

    /// Makes a message say something else.
    pub(super) async fn update(
        &self,
        place: &Place,
        message: &Message,
        mark: &Mark,
    ) -> Result<(), Refused> {
        let mut body = self.body(&place.channel, message, mark);
        body["ts"] = json!(place.ts);
        self.call("chat.update", &body).await.map(|_| ())
    }

    fn body(&self, channel: &str, message: &Message, mark: &Mark) -> Value {
        json!({
            "channel": channel,
            "text": message.text,
            "blocks": message.blocks,
            "metadata": mark.metadata(),
            "mrkdwn": false,
            "parse": "none",
            "link_names": false,
            "unfurl_links": false,
            "unfurl_media": false,
        })
    }

    /// A page of a method that reads messages.
    pub(super) async fn page(
        &self,
        method: &'static str,
        fields: &[(&str, &str)],
        cursor: &str,
    ) -> Result<Page, Refused> {
        let limit = PAGE.to_string();
        let mut all = fields.to_vec();
        all.extend([("limit", &*limit), ("include_all_metadata", "true")]);
        if !cursor.is_empty() {
            all.push(("cursor", cursor));
        }
        let (mut answer, _) = self.read(method, &all).await?;
        let next = answer.pointer("/response_metadata/next_cursor").and_then(Value::as_str);
        let next = next.filter(|next| !next.is_empty()).map(str::to_owned);
        match answer.get_mut("messages").map(Value::take) {
            Some(Value::Array(messages)) => Ok(Page { messages, next }),
            _ => Err(Error::transient("call Slack", "Slack did not say what is there")
                .with("method", method)
                .into()),
        }
    }

    /// The scopes of the token, where Slack tells.
    pub(super) async fn scopes(&self) -> Result<Option<Vec<String>>, Refused> {
        let (_, answer) = self.read("auth.test", &[]).await?;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|value| value.to_str().ok());
        Ok(scopes.map(|all| all.split(',').map(|one| one.trim().to_owned()).collect()))
    }
}

/// What Slack's word for an error means
/// (<https://docs.slack.dev/reference/methods/chat.postMessage/#errors>).
pub(super) fn kind_of(word: &str) -> ErrorKind {
    match word {
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => {
            ErrorKind::RateLimited { until: None }
        }
        "internal_error"
        | "fatal_error"
        | "request_timeout"
        | "service_unavailable"
        | "team_added_to_org"
        | "rollup_error"
        | "?" => ErrorKind::Transient,
        "message_not_found" | "thread_not_found" => ErrorKind::NotFound,
        "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "no_permission"
        | "missing_scope"
        | "not_allowed_token_type"
        | "org_login_required"
        | "team_access_not_granted"
        | "two_factor_setup_required"
        | "access_denied"
        | "ekm_access_denied"
        | "accesslimited"
        | "enterprise_is_restricted"
        | "not_in_channel"
        | "channel_not_found"
        | "is_archived"
        | "restricted_action"
        | "restricted_action_read_only_channel"
        | "restricted_action_thread_only_channel"
        | "restricted_action_thread_locked"
        | "restricted_action_non_threadable_channel" => ErrorKind::Denied,
        _ => ErrorKind::Invalid,
    }
}

fn help(word: &str) -> &'static str {
    match word {
        "not_in_channel" | "channel_not_found" => {
            "the bot does not see the channel; invite it there, or give it `chat:write.public`"
        }
        "missing_scope" => "the token lacks a scope; add it to the app and install the app again",
        "is_archived" => "the channel is archived",
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            "Slack does not accept the token; it may have been revoked or have expired"
        }
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => {
            "Slack asks to come back later"
        }
        _ => "Slack does not do it",
    }
}
