//! What `type` of a Notifier may be, and what each wants to know.
//!
//! | type | `secrets` | `settings` |
//! | --- | --- | --- |
//! | `log` | – | – |
//! | `slack` | `token` of a bot | `channel` (its id), `apiUrl`, and those of `slack-webhook` |
//! | `slack-webhook` | `url` | `mentions`, `otherwiseMention`, `headlines`, `groupWithin`, `certificateAuthority` |
//! | `webhook` | `secret` that signs, those of `headers` | `url`, `headers`, `certificateAuthority` |
//! | `cloud-events` | those of `headers` | `url`, `source`, `format`, `mode`, `headers`, `certificateAuthority` |
//! | `pipeline` | – | `pipelineRun` |

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use workflows_core::{Error, Notifier, Result, RunSink, Transition, workflow::parse_duration};
use workflows_k8s::controller::{DescribedNotifier, NotifierKind};
use workflows_notify::{
    CloudEventFormat, CloudEventMode, CloudEventsNotifier, LogNotifier, NotifierSecret,
    PipelineNotifier, WebhookNotifier,
    slack::{SlackBuilder, SlackNotifier},
};

/// All types that this program offers. Pipelines run in `sink`.
pub(crate) fn all(sink: Arc<dyn RunSink>) -> [Kind; 6] {
    let pipeline = Kind::Pipeline(sink);
    [Kind::Log, Kind::Slack, Kind::SlackWebhook, Kind::Webhook, Kind::CloudEvents, pipeline]
}

/// A type of notifier.
#[derive(Debug, Clone)]
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
    /// A PipelineRun in the Notifier's namespace.
    Pipeline(Arc<dyn RunSink>),
}

impl NotifierKind for Kind {
    fn name(&self) -> &str {
        match self {
            Self::Log => "log",
            Self::Slack => "slack",
            Self::SlackWebhook => "slack-webhook",
            Self::Webhook => "webhook",
            Self::CloudEvents => "cloud-events",
            Self::Pipeline(_) => "pipeline",
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
                let slack: OfSlack = settings(notifier)?;
                let Some(channel) = &slack.channel else {
                    return Err(refused("spec.settings.channel: type slack needs it"));
                };
                let bot = SlackNotifier::bot(secrets.needed("token")?, channel);
                Arc::new(slack.written_by(bot)?.clock(notifier.clock.clone()).build()?)
            }
            Self::SlackWebhook => {
                let slack: OfSlack = settings(notifier)?;
                if slack.channel.is_some() || slack.api_url.is_some() {
                    let why = "spec.settings: of type slack-webhook, the secret url leads to a channel; \
                               remove channel and apiUrl";
                    return Err(refused(why));
                }
                let webhook = SlackNotifier::incoming_webhook(secrets.needed("url")?);
                Arc::new(slack.written_by(webhook)?.clock(notifier.clock.clone()).build()?)
            }
            Self::Webhook => {
                let OfWebhook { url, headers, certificate_authority } = settings(notifier)?;
                let mut webhook = WebhookNotifier::to(url, secrets.needed("secret")?);
                for (name, secret) in headers {
                    webhook = webhook.header(name, secrets.needed(&secret)?);
                }
                if let Some(pem) = certificate_authority {
                    webhook = webhook.root_certificates(pem);
                }
                Arc::new(webhook.clock(notifier.clock.clone()).build()?)
            }
            Self::CloudEvents => {
                let of: OfCloudEvents = settings(notifier)?;
                let mut events = CloudEventsNotifier::to(of.url, of.source)
                    .format(of.format.into())
                    .mode(of.mode.into())
                    .clock(notifier.clock.clone());
                for (name, secret) in of.headers {
                    events = events.header(name, secrets.needed(&secret)?);
                }
                if let Some(pem) = of.certificate_authority {
                    events = events.root_certificates(pem);
                }
                Arc::new(events.build()?)
            }
            Self::Pipeline(sink) => {
                let OfPipeline { pipeline_run } = settings(notifier)?;
                let pipeline = PipelineNotifier::new(Arc::clone(sink), pipeline_run)?;
                Arc::new(pipeline.in_tenant(notifier.tenant.clone()))
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
        self.taken(name)
            .ok_or_else(|| refused(format!("spec.secrets.{name}: type {kind} needs it")))
    }

    fn are_all_taken(&self) -> Result<()> {
        match self.left.first() {
            None => Ok(()),
            Some(name) => {
                let kind = &self.of.spec.kind;
                Err(refused(format!("spec.secrets.{name}: type {kind} has no such secret")))
            }
        }
    }
}

fn settings<T: DeserializeOwned>(notifier: &DescribedNotifier<'_>) -> Result<T> {
    let settings = notifier.spec.settings.clone().unwrap_or_default();
    serde_json::from_value(Value::Object(settings))
        .map_err(|error| refused(format!("spec.settings: {error}")))
}

fn refused(why: impl Into<String>) -> Error {
    Error::invalid("read a notifier", why.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct OfSlack {
    channel: Option<String>,
    /// Where the Web API is, such as `https://slack-gov.com/api`.
    api_url: Option<String>,
    /// Whom to call when a run fails: Slack's ids of users (`U...`) and groups (`S...`), by what the
    /// source-code host calls somebody.
    mentions: BTreeMap<String, String>,
    /// For everybody else.
    otherwise_mention: Option<String>,
    /// In place of the usual headlines.
    headlines: Vec<Headline>,
    /// For how long failures of one cause are put together, such as `10m`; `0s` for never.
    group_within: Option<String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Headline {
    on: Vec<Transition>,
    text: String,
}

impl OfSlack {
    fn written_by(self, mut slack: SlackBuilder) -> Result<SlackBuilder> {
        if let Some(url) = self.api_url {
            slack = slack.base(url);
        }
        for (name, id) in self.mentions {
            slack = slack.mention(name, id);
        }
        if let Some(id) = self.otherwise_mention {
            slack = slack.otherwise_mention(id);
        }
        for Headline { on, text } in self.headlines {
            slack = slack.headline(on, text);
        }
        if let Some(text) = self.group_within {
            let within = parse_duration(&text)
                .map_err(|problem| refused(format!("spec.settings.groupWithin: {problem}")))?;
            slack = slack.group_within(within);
        }
        if let Some(pem) = self.certificate_authority {
            slack = slack.root_certificates(pem);
        }
        Ok(slack)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OfWebhook {
    url: String,
    /// By header, the name that its value has among the secrets.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OfCloudEvents {
    url: String,
    source: String,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OfPipeline {
    pipeline_run: Value,
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
