//! Every message that people and programs get, on the terminal or for real.
//!
//! `cargo run -p example-notify` shows what the terminal, Slack (by a bot and by an incoming webhook)
//! and programs (by signed JSON and by CloudEvents) get of each transition, and how failures of one
//! cause are put together, with a Slack and a receiver that are played on loopback. It fails when
//! something of it does not come. Given somewhere to send them, it sends them there:
//!
//! ```text
//! SLACK_TOKEN=xoxb-... cargo run -p example-notify -- --slack-channel C0123456789
//! SLACK_WEBHOOK_URL=https://hooks.slack.com/... cargo run -p example-notify -- --slack-webhook
//! WEBHOOK_SECRET=... cargo run -p example-notify -- --webhook https://example.com/hook
//! cargo run -p example-notify -- --cloud-events https://example.com/events
//! ```
//!
//! Read `story.rs` for what happens, and `main.rs` for how notifiers are made.

mod play;
mod receiver;
mod story;

use std::{error::Error, process::ExitCode, sync::Arc};

use clap::Parser;
use secrecy::SecretString;
use workflows::{
    ErrorKind, NotificationView, Notifier, SystemClock,
    core::Clock,
    notify::{
        CloudEventFormat, CloudEventMode, CloudEventsNotifier, WebhookNotifier,
        slack::SlackNotifier,
    },
};

/// Shows every message, or sends them where you say.
#[derive(Debug, Parser)]
struct Settings {
    /// Send them to this channel of Slack (its id), with the bot's token in SLACK_TOKEN.
    #[arg(long, value_name = "ID")]
    slack_channel: Option<String>,

    /// Where Slack's API is, for a proxy.
    #[arg(long, value_name = "URL", requires = "slack_channel")]
    slack_api: Option<String>,

    /// Send them to the incoming webhook of Slack in SLACK_WEBHOOK_URL.
    #[arg(long)]
    slack_webhook: bool,

    /// Send them as signed JSON to this address, with the secret in WEBHOOK_SECRET.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,

    /// Send them as CloudEvents to this address.
    #[arg(long, value_name = "URL")]
    cloud_events: Option<String>,

    /// Send CDEvents rather than events of Tekton's types.
    #[arg(long, requires = "cloud_events")]
    cdevents: bool,

    /// Put the attributes of CloudEvents into headers.
    #[arg(long, requires = "cloud_events")]
    binary: bool,

    /// Whom to call in Slack when alice's run fails: the id of a user or a group.
    #[arg(long, value_name = "ID")]
    mention: Option<String>,
}

fn from_environment(name: &str) -> Result<SecretString, String> {
    std::env::var(name).map(SecretString::from).map_err(|_| format!("{name} is not set"))
}

/// A notifier, and what it is called here.
type Named = (&'static str, Arc<dyn Notifier>);

/// The notifiers that were asked for.
fn notifiers(settings: &Settings) -> Result<Vec<Named>, Box<dyn Error>> {
    let mut all: Vec<Named> = Vec::new();
    let mut slack = Vec::new();
    if let Some(channel) = &settings.slack_channel {
        let token = from_environment("SLACK_TOKEN")?;
        let mut bot = SlackNotifier::bot(token, channel);
        if let Some(base) = &settings.slack_api {
            bot = bot.base(base);
        }
        slack.push(("Slack", bot));
    }
    if settings.slack_webhook {
        let url = from_environment("SLACK_WEBHOOK_URL")?;
        slack.push(("Slack's webhook", SlackNotifier::incoming_webhook(url)));
    }
    for (name, mut builder) in slack {
        if let Some(id) = &settings.mention {
            builder = builder.mention("alice", id);
        }
        all.push((name, Arc::new(builder.build()?)));
    }
    if let Some(url) = &settings.webhook {
        let secret = from_environment("WEBHOOK_SECRET")?;
        all.push(("the webhook", Arc::new(WebhookNotifier::to(url, secret).build()?)));
    }
    if let Some(url) = &settings.cloud_events {
        let (mut mode, mut format) = Default::default();
        if settings.binary {
            mode = CloudEventMode::Binary;
        }
        if settings.cdevents {
            format = CloudEventFormat::CdEvents;
        }
        let notifier =
            CloudEventsNotifier::to(url, "/example").mode(mode).format(format).build()?;
        all.push(("the receiver of CloudEvents", Arc::new(notifier)));
    }
    Ok(all)
}

/// Does what an engine's outbox does: in order, and again when the receiver asks for patience. An
/// engine keeps what it has to tell in its ledger, and goes on after a restart; its handle sends a
/// sample with `test_notifier`.
async fn send(
    notifier: &dyn Notifier,
    story: Vec<NotificationView>,
) -> Result<usize, workflows::Error> {
    notifier.validate().await?;
    let mut sent = 0;
    let mut earlier: Vec<(String, Option<String>)> = Vec::new();
    for mut notification in story {
        let run = notification.run.key.to_string();
        let known = earlier.iter().rev().find(|(of, _)| *of == run);
        notification.earlier = known.and_then(|(_, reference)| reference.clone());
        let delivered = loop {
            match notifier.deliver(&notification).await {
                Err(error) if matches!(error.kind(), ErrorKind::RateLimited { .. }) => {
                    let now = SystemClock.now();
                    let until = match error.kind() {
                        ErrorKind::RateLimited { until: Some(until) } => until,
                        _ => now + jiff::SignedDuration::from_secs(1),
                    };
                    SystemClock.sleep_until(until).await;
                }
                other => break other?,
            }
        };
        earlier.push((run, delivered.reference));
        sent += 1;
    }
    Ok(sent)
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    let done: Result<(), Box<dyn Error>> = async {
        let notifiers = notifiers(&settings)?;
        if notifiers.is_empty() {
            return play::run().await;
        }
        for (name, notifier) in notifiers {
            let sent = send(&*notifier, story::all(SystemClock.now())).await?;
            println!("{name} was told {sent} times.");
        }
        Ok(())
    }
    .await;
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
