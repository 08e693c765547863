//! Shows the story on the terminal: its lines there, and what a Slack on loopback shows.

use std::{error::Error, sync::Arc};

use jiff::SignedDuration;
use secrecy::SecretString;
use workflows::{
    ManualClock, Notifier,
    core::{Clock, SystemClock},
    notify::{Colors, TerminalNotifier, slack::SlackNotifier},
};
use workflows_slack_standin::Workspace;

use crate::story;

/// Shows it.
pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    // A Slack of its own, whose time goes on only as it is told: nothing has to be waited for.
    let clock = ManualClock::at(SystemClock.now());
    let slack = Workspace::start(Arc::new(clock.clone()));
    let channel = slack.create_channel("ci");
    let token = slack.create_bot(&["chat:write", "channels:history"]);
    slack.invite(&token, &channel);
    let in_slack = SlackNotifier::bot(SecretString::from(token), &*channel)
        .base(slack.api())
        .clock(Arc::new(clock.clone()))
        .mention("alice", "U024BE7LH")
        .build()?;
    in_slack.validate().await?;

    println!("On a terminal:\n");
    let terminal = TerminalNotifier::new(std::io::stdout(), Colors::None);
    let told = story::all(clock.now());
    for notification in &told {
        terminal.deliver(notification).await?;
    }

    println!("\nIn Slack, where a run has one message, which is edited as it goes on:");
    let mut earlier: Option<(Arc<str>, Option<String>)> = None;
    for mut notification in told {
        clock.advance(SignedDuration::from_secs(2));
        if let Some((run, reference)) = earlier.take()
            && run == notification.run.key
        {
            notification.earlier = reference;
        }
        let delivered = in_slack.deliver(&notification).await?;
        earlier = Some((Arc::clone(&notification.run.key), delivered.reference));
    }
    for message in slack.in_channel(&channel) {
        println!();
        let edited = if message.edits > 0 {
            format!(" (edited {} times)", message.edits)
        } else {
            String::new()
        };
        for line in message.lines() {
            println!("  {line}");
        }
        println!("  --{edited} notified as: {}", message.text);
        for reply in slack.in_thread(&channel, &message.ts) {
            for (n, line) in reply.lines().iter().enumerate() {
                println!("    {} {line}", if n == 0 { "└" } else { " " });
            }
        }
    }
    println!("\nGive --slack-channel, --slack-webhook, --webhook or --cloud-events to send them.");
    Ok(())
}
