//! CloudEvents over HTTP, for programs.

mod cd_events;
mod tekton;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use serde_json::{Value, json};
use url::Url;
use workflows_core::{
    Delivered, Error, NotificationView, Notifier, Result, SharedClock, SystemClock,
};

use crate::{
    http::{Address, Http},
    secret::NotifierSecret,
    webhook::{headers, repeated, values},
};

/// In bytes; of an answer only its status counts.
const ANSWER: usize = 4 << 10;

/// How an event is put into a request
/// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloudEventMode {
    /// The whole event as JSON in the body.
    #[default]
    Structured,
    /// The attributes in headers, the data in the body.
    Binary,
}

/// Which events there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloudEventFormat {
    /// The types that Tekton's own controller sends, `dev.tekton.event.pipelinerun.*.v1`, with a
    /// PipelineRun in the data that has a name, annotations and conditions
    /// (<https://tekton.dev/docs/pipelines/events/#events-via-cloudevents>).
    #[default]
    Tekton,
    /// CDEvents 0.4.1, `dev.cdevents.pipelinerun.{queued,started,finished}.0.2.0`
    /// (<https://github.com/cdevents/spec/blob/v0.4.1/core.md>). Other transitions have no event.
    CdEvents,
}

/// Posts a CloudEvent for each transition.
///
/// The id of an event is the delivery's key, which stays the same when a delivery is repeated, so
/// that a receiver can drop what it has seen: source and id together are unique. The extension
/// `workflowstransition` tells what happened by the word that stands in workflows.
#[derive(Debug)]
pub struct CloudEventsNotifier {
    http: Http,
    url: Address,
    source: String,
    mode: CloudEventMode,
    format: CloudEventFormat,
    headers: Vec<(HeaderName, NotifierSecret)>,
}

impl CloudEventsNotifier {
    /// Posts to this address. `source` names who sends, as a URI reference, such as
    /// `https://ci.example.com` or `/workflows`.
    pub fn to(url: impl Into<String>, source: impl Into<String>) -> CloudEventsBuilder {
        CloudEventsBuilder {
            url: url.into(),
            source: source.into(),
            mode: CloudEventMode::default(),
            format: CloudEventFormat::default(),
            headers: Vec::new(),
            clock: Arc::new(SystemClock),
            root_certificates: Vec::new(),
        }
    }
}

/// What a [`CloudEventsNotifier`] is made of.
pub struct CloudEventsBuilder {
    url: String,
    source: String,
    mode: CloudEventMode,
    format: CloudEventFormat,
    headers: Vec<(String, NotifierSecret)>,
    clock: SharedClock,
    root_certificates: Vec<Vec<u8>>,
}

impl fmt::Debug for CloudEventsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudEventsBuilder").finish_non_exhaustive()
    }
}

impl CloudEventsBuilder {
    /// How events are put into requests.
    #[must_use]
    pub fn mode(mut self, mode: CloudEventMode) -> Self {
        self.mode = mode;
        self
    }

    /// Which events there are.
    #[must_use]
    pub fn format(mut self, format: CloudEventFormat) -> Self {
        self.format = format;
        self
    }

    /// Sends a header besides, such as `authorization`.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<NotifierSecret>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Where the time comes from.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Trusts these certificate authorities (PEM) besides those of the system.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// The notifier.
    ///
    /// # Errors
    ///
    /// `Invalid` when the address, the source or a header cannot be one.
    pub fn build(self) -> Result<CloudEventsNotifier> {
        let base = Url::parse("http://base").ok();
        let is_reference = !self.source.is_empty()
            && Url::options().base_url(base.as_ref()).parse(&self.source).is_ok()
            && self.source.bytes().all(|c| c.is_ascii_graphic());
        if !is_reference {
            return Err(Error::invalid(
                "build a notifier",
                "the source of events is a URI reference, such as https://ci.example.com",
            )
            .with("source", format!("{:?}", self.source)));
        }
        Ok(CloudEventsNotifier {
            http: Http::new(self.clock, &self.root_certificates)?,
            url: Address::new(&self.url, "the address of the receiver")?,
            source: self.source,
            mode: self.mode,
            format: self.format,
            headers: headers(self.headers)?,
        })
    }
}

/// An event, before it is put into a request.
#[derive(Debug, Clone, PartialEq)]
struct CloudEvent {
    id: String,
    source: String,
    kind: String,
    subject: String,
    time: Timestamp,
    transition: &'static str,
    data: Value,
}

impl CloudEvent {
    /// The attributes in the order in which the specification names them.
    fn attributes(&self) -> [(&'static str, String); 7] {
        [
            ("specversion", "1.0".to_owned()),
            ("id", self.id.clone()),
            ("source", self.source.clone()),
            ("type", self.kind.clone()),
            ("subject", self.subject.clone()),
            ("time", self.time.to_string()),
            ("workflowstransition", self.transition.to_owned()),
        ]
    }

    fn structured(&self) -> Value {
        let mut event = json!({ "datacontenttype": "application/json", "data": self.data });
        for (name, value) in self.attributes() {
            event[name] = value.into();
        }
        event
    }
}

/// The value of an attribute as a header has it: what is not plain is percent-encoded.
fn header_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' | b' ' => value.push_str(&format!("%{byte:02X}")),
            byte if byte.is_ascii_graphic() => value.push(char::from(byte)),
            byte => value.push_str(&format!("%{byte:02X}")),
        }
    }
    value
}

impl CloudEventsNotifier {
    fn event(&self, notification: &NotificationView) -> Option<CloudEvent> {
        let (kind, data) = match self.format {
            CloudEventFormat::Tekton => tekton::event(notification),
            CloudEventFormat::CdEvents => cd_events::event(notification, &self.source)?,
        };
        Some(CloudEvent {
            id: notification.key.to_string(),
            source: self.source.clone(),
            kind,
            subject: name(notification).to_owned(),
            time: notification.at,
            transition: notification.transition.as_str(),
            data,
        })
    }
}

/// What a run is called.
fn name(notification: &NotificationView) -> &str {
    notification.run.name.as_deref().unwrap_or(&notification.run.key)
}

#[async_trait]
impl Notifier for CloudEventsNotifier {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        const OPERATION: &str = "send a CloudEvent";
        let Some(event) = self.event(notification) else { return Ok(Delivered::default()) };
        let mut request = self.http.post(self.url.url());
        let headers = values(&self.headers).await?;
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let request = match self.mode {
            CloudEventMode::Structured => request
                .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
                .body(event.structured().to_string()),
            CloudEventMode::Binary => {
                for (name, value) in event.attributes() {
                    request = request.header(format!("ce-{name}"), header_value(&value));
                }
                request.header(CONTENT_TYPE, "application/json").body(event.data.to_string())
            }
        };
        let answer = self.http.exchange(OPERATION, request, ANSWER).await?;
        if answer.status.is_success() {
            return Ok(Delivered { reference: Some(event.id) });
        }
        Err(Error::new(self.http.refusal(&answer), OPERATION, "the receiver does not take it")
            .with("status", answer.status.as_u16())
            .with("it says", repeated(&answer.body, &self.url, &headers, "")))
    }

    /// The headers' secrets are looked at; whether the receiver is there shows when it is sent
    /// something.
    async fn validate(&self) -> Result<()> {
        values(&self.headers).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_hold_what_headers_may() {
        assert_eq!(header_value("Euro € \"%\""), "Euro%20%E2%82%AC%20%22%25%22");
        assert_eq!(header_value("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
    }
}
