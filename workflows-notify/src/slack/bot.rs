//! With a bot's token: one message for each run, edited in place, with the details in its thread.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use tokio::sync::Mutex;
use workflows_core::{Delivered, Error, NotificationView, Result};

use super::{
    allowance::Allowance,
    api::{Api, Mark, Part, Place, Refused},
    cause,
    group::{CROWD, Group},
    message::{self, Message},
    pace::Pace,
    people::People,
    search::Search,
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
    /// For how long messages join a group; zero when they do not.
    pub(super) group_within: SignedDuration,
    pub(super) state: State,
}

/// What this process remembers. Without it nothing goes wrong, but some more is asked of Slack.
#[derive(Debug)]
pub(super) struct State {
    pub(super) pace: Pace,
    pub(super) allowance: Allowance,
    /// Posting is one after the other, so that the second failure of a cause sees the first.
    posting: Mutex<()>,
    messages: Cache<String, Place>,
    pub(super) replies: Cache<String, ()>,
    pub(super) groups: Cache<String, Group>,
    pub(super) search: Search,
}

/// What is told, and under which mark.
#[derive(Debug, Clone, Copy)]
pub(super) struct Telling<'a> {
    pub(super) notification: &'a NotificationView,
    pub(super) mark: &'a Mark,
}

impl Telling<'_> {
    pub(super) fn marked(&self, part: Part) -> Mark {
        Mark { part, ..self.mark.clone() }
    }
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
            allowance: Allowance::default(),
            posting: Mutex::new(()),
            messages: remembering(),
            replies: remembering(),
            groups: remembering(),
            search: Search::default(),
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
        let ended_badly = message::ended_badly(notification.transition);
        let cause = match ended_badly && self.group_within.is_positive() {
            true => cause::of(&notification.run).unwrap_or_default(),
            false => String::new(),
        };
        let mark = Mark {
            run: notification.run.key.to_string(),
            delivery: notification.key.to_string(),
            cause,
            part: Part::Message,
        };
        let telling = Telling { notification, mark: &mark };
        let place = if !notification.followed_by.is_empty() {
            // What comes next shows the run as it is by then.
            self.there(telling).await?
        } else if ended_badly {
            let _one_after_the_other = self.state.posting.lock().await;
            Some(self.tell_failure(telling).await?)
        } else {
            let message = self.message(telling, None);
            match self.edit_there(telling, &message, &mark).await? {
                Some(place) => Some(place),
                None => {
                    let _one_after_the_other = self.state.posting.lock().await;
                    Some(self.post(telling, None).await?)
                }
            }
        };
        Ok(Delivered { reference: place.map(|place| place.reference()) })
    }

    fn message(&self, telling: Telling<'_>, call: Option<&str>) -> Message {
        let NotificationView { transition, run, .. } = telling.notification;
        message::of_run(*transition, run, call, &self.templates)
    }

    /// Somebody should look, and others may have failed in the same way.
    async fn tell_failure(&self, telling: Telling<'_>) -> Result<Place> {
        let group = match telling.mark.cause.is_empty() {
            true => None,
            false => self.group(&telling.mark.cause).await,
        };
        let others = group.filter(|group| group.run != telling.mark.run);
        let person = self.people.to_look(&telling.notification.run);
        let call = person.filter(|id| others.as_ref().is_none_or(|group| !group.has_called(id)));
        // In the channel the first alone is marked with the cause, so that it is found as such.
        let joins = Mark { cause: String::new(), ..telling.mark.clone() };
        let marked = if others.is_some() { &joins } else { telling.mark };
        let message = self.message(telling, call);
        let Some(place) = self.edit_there(telling, &message, marked).await? else {
            return match others {
                Some(group) => self.post_into(telling, group, call).await,
                None => self.post(telling, call).await,
            };
        };
        match others {
            Some(group) => self.join(telling, &place, group, call).await?,
            // What is found in a thread has joined a group that is over.
            None if place.thread.is_some() && telling.notification.earlier.is_none() => {}
            None => {
                self.lead(telling.mark, &place, call).await;
                let shows = telling.notification.earlier.is_some() && self.may_show(telling);
                self.tell_details(telling, &place, shows).await?;
            }
        }
        Ok(place)
    }

    // --- the run's message ---------------------------------------------------------------------

    /// Where the run's message is, as far as that is known without looking.
    async fn known(&self, telling: Telling<'_>) -> Vec<Place> {
        let recorded = telling.notification.earlier.as_deref().and_then(Place::of_reference);
        let remembered = self.state.messages.get(&telling.mark.run).await;
        let remembered = remembered.filter(|place| recorded.as_ref() != Some(place));
        recorded.into_iter().chain(remembered).collect()
    }

    /// Where the run's message is, when there is one.
    async fn there(&self, telling: Telling<'_>) -> Result<Option<Place>> {
        match self.known(telling).await.into_iter().next() {
            Some(place) => Ok(Some(place)),
            None => self.look(telling, &[]).await,
        }
    }

    /// Makes the run's message say this, wherever it is; `None` when there is none.
    async fn edit_there(
        &self,
        telling: Telling<'_>,
        message: &Message,
        marked: &Mark,
    ) -> Result<Option<Place>> {
        let marked = |place: &Place| if place.thread.is_none() { marked } else { telling.mark };
        let mut gone = Vec::new();
        for place in self.known(telling).await {
            if self.edit(&place, message, marked(&place)).await? {
                return Ok(Some(place));
            }
            gone.push(place);
        }
        match self.look(telling, &gone).await? {
            Some(place) if self.edit(&place, message, marked(&place)).await? => Ok(Some(place)),
            _ => Ok(None),
        }
    }

    /// Looks for the run's message, when it may be there.
    async fn look(&self, telling: Telling<'_>, gone: &[Place]) -> Result<Option<Place>> {
        if !telling.notification.may_have_reached {
            return Ok(None);
        }
        let run = &telling.mark.run;
        let is_it = |mark: &Mark| mark.part == Part::Message && mark.run == *run;
        let found = self.look_for(telling, is_it).await?;
        let found = found.filter(|place| !gone.contains(place));
        if let Some(place) = &found {
            self.state.messages.insert(run.clone(), place.clone()).await;
        }
        Ok(found)
    }

    /// Looks for a message of a run, in the channel and in the threads of the groups that it may have
    /// joined, since the run was there.
    pub(super) async fn look_for(
        &self,
        telling: Telling<'_>,
        is_it: impl Fn(&Mark) -> bool + Send + Sync,
    ) -> Result<Option<Place>> {
        let Telling { notification, mark } = telling;
        let run = &notification.run;
        let tasks = run.tasks.iter().filter_map(|task| task.started_at);
        let since = [run.created_at, earlier(notification.at, self.group_within)];
        let since = since.into_iter().chain(run.started_at).chain(tasks).min();
        let oldest = written(earlier(since.unwrap_or(run.created_at), CLOCKS));
        let may_lead = |found: &Mark| match found.part {
            Part::Message => !found.cause.is_empty() && found.cause == mark.cause,
            Part::Crowd => true,
            Part::Details | Part::Line => false,
        };
        let is_wanted = |found: &Mark| is_it(found) || may_lead(found);
        let name = &mark.delivery;
        let search = &self.state.search;
        let found =
            search.channel(&self.api, name, &self.channel, &oldest, is_wanted, &is_it).await?;
        if let Some(found) = found.iter().find(|found| is_it(&found.mark)) {
            return Ok(Some(self.place(&found.ts)));
        }
        for group in found {
            let place = self.place(&group.ts);
            let name = format!("{name}/{}", group.ts);
            let replies = search.thread(&self.api, &name, &place, &is_it).await?;
            if let Some(reply) = replies.into_iter().next() {
                let thread = Some(group.ts);
                return Ok(Some(Place { ts: reply.ts, thread, ..place }));
            }
        }
        Ok(None)
    }

    /// A message of the channel itself.
    pub(super) fn place(&self, ts: &str) -> Place {
        Place { channel: self.channel.clone(), ts: ts.to_owned(), thread: None }
    }

    /// Makes the run's message say this; false when it is gone or cannot be edited any more.
    async fn edit(&self, place: &Place, message: &Message, mark: &Mark) -> Result<bool> {
        let mut message = message.clone();
        if let Some(group) = self.state.groups.get(&mark.cause).await
            && group.place == *place
        {
            message.blocks.extend(message::further_failures(group.joined));
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

    /// Posts the run's message: in the channel, or in the thread of the crowd when there are many.
    async fn post(&self, telling: Telling<'_>, call: Option<&str>) -> Result<Place> {
        self.state.pace.take(self.api.http.now())?;
        let crowd = match self.may_show(telling) {
            true => None,
            false => Some(self.crowd().await?),
        };
        let call = call.filter(|id| crowd.as_ref().is_none_or(|crowd| !crowd.has_called(id)));
        let message = self.message(telling, call);
        let thread = crowd.as_ref().map(|crowd| (&crowd.place, false));
        let place = self.api.post(&self.channel, &message, telling.mark, thread).await?;
        self.remember(telling, &place).await;
        match crowd {
            None => self.state.allowance.spend(self.api.http.now()),
            Some(crowd) => {
                self.state.groups.insert(CROWD.to_owned(), crowd.calling(call)).await;
            }
        }
        self.lead(telling.mark, &place, call).await;
        let told = self.tell_details(telling, &place, false).await;
        told.map_err(Error::having_done_some)?;
        Ok(place)
    }

    pub(super) async fn remember(&self, telling: Telling<'_>, place: &Place) {
        self.state.messages.insert(telling.mark.run.clone(), place.clone()).await;
    }

    /// Whether one more message may show in the channel itself.
    fn may_show(&self, telling: Telling<'_>) -> bool {
        let ended_badly = message::ended_badly(telling.notification.transition);
        self.state.allowance.is_left(self.api.http.now(), self.group_within, ended_badly)
    }

    /// Puts the details of a failure into the thread of its message, once. They show in the channel
    /// too where nobody would hear of it otherwise: of an edit nobody is told. In the thread of a
    /// group they would stand among others' messages.
    async fn tell_details(
        &self,
        telling: Telling<'_>,
        place: &Place,
        shows_in_channel: bool,
    ) -> Result<()> {
        let NotificationView { transition, run, may_have_reached, .. } = telling.notification;
        if place.thread.is_some() && !shows_in_channel {
            return Ok(());
        }
        let Some(details) = message::details(*transition, run) else { return Ok(()) };
        let mark = telling.marked(Part::Details);
        if self.state.replies.contains_key(&mark.delivery) {
            return Ok(());
        }
        if *may_have_reached {
            let is_it =
                |found: &Mark| found.part == Part::Details && found.delivery == mark.delivery;
            let name = format!("{}/details", mark.delivery);
            if !self.state.search.thread(&self.api, &name, place, is_it).await?.is_empty() {
                return Ok(());
            }
        }
        self.state.pace.take_another(self.api.http.now());
        let thread = Some((place, shows_in_channel));
        self.api.post(&self.channel, &details, &mark, thread).await?;
        if shows_in_channel {
            self.state.allowance.spend(self.api.http.now());
        }
        self.state.replies.insert(mark.delivery, ()).await;
        Ok(())
    }
}

fn remembering<T: Clone + Send + Sync + 'static>() -> Cache<String, T> {
    Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build()
}

pub(super) fn earlier(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// An instant as Slack writes it.
pub(super) fn written(at: Timestamp) -> String {
    format!("{}.{:06}", at.as_second().max(0), at.subsec_microsecond().max(0))
}
