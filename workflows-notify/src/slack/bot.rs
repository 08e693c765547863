//! With a bot's token: one message for each run, edited in place, with the details in its thread.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use serde_json::Value;
use tokio::sync::Mutex;
use workflows_core::{Delivered, Error, ErrorKind, NotificationView, Result};

use super::{
    api::{Api, Found, Mark, Place, Refused},
    cause,
    message::{self, GROUP, Message},
    pace::Pace,
    people::People,
    template::Templates,
};

/// How far Slack's clock and that of the engine may differ.
const CLOCKS: SignedDuration = SignedDuration::from_mins(10);
/// How many runs and replies this process remembers, and for how long.
const REMEMBERED: u64 = 10_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3_600);

/// A bot in one channel.
#[derive(Debug)]
pub(super) struct Bot {
    pub(super) api: Api,
    pub(super) channel: String,
    pub(super) people: People,
    pub(super) templates: Templates,
    /// For how long failures join the first of the same cause; zero when they do not.
    pub(super) group_within: SignedDuration,
    state: State,
}

/// What this process remembers. Without it nothing goes wrong, but some more is asked of Slack.
#[derive(Debug)]
struct State {
    pace: Pace,
    /// Posting is one after the other, so that the second failure of a cause sees the first.
    posting: Mutex<()>,
    messages: Cache<String, Place>,
    replies: Cache<String, ()>,
    leaders: Cache<String, Leader>,
    can_search: AtomicBool,
}

/// The first message about failures of a cause.
#[derive(Debug, Clone)]
struct Leader {
    place: Place,
    mark: Mark,
    at: Timestamp,
    /// Those that joined, as far as this process knows.
    joined: usize,
}

impl Bot {
    pub(super) fn new(
        api: Api,
        channel: String,
        people: People,
        templates: Templates,
        group_within: SignedDuration,
    ) -> Self {
        let state = State {
            pace: Pace::default(),
            posting: Mutex::new(()),
            messages: remembering(),
            replies: remembering(),
            leaders: remembering(),
            can_search: AtomicBool::new(true),
        };
        Self { api, channel, people, templates, group_within, state }
    }

    pub(super) async fn validate(&self) -> Result<()> {
        let Some(scopes) = self.api.scopes().await? else { return Ok(()) };
        if scopes.iter().any(|scope| scope == "chat:write") {
            return Ok(());
        }
        Err(Error::denied("validate the Slack notifier", "the token lacks the scope `chat:write`")
            .with("provided", scopes.join(", ")))
    }

    pub(super) async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let transition = notification.transition;
        let outdated = !notification.followed_by.is_empty();
        let there = self.there(notification).await?;
        if outdated {
            // What comes next shows the run as it is by then.
            return Ok(Delivered { reference: there.map(|place| place.reference()) });
        }
        let cause = if message::ended_badly(transition) && self.group_within.is_positive() {
            cause::of(&notification.run).unwrap_or_default()
        } else {
            String::new()
        };
        let mark = Mark {
            run: notification.run.key.to_string(),
            delivery: notification.key.to_string(),
            cause,
        };
        let message = message::of_run(transition, &notification.run, &self.people, &self.templates);
        if let Some(place) = there
            && self.edit(&place, &message, &mark).await?
        {
            self.tell_details(notification, &place, &mark, notification.earlier.is_some()).await?;
            return Ok(Delivered { reference: Some(place.reference()) });
        }
        let place = self.post(notification, &message, &mark).await?;
        Ok(Delivered { reference: Some(place.reference()) })
    }

    // --- the run's message ---------------------------------------------------------------------

    /// Where the run's message is, when there is one.
    async fn there(&self, notification: &NotificationView) -> Result<Option<Place>> {
        if let Some(place) = notification.earlier.as_deref().and_then(Place::of_reference) {
            return Ok(Some(place));
        }
        let run = notification.run.key.to_string();
        if let Some(place) = self.state.messages.get(&run).await {
            return Ok(Some(place));
        }
        if !notification.may_have_reached {
            return Ok(None);
        }
        let oldest = seconds(notification.at, CLOCKS);
        let found = self.search(&oldest, |mark| mark.run == run).await?;
        let mut place = found.map(|found| self.place(found.ts));
        if place.is_none()
            && let Some(cause) = cause::of(&notification.run)
            && let Some(leader) = self.leader(&cause).await?
            && let Some((_, replies)) = self.searched(self.api.thread(&leader.place).await)?
        {
            let reply = replies.into_iter().find(|reply| reply.mark.run == run);
            place = reply.map(|reply| self.place(reply.ts));
        }
        if let Some(place) = &place {
            self.state.messages.insert(run, place.clone()).await;
        }
        Ok(place)
    }

    fn place(&self, ts: String) -> Place {
        Place { channel: self.channel.clone(), ts }
    }

    /// Makes the run's message say this; false when it is gone or cannot be edited any more.
    async fn edit(&self, place: &Place, message: &Message, mark: &Mark) -> Result<bool> {
        let mut message = message.clone();
        if let Some(leader) = self.state.leaders.get(&mark.cause).await
            && leader.place == *place
        {
            message.blocks.extend(message::further_failures(leader.joined));
        }
        match self.api.update(place, &message, mark).await {
            Ok(()) => Ok(true),
            Err(Refused { word, .. })
                if matches!(
                    &*word,
                    "message_not_found" | "cant_update_message" | "edit_window_closed"
                ) =>
            {
                Ok(false)
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Posts the run's message: in the channel, or in the thread of the first failure of its cause.
    async fn post(
        &self,
        notification: &NotificationView,
        message: &Message,
        mark: &Mark,
    ) -> Result<Place> {
        let _one_after_the_other = self.state.posting.lock().await;
        let leader = match mark.cause.is_empty() {
            true => None,
            false => self.leader(&mark.cause).await?.filter(|leader| leader.mark.run != mark.run),
        };
        self.state.pace.take(self.api.http.now())?;
        let place = match &leader {
            None => self.api.post(&self.channel, message, mark, None).await?,
            Some(leader) => {
                let (transition, run) = (notification.transition, &notification.run);
                let line = message::of_further_failure(transition, run, &self.people);
                self.api.post(&self.channel, &line, mark, Some((&leader.place, false))).await?
            }
        };
        self.state.messages.insert(mark.run.clone(), place.clone()).await;
        match leader {
            Some(leader) => self.count(leader).await,
            None => {
                if !mark.cause.is_empty() {
                    self.lead(place.clone(), mark.clone(), self.api.http.now()).await;
                }
                let told = self.tell_details(notification, &place, mark, false).await;
                told.map_err(Error::having_done_some)?;
            }
        }
        Ok(place)
    }

    /// Puts the details of a failure into the thread of its message, once. `broadcast` shows them
    /// in the channel too: nobody is told of an edit.
    async fn tell_details(
        &self,
        notification: &NotificationView,
        place: &Place,
        mark: &Mark,
        broadcast: bool,
    ) -> Result<()> {
        let Some(details) = message::details(notification.transition, &notification.run) else {
            return Ok(());
        };
        if self.state.replies.contains_key(&mark.delivery) {
            return Ok(());
        }
        if notification.may_have_reached
            && let Some((_, replies)) = self.searched(self.api.thread(place).await)?
            && replies.iter().any(|reply| reply.mark.delivery == mark.delivery)
        {
            return Ok(());
        }
        self.state.pace.take_another(self.api.http.now());
        let mark = Mark { cause: String::new(), ..mark.clone() };
        self.api.post(&self.channel, &details, &mark, Some((place, broadcast))).await?;
        self.state.replies.insert(mark.delivery, ()).await;
        Ok(())
    }

    // --- failures of one cause -----------------------------------------------------------------

    /// The first failure of a cause, when it is not long ago.
    async fn leader(&self, cause: &str) -> Result<Option<Leader>> {
        let now = self.api.http.now();
        let since = now.checked_sub(self.group_within).unwrap_or(Timestamp::MIN);
        if let Some(leader) = self.state.leaders.get(cause).await
            && leader.at >= since
        {
            return Ok(Some(leader));
        }
        let oldest = seconds(since, SignedDuration::ZERO);
        let Some(found) = self.search(&oldest, |mark| mark.cause == cause).await? else {
            return Ok(None);
        };
        let at = instant(&found.ts).unwrap_or(now);
        Ok(Some(self.lead(self.place(found.ts), found.mark, at).await))
    }

    async fn lead(&self, place: Place, mark: Mark, at: Timestamp) -> Leader {
        let leader = Leader { place, at, joined: 0, mark };
        self.state.leaders.insert(leader.mark.cause.clone(), leader.clone()).await;
        leader
    }

    /// Has the first message say how many joined it, from time to time. It is worth no failure.
    async fn count(&self, mut leader: Leader) {
        leader.joined += 1;
        self.state.leaders.insert(leader.mark.cause.clone(), leader.clone()).await;
        if is_worth_telling(leader.joined)
            && let Err(error) = self.tell_count(leader).await
        {
            tracing::debug!(%error, "how many failed in the same way is not shown");
        }
    }

    async fn tell_count(&self, mut leader: Leader) -> Result<()> {
        let Some((parent, replies)) = self.searched(self.api.thread(&leader.place).await)? else {
            return Ok(());
        };
        // Details have the cause of none.
        let of_cause = replies.iter().filter(|reply| reply.mark.cause == leader.mark.cause);
        leader.joined = of_cause.count().max(leader.joined);
        let Some(blocks) = parent.get("blocks").and_then(Value::as_array) else { return Ok(()) };
        let is_count = |block: &&Value| block.get("block_id").is_some_and(|id| id == GROUP);
        let mut blocks: Vec<Value> =
            blocks.iter().filter(|block| !is_count(block)).cloned().collect();
        blocks.extend(message::further_failures(leader.joined));
        let text = parent.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.api.update(&leader.place, &Message { text, blocks }, &leader.mark).await?;
        self.state.leaders.insert(leader.mark.cause.clone(), leader).await;
        Ok(())
    }

    // --- looking through the channel -----------------------------------------------------------

    async fn search(&self, oldest: &str, is_it: impl Fn(&Mark) -> bool) -> Result<Option<Found>> {
        if !self.state.can_search.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let found = self.api.find(&self.channel, oldest, is_it).await;
        self.searched(found).map(Option::flatten)
    }

    /// What a search came to; `None` when the bot may not look, which it is not asked again.
    fn searched<T>(&self, searched: Result<T, Refused>) -> Result<Option<T>> {
        match searched {
            Ok(found) => Ok(Some(found)),
            Err(refused)
                if refused.error.kind() == ErrorKind::Denied && !refused.word.is_empty() =>
            {
                if self.state.can_search.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        error = %refused.error,
                        "the bot cannot read the channel; after a crash a message may come twice"
                    );
                }
                Ok(None)
            }
            Err(refused) if refused.word == "thread_not_found" => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }
}

fn remembering<T: Clone + Send + Sync + 'static>() -> Cache<String, T> {
    Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build()
}

/// The instant of a message's time stamp.
fn instant(ts: &str) -> Option<Timestamp> {
    let (seconds, _) = ts.split_once('.')?;
    Timestamp::from_second(seconds.parse().ok()?).ok()
}

/// The first few, and then as the number grows by much.
fn is_worth_telling(joined: usize) -> bool {
    joined <= 3 || [5, 10, 20, 50].contains(&joined) || joined.is_multiple_of(100)
}

/// An instant, less so much, as Slack writes it.
fn seconds(at: Timestamp, less: SignedDuration) -> String {
    let at = at.checked_sub(less).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{}.{:06}", at.as_second().max(0), at.subsec_microsecond().max(0))
}
