//! What `type` of a Notifier may be, and what each wants to know.
//!
//! | type | `secrets` | `settings` |
//! | --- | --- | --- |
//! | `log` | – | – |
//! | `slack` | `token` of a bot | `channel` (its id), `mentions`, `otherwiseMention` |
//! | `slack-webhook` | `url` | `mentions`, `otherwiseMention` |
//! | `webhook` | `secret` that signs | `url` |
//! | `cloud-events` | `authorization`, the header's value; may be left out | `url`, `source`, `format`, `mode` |

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use workflows_core::{Error, Notifier, Result};
use workflows_k8s::controller::{DescribedNotifier, NotifierKind};
use workflows_notify::{
    CloudEventFormat, CloudEventMode, CloudEventsNotifier, LogNotifier, NotifierSecret,
    WebhookNotifier,
    slack::{SlackBuilder, SlackNotifier},
};

const READ: &str = "read a notifier";

/// All types that this program offers.
pub(crate) const ALL: [Kind; 5] =
    [Kind::Log, Kind::Slack, Kind::SlackWebhook, Kind::Webhook, Kind::CloudEvents];

/// A type of notifier.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A line in the controller's log.
    Log,
    /// A channel of Slack, written to by a bot.
    Slack,
    /// A channel of Slack, written to through an incoming webhook.
    SlackWebhook,
    /// Signed JSON.
    Webhook,
    /// CloudEvents.
    CloudEvents,
}

impl NotifierKind for Kind {
    fn name(&self) -> &str {
        match self {
            Self::Log => "log",
            Self::Slack => "slack",
            Self::SlackWebhook => "slack-webhook",
            Self::Webhook => "webhook",
            Self::CloudEvents => "cloud-events",
        }
    }

    fn build(&self, notifier: &DescribedNotifier<'_>) -> Result<Arc<dyn Notifier>> {
        let mut secrets = Secrets::of(notifier);
        let built: Arc<dyn Notifier> = match self {
            Self::Log => {
                let Nothing {} = settings(notifier)?;
                Arc::new(LogNotifier)
            }
            Self::Slack => {
                let OfSlack { channel, mentions, otherwise_mention } = settings(notifier)?;
                let people = People { mentions, otherwise_mention };
                let bot = SlackNotifier::bot(secrets.needed("token")?, channel);
                Arc::new(people.called_in(bot).clock(notifier.clock.clone()).build()?)
            }
            Self::SlackWebhook => {
                let people: People = settings(notifier)?;
                let webhook = SlackNotifier::incoming_webhook(secrets.needed("url")?);
                Arc::new(people.called_in(webhook).clock(notifier.clock.clone()).build()?)
            }
            Self::Webhook => {
                let OfWebhook { url } = settings(notifier)?;
                let webhook = WebhookNotifier::to(url, secrets.needed("secret")?);
                Arc::new(webhook.clock(notifier.clock.clone()).build()?)
            }
            Self::CloudEvents => {
                let OfCloudEvents { url, source, format, mode } = settings(notifier)?;
                let mut events = CloudEventsNotifier::to(url, source)
                    .format(format.into())
                    .mode(mode.into())
                    .clock(notifier.clock.clone());
                if let Some(value) = secrets.taken("authorization") {
                    events = events.header("authorization", value);
                }
                Arc::new(events.build()?)
            }
        };
        secrets.are_all_taken()?;
        Ok(built)
    }
}

/// The secrets of a notifier that nobody has asked for yet.
struct Secrets<'a> {
    of: &'a DescribedNotifier<'a>,
    left: Vec<&'a str>,
}

impl<'a> Secrets<'a> {
    fn of(notifier: &'a DescribedNotifier<'a>) -> Self {
        let left = notifier.spec.secrets.keys().map(String::as_str).collect();
        Self { of: notifier, left }
    }

    fn taken(&mut self, name: &str) -> Option<NotifierSecret> {
        let reference = self.of.spec.secrets.get(name)?.clone();
        self.left.retain(|left| *left != name);
        Some(NotifierSecret::named(self.of.secrets.clone(), self.of.tenant.clone(), reference))
    }

    fn needed(&mut self, name: &str) -> Result<NotifierSecret> {
        let kind = &self.of.spec.kind;
        self.taken(name).ok_or_else(|| {
            Error::invalid(READ, format!("spec.secrets.{name}: type {kind} needs it"))
        })
    }

    fn are_all_taken(&self) -> Result<()> {
        match self.left.first() {
            None => Ok(()),
            Some(name) => {
                let kind = &self.of.spec.kind;
                let message = format!("spec.secrets.{name}: type {kind} has no such secret");
                Err(Error::invalid(READ, message))
            }
        }
    }
}

fn settings<T: DeserializeOwned>(notifier: &DescribedNotifier<'_>) -> Result<T> {
    let settings = notifier.spec.settings.clone().unwrap_or_default();
    serde_json::from_value(Value::Object(settings))
        .map_err(|error| Error::invalid(READ, format!("spec.settings: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Whom to call when a run fails: Slack's ids of users (`U...`) and groups (`S...`).
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct People {
    /// By what the source-code host calls somebody.
    mentions: BTreeMap<String, String>,
    /// For everybody else.
    otherwise_mention: Option<String>,
}

impl People {
    fn called_in(self, mut slack: SlackBuilder) -> SlackBuilder {
        for (name, id) in self.mentions {
            slack = slack.mention(name, id);
        }
        if let Some(id) = self.otherwise_mention {
            slack = slack.otherwise_mention(id);
        }
        slack
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OfSlack {
    channel: String,
    #[serde(default)]
    mentions: BTreeMap<String, String>,
    otherwise_mention: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfWebhook {
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfCloudEvents {
    url: String,
    source: String,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    mode: Mode,
}

#[derive(Deserialize, Default)]
enum Format {
    #[default]
    Tekton,
    CDEvents,
}

impl From<Format> for CloudEventFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Tekton => Self::Tekton,
            Format::CDEvents => Self::CdEvents,
        }
    }
}

#[derive(Deserialize, Default)]
enum Mode {
    #[default]
    Structured,
    Binary,
}

impl From<Mode> for CloudEventMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Structured => Self::Structured,
            Mode::Binary => Self::Binary,
        }
    }
}
