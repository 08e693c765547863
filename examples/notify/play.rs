//! Shows the story on the terminal: its lines there, what a Slack on loopback shows, and what programs
//! are sent. A transition of which nobody is told is an error.

use std::{
    collections::BTreeSet,
    error::Error,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::SignedDuration;
use secrecy::SecretString;
use workflows::{
    ManualClock, NotificationView, Notifier, Transition,
    core::{Clock, SystemClock},
    notify::{
        CloudEventFormat, CloudEventMode, CloudEventsNotifier, Colors, TerminalNotifier,
        WebhookNotifier, slack::SlackNotifier,
    },
};
use workflows_slack_standin::{Shown, Workspace};

use crate::{
    receiver::{Received, Receiver},
    story,
};

type Done = Result<(), Box<dyn Error>>;

/// Shows it.
pub(crate) async fn run() -> Done {
    let told = story::all(SystemClock.now());
    let happened: BTreeSet<Transition> = told.iter().map(|one| one.transition).collect();
    if let Some(missing) = Transition::ALL.into_iter().find(|one| !happened.contains(one)) {
        return Err(format!("the story lacks {missing}").into());
    }
    on_a_terminal(&told).await?;
    in_slack(&told).await?;
    in_slack_by_webhook(&told).await?;
    as_json(&told).await?;
    for (format, mode, what) in [
        (CloudEventFormat::Tekton, CloudEventMode::Structured, "with Tekton's types"),
        (CloudEventFormat::Tekton, CloudEventMode::Binary, "with attributes in headers"),
        (CloudEventFormat::CdEvents, CloudEventMode::Structured, "as CDEvents"),
    ] {
        as_cloud_events(&told, format, mode, what).await?;
    }
    println!("\nGive --slack-channel, --slack-webhook, --webhook or --cloud-events to send them.");
    Ok(())
}

fn is_missing(notification: &NotificationView, place: &str) -> Box<dyn Error> {
    format!("{place}, nothing tells of {} ({})", notification.transition, notification.key).into()
}

/// What was written.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn on_a_terminal(told: &[NotificationView]) -> Done {
    println!("On a terminal:\n");
    let written = Written::default();
    let terminal = TerminalNotifier::new(written.clone(), Colors::None);
    for notification in told {
        terminal.deliver(notification).await?;
        let lines = std::mem::take(&mut *written.0.lock().unwrap_or_else(PoisonError::into_inner));
        if lines.is_empty() {
            return Err(is_missing(notification, "on the terminal"));
        }
        print!("{}", String::from_utf8_lossy(&lines));
    }
    Ok(())
}

/// A Slack of its own, whose time goes on only as it is told: nothing has to be waited for.
fn slack() -> (Workspace, ManualClock, String) {
    let clock = ManualClock::at(SystemClock.now());
    let slack = Workspace::start(Arc::new(clock.clone()));
    let channel = slack.create_channel("ci");
    (slack, clock, channel)
}

async fn in_slack(told: &[NotificationView]) -> Done {
    println!("\nIn Slack, where a run has one message, which is edited as it goes on:");
    let (slack, clock, channel) = slack();
    let token = slack.create_bot(&["chat:write", "channels:history"]);
    slack.invite(&token, &channel);
    let notifier = SlackNotifier::bot(SecretString::from(token), &*channel)
        .base(slack.api())
        .clock(Arc::new(clock.clone()))
        .mention("alice", "U024BE7LH")
        .build()?;
    notifier.validate().await?;
    let mut earlier: Option<(Arc<str>, Option<String>)> = None;
    for notification in told {
        let mut notification = notification.clone();
        clock.advance(SignedDuration::from_secs(2));
        if let Some((run, reference)) = earlier.take()
            && run == notification.run.key
        {
            notification.earlier = reference;
        }
        let delivered = notifier.deliver(&notification).await?;
        let tells = |message: &Shown| {
            let metadata = message.metadata.as_ref();
            let delivery = metadata.and_then(|one| one.pointer("/event_payload/delivery"));
            delivery.and_then(|one| one.as_str()) == Some(notification.key.as_str())
        };
        if !slack.messages(&channel).iter().any(tells) {
            return Err(is_missing(&notification, "in Slack"));
        }
        earlier = Some((Arc::clone(&notification.run.key), delivered.reference));
    }
    for message in slack.in_channel(&channel) {
        show(&message);
        for reply in slack.in_thread(&channel, &message.ts) {
            for (n, line) in reply.lines().iter().enumerate() {
                println!("    {} {line}", if n == 0 { "└" } else { " " });
            }
        }
    }
    Ok(())
}

fn show(message: &Shown) {
    println!();
    for line in message.lines() {
        println!("  {line}");
    }
    let edited = match message.edits {
        0 => String::new(),
        edits => format!(" (edited {edits} times)"),
    };
    println!("  --{edited} notified as: {}", message.text);
}

async fn in_slack_by_webhook(told: &[NotificationView]) -> Done {
    println!("\nIn Slack by an incoming webhook, where each transition has its message:");
    let (slack, clock, channel) = slack();
    let url = SecretString::from(slack.create_webhook(&channel));
    let notifier = SlackNotifier::incoming_webhook(url)
        .clock(Arc::new(clock.clone()))
        .mention("alice", "U024BE7LH")
        .build()?;
    notifier.validate().await?;
    for notification in told {
        clock.advance(SignedDuration::from_secs(2));
        let before = slack.messages(&channel).len();
        notifier.deliver(notification).await?;
        let messages = slack.messages(&channel);
        match messages.get(before) {
            Some(message) => show(message),
            // It would be a message every 30 seconds.
            None if notification.transition == Transition::Progress => {}
            None => return Err(is_missing(notification, "by the webhook")),
        }
    }
    Ok(())
}

fn show_request(received: &Received, headers: &[&str]) {
    println!();
    for name in headers {
        if let Some(value) = received.header(name) {
            println!("  {name}: {value}");
        }
    }
    println!("  {}", received.body);
}

async fn as_json(told: &[NotificationView]) -> Done {
    println!("\nAs signed JSON:");
    let (receiver, address) = Receiver::start().await?;
    let secret = SecretString::from("an example of a secret".to_owned());
    let notifier = WebhookNotifier::to(address, secret).build()?;
    notifier.validate().await?;
    for notification in told {
        notifier.deliver(notification).await?;
        let received = receiver.take();
        let [one] = &*received else { return Err(is_missing(notification, "as JSON")) };
        if one.body["id"] != notification.key.as_str() {
            return Err(is_missing(notification, "as JSON"));
        }
        show_request(one, &["webhook-id", "webhook-timestamp", "webhook-signature"]);
    }
    Ok(())
}

async fn as_cloud_events(
    told: &[NotificationView],
    format: CloudEventFormat,
    mode: CloudEventMode,
    what: &str,
) -> Done {
    println!("\nAs CloudEvents, {what}:");
    let (receiver, address) = Receiver::start().await?;
    let notifier =
        CloudEventsNotifier::to(address, "/example").format(format).mode(mode).build()?;
    notifier.validate().await?;
    for notification in told {
        notifier.deliver(notification).await?;
        let received = receiver.take();
        let id = |one: &Received| match mode {
            CloudEventMode::Structured => one.body["id"].as_str().map(str::to_owned),
            CloudEventMode::Binary => one.header("ce-id").map(str::to_owned),
        };
        // CDEvents has none for what is neither queued, nor started, nor finished.
        let has_one = format == CloudEventFormat::Tekton
            || notification.transition.is_end()
            || matches!(notification.transition, Transition::Queued | Transition::Started);
        match &*received {
            [one] if id(one).as_deref() == Some(notification.key.as_str()) => {
                show_request(one, &["content-type", "ce-type", "ce-id", "ce-workflowstransition"]);
            }
            [] if !has_one => {}
            _ => return Err(is_missing(notification, "as a CloudEvent")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn everybody_is_told_of_every_transition() {
        super::run().await.unwrap();
    }
}
