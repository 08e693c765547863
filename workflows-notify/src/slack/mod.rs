//! Slack: messages that a person likes to get.
//!
//! | | bot token | incoming webhook |
//! | --- | --- | --- |
//! | for each run | one message, edited as the run goes on | a message for each transition |
//! | details | in the message's thread | in the message, shorter |
//! | failures of one cause | in the thread of the first, which counts them | each by itself, the first at length |
//! | many runs at once | ten in ten minutes in the channel and ten failures besides, the others in a thread | each by itself |
//! | when an answer was lost or the process died | the channel is looked through for the run's key; without the scope for that, one message twice at most | one message twice at most |
//! | scopes | `chat:write`, and `channels:history` (`groups:history` for a private channel) | `incoming-webhook` |
//!
//! Everything from outside (titles, names, lines of logs) is shown as rich text, in which no text
//! is markup, a link or a mention. Messages keep to what Slack takes, and to one a second in a
//! channel.

mod allowance;
mod api;
mod blocks;
mod bot;
mod cause;
mod group;
mod incoming;
mod limits;
mod message;
mod pace;
mod people;
mod search;
mod template;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{
    Delivered, Error, NotificationView, Notifier, Result, SharedClock, SystemClock, Transition,
};

use self::{
    api::Api,
    bot::Bot,
    incoming::{Causes, Incoming},
    pace::Pace,
    people::People,
    template::Templates,
};
use crate::{http::Http, secret::NotifierSecret};

/// Tells a channel of Slack about runs.
///
/// ```
/// use secrecy::SecretString;
/// use workflows_core::Transition;
/// use workflows_notify::slack::SlackNotifier;
///
/// let token = SecretString::from("xoxb-...".to_owned());
/// let notifier = SlackNotifier::bot(token, "C0123456789")
///     .mention("alice", "U024BE7LH")
///     .otherwise_mention("S0614TZR7")
///     .headline([Transition::Recovered], "$(run.workflow) is well again: $(run.title)")
///     .build()?;
/// # Ok::<(), workflows_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SlackNotifier(Way);

#[derive(Debug)]
enum Way {
    Bot(Box<Bot>),
    Incoming(Box<Incoming>),
}

impl SlackNotifier {
    /// With a bot's token, in the channel of that id.
    pub fn bot(token: impl Into<NotifierSecret>, channel: impl Into<String>) -> SlackBuilder {
        SlackBuilder::new(token.into(), Some(channel.into()))
    }

    /// With the address of an incoming webhook, which leads to a channel of its own.
    pub fn incoming_webhook(url: impl Into<NotifierSecret>) -> SlackBuilder {
        SlackBuilder::new(url.into(), None)
    }
}

#[async_trait]
impl Notifier for SlackNotifier {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        match &self.0 {
            Way::Bot(bot) => bot.deliver(notification).await,
            Way::Incoming(incoming) => incoming.deliver(notification).await,
        }
    }

    /// Of a bot, Slack is asked whether it accepts the token and what that may do; of a webhook only
    /// the address is looked at, for Slack can be asked nothing about it.
    async fn validate(&self) -> Result<()> {
        match &self.0 {
            Way::Bot(bot) => bot.validate().await,
            Way::Incoming(incoming) => incoming.address().await.map(|_| ()),
        }
    }

    fn wants_commit(&self) -> bool {
        true
    }
}

/// What a [`SlackNotifier`] is made of.
#[derive(Debug)]
pub struct SlackBuilder {
    secret: NotifierSecret,
    channel: Option<String>,
    base: String,
    clock: SharedClock,
    root_certificates: Vec<Vec<u8>>,
    group_within: SignedDuration,
    people: Vec<(Option<String>, String)>,
    headlines: Vec<(Vec<Transition>, String)>,
}

impl SlackBuilder {
    fn new(secret: NotifierSecret, channel: Option<String>) -> Self {
        Self {
            secret,
            channel,
            base: "https://slack.com/api".to_owned(),
            clock: Arc::new(SystemClock),
            root_certificates: Vec::new(),
            group_within: SignedDuration::from_mins(10),
            people: Vec::new(),
            headlines: Vec::new(),
        }
    }

    /// Whom to call in Slack when somebody's run fails: `name` is what the source-code host calls
    /// that person, `id` the Slack id of a user (`U...`) or a group (`S...`).
    #[must_use]
    pub fn mention(mut self, name: impl Into<String>, id: impl Into<String>) -> Self {
        self.people.push((Some(name.into()), id.into()));
        self
    }

    /// Whom to call when a run fails of somebody who has no Slack id here.
    #[must_use]
    pub fn otherwise_mention(mut self, id: impl Into<String>) -> Self {
        self.people.push((None, id.into()));
        self
    }

    /// The headline of messages about some transitions, in your own words. `$(run.workflow)` and so
    /// on are put in: `workflow`, `trigger`, `repo`, `ref`, `pull_request`, `commit`, `title`,
    /// `author`, `attempt`, `transition`, `message`, `duration`, `failed_task`, `failed_step`,
    /// `exit_code`, and `summary`, which is a whole sentence.
    #[must_use]
    pub fn headline(
        mut self,
        on: impl IntoIterator<Item = Transition>,
        text: impl Into<String>,
    ) -> Self {
        self.headlines.push((on.into_iter().collect(), text.into()));
        self
    }

    /// For how long failures of one cause are put together, and messages counted so that more than ten,
    /// and ten failures besides, go into a thread; zero for never. Ten minutes by default. An
    /// incoming webhook, which cannot do that, tells further failures of a cause more shortly.
    #[must_use]
    pub fn group_within(mut self, within: SignedDuration) -> Self {
        self.group_within = within;
        self
    }

    /// Where the Web API is, for a proxy or a test.
    #[must_use]
    pub fn base(mut self, base: impl Into<String>) -> Self {
        self.base = base.into();
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
    /// `Invalid` when something of it cannot be: a channel's name in place of its id, an id of
    /// nobody, a headline that names what there is not.
    pub fn build(self) -> Result<SlackNotifier> {
        let mut people = People::default();
        for (name, id) in &self.people {
            match name {
                Some(name) => people.add(name, id)?,
                None => people.otherwise(id)?,
            }
        }
        let mut templates = Templates::default();
        for (on, text) in self.headlines {
            templates.add(on, &text)?;
        }
        let http = Http::new(self.clock, &self.root_certificates)?;
        let Some(channel) = self.channel else {
            let (url, pace) = (self.secret, Pace::default());
            let (group_within, causes) = (self.group_within, Causes::default());
            let incoming = Incoming { http, url, people, templates, pace, group_within, causes };
            return Ok(SlackNotifier(Way::Incoming(Box::new(incoming))));
        };
        let is_id = channel.starts_with(['C', 'G', 'D'])
            && channel.len() > 1
            && channel.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        if !is_id {
            return Err(Error::invalid(
                "build the Slack notifier",
                "the channel is given by its id (C...), which Slack shows at the end of the \
                 channel's details",
            )
            .with("channel", format!("{channel:?}")));
        }
        let base = crate::http::address(&self.base, "the address of Slack's API")?;
        let api = Api { http, base, token: self.secret };
        let bot = Bot::new(api, channel, people, templates, self.group_within);
        Ok(SlackNotifier(Way::Bot(Box::new(bot))))
    }
}
