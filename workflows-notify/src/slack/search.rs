//! Looking through the channel for what an earlier try made.
//!
//! Whether something is there decides whether it is posted, so the look is not cut short: where Slack
//! asks for patience in between, it goes on from the same page the next time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use serde_json::Value;
use workflows_core::{Error, ErrorKind, Result};

use super::api::{Api, Found, Mark, Page, Place, Refused};

/// How many looks are under way, and how long one is kept that is not gone on with.
const LOOKS: u64 = 1_000;
const KEPT_FOR: Duration = Duration::from_secs(3_600);
/// When Slack asks for patience and does not say for how long.
const UNTOLD: SignedDuration = SignedDuration::from_mins(1);
/// How many pages are read for what is worth no wait.
const FEW_PAGES: usize = 10;

/// What is known of looking.
#[derive(Debug)]
pub(super) struct Search {
    /// Whether the bot may read the channel.
    may_read: AtomicBool,
    /// Until when Slack lets nothing be read.
    not_before: Mutex<Option<Timestamp>>,
    under_way: Cache<String, Look>,
}

/// How far a look has come.
#[derive(Debug, Clone, Default)]
struct Look {
    oldest: String,
    cursor: String,
    /// The newest message when it began.
    newest: Option<String>,
    found: Vec<Found>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            may_read: AtomicBool::new(true),
            not_before: Mutex::default(),
            under_way: Cache::builder().max_capacity(LOOKS).time_to_idle(KEPT_FOR).build(),
        }
    }
}

impl Search {
    /// The messages of the channel itself since then that are wanted, newest first, as far as one
    /// is enough. `name` is that of the look, for going on with it.
    ///
    /// # Errors
    ///
    /// `RateLimited` when it has to go on later, and what Slack fails with.
    pub(super) async fn channel(
        &self,
        api: &Api,
        name: &str,
        channel: &str,
        oldest: &str,
        is_wanted: impl Fn(&Mark) -> bool,
        is_enough: impl Fn(&Mark) -> bool,
    ) -> Result<Vec<Found>> {
        let begin = || Look { oldest: oldest.to_owned(), ..Look::default() };
        let mut look = self.under_way.get(name).await.unwrap_or_else(begin);
        let mut began_before = !look.cursor.is_empty();
        loop {
            let fields = [("channel", channel), ("oldest", &*look.oldest)];
            let page = self.page(api, name, "conversations.history", &fields, &look.cursor).await?;
            let Some(page) = page else { return Ok(Vec::new()) };
            if look.cursor.is_empty() {
                let newest = page.messages.first().and_then(|one| one["ts"].as_str());
                look.newest = newest.map(str::to_owned).or(look.newest.take());
            }
            let in_channel = page.messages.iter().filter(|one| !is_reply(one));
            look.found.extend(in_channel.filter_map(Found::of).filter(|one| is_wanted(&one.mark)));
            if look.found.iter().any(|one| is_enough(&one.mark)) {
                break;
            }
            match page.next {
                Some(next) => look.cursor = next,
                // What came since it began, which another process may have posted.
                None if began_before => {
                    look.oldest = look.newest.clone().unwrap_or(look.oldest);
                    (look.cursor, began_before) = (String::new(), false);
                }
                None => break,
            }
            self.under_way.insert(name.to_owned(), look.clone()).await;
        }
        self.under_way.remove(name).await;
        Ok(look.found)
    }

    /// The replies in a thread that are wanted. `name` is that of the look.
    ///
    /// # Errors
    ///
    /// As [`Self::channel`].
    pub(super) async fn thread(
        &self,
        api: &Api,
        name: &str,
        place: &Place,
        is_wanted: impl Fn(&Mark) -> bool,
    ) -> Result<Vec<Found>> {
        let mut look = self.under_way.get(name).await.unwrap_or_default();
        loop {
            let fields = [("channel", &*place.channel), ("ts", place.root())];
            let page = self.page(api, name, "conversations.replies", &fields, &look.cursor).await?;
            let Some(page) = page else { return Ok(Vec::new()) };
            let replies = page.messages.iter().filter(|one| is_reply(one));
            look.found.extend(replies.filter_map(Found::of).filter(|one| is_wanted(&one.mark)));
            let Some(next) = page.next else { break };
            look.cursor = next;
            self.under_way.insert(name.to_owned(), look.clone()).await;
        }
        self.under_way.remove(name).await;
        Ok(look.found)
    }

    /// The first message of the channel itself since then, newest first, that is wanted: as far as
    /// Slack shows it at once.
    pub(super) async fn at_once(
        &self,
        api: &Api,
        channel: &str,
        oldest: &str,
        is_wanted: impl Fn(&Mark) -> bool,
    ) -> Option<Found> {
        let fields = [("channel", channel), ("oldest", oldest)];
        let mut cursor = String::new();
        for _ in 0..FEW_PAGES {
            let page = self.page(api, "", "conversations.history", &fields, &cursor).await;
            let page = page.ok().flatten()?;
            let in_channel = page.messages.iter().filter(|one| !is_reply(one));
            let found = in_channel.filter_map(Found::of).find(|one| is_wanted(&one.mark));
            if found.is_some() {
                return found;
            }
            cursor = page.next?;
        }
        None
    }

    /// A message as Slack has it, and what is in its thread: as far as Slack shows them at once.
    pub(super) async fn thread_at_once(
        &self,
        api: &Api,
        place: &Place,
    ) -> Option<(Value, Vec<Found>)> {
        let fields = [("channel", &*place.channel), ("ts", place.root())];
        let (mut there, mut replies, mut cursor) = (None, Vec::new(), String::new());
        for _ in 0..FEW_PAGES {
            let page = self.page(api, "", "conversations.replies", &fields, &cursor).await;
            let Ok(Some(page)) = page else { break };
            for message in page.messages {
                replies.extend(Found::of(&message).filter(|_| is_reply(&message)));
                if message.get("ts").is_some_and(|ts| *ts == *place.ts) {
                    there = Some(message);
                }
            }
            let Some(next) = page.next else { break };
            cursor = next;
        }
        there.map(|there| (there, replies))
    }

    /// A page; `None` when there is nothing to look through.
    async fn page(
        &self,
        api: &Api,
        name: &str,
        method: &'static str,
        fields: &[(&str, &str)],
        cursor: &str,
    ) -> Result<Option<Page>> {
        const OPERATION: &str = "look through the channel";
        if !self.may_read.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let now = api.http.now();
        let goes_on = |until| {
            let kind = ErrorKind::RateLimited { until: Some(until) };
            Error::new(kind, OPERATION, "Slack asks for patience; it goes on from there")
                .of_this_alone()
        };
        if let Some(until) = self.not_before().filter(|until| *until > now) {
            return Err(goes_on(until));
        }
        let Refused { word, error } = match api.page(method, fields, cursor).await {
            Ok(page) => return Ok(Some(page)),
            Err(refused) => refused,
        };
        match (error.kind(), &*word) {
            (ErrorKind::RateLimited { until }, _) => {
                let until = until.or_else(|| now.checked_add(UNTOLD).ok()).unwrap_or(now);
                *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
                Err(goes_on(until).caused_by(error))
            }
            (
                _,
                "missing_scope"
                | "not_in_channel"
                | "channel_not_found"
                | "no_permission"
                | "not_allowed_token_type",
            ) => {
                if self.may_read.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        %error,
                        "the bot cannot read the channel; after a crash a message may come twice"
                    );
                }
                Ok(None)
            }
            (_, "thread_not_found") => Ok(None),
            (_, "invalid_cursor") => {
                self.under_way.remove(name).await;
                let why = "Slack does not know the page any more; it begins anew";
                Err(Error::transient(OPERATION, why).caused_by(error))
            }
            _ => Err(error),
        }
    }

    fn not_before(&self) -> Option<Timestamp> {
        *self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replies that were broadcast show in the channel too.
fn is_reply(message: &Value) -> bool {
    message.get("thread_ts").is_some_and(|parent| Some(parent) != message.get("ts"))
}
