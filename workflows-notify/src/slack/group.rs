//! Messages that join one in the channel: failures of one cause, and many runs at once.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;
use workflows_core::{NotificationView, Result};

use super::{
    api::{Mark, Part, Place},
    bot::{Bot, Telling, earlier, written},
    message::{self, GROUP, Message},
};

/// The cause of those that are together only because there are many.
pub(super) const CROWD: &str = "crowd";

/// The first message about failures of a cause, or that of a crowd.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) place: Place,
    /// Whose run began it.
    pub(super) run: String,
    mark: Mark,
    at: Timestamp,
    /// Those that joined, as far as this process knows.
    pub(super) joined: usize,
    /// Who was called, as far as this process knows: each is called once.
    called: BTreeSet<Arc<str>>,
}

impl Group {
    pub(super) fn has_called(&self, id: &str) -> bool {
        self.called.contains(id)
    }

    pub(super) fn calling(mut self, id: Option<&str>) -> Self {
        self.called.extend(id.map(Arc::from));
        self
    }
}

impl Bot {
    /// The group of a cause, when it did not begin long ago. To find it is worth no wait: without it
    /// another one begins.
    pub(super) async fn group(&self, cause: &str) -> Option<Group> {
        let now = self.api.http.now();
        let since = earlier(now, self.group_within);
        if let Some(group) = self.state.groups.get(cause).await
            && group.at >= since
        {
            return Some(group);
        }
        let is_wanted =
            |mark: &Mark| mark.cause == cause && matches!(mark.part, Part::Message | Part::Crowd);
        let search = &self.state.search;
        let found = search.at_once(&self.api, &self.channel, &written(since), is_wanted).await?;
        let at = instant(&found.ts).unwrap_or(now);
        Some(self.begin(&found.mark, &self.place(&found.ts), at, None).await)
    }

    /// Lets further failures of the cause join this one.
    pub(super) async fn lead(&self, mark: &Mark, place: &Place, call: Option<&str>) {
        if !mark.cause.is_empty() && self.is_not_led_by(mark).await {
            self.begin(mark, place, self.api.http.now(), call).await;
        }
    }

    async fn is_not_led_by(&self, mark: &Mark) -> bool {
        let group = self.state.groups.get(&mark.cause).await;
        group.is_none_or(|group| group.run != mark.run)
    }

    async fn begin(&self, mark: &Mark, place: &Place, at: Timestamp, call: Option<&str>) -> Group {
        let (place, run, mark) = (place.clone(), mark.run.clone(), mark.clone());
        let group = Group { place, run, mark, at, joined: 0, called: BTreeSet::new() };
        let group = group.calling(call);
        self.state.groups.insert(group.mark.cause.clone(), group.clone()).await;
        group
    }

    /// The message in whose thread further runs are told while there are many.
    pub(super) async fn crowd(&self) -> Result<Group> {
        if let Some(group) = self.group(CROWD).await {
            return Ok(group);
        }
        let mark = Mark {
            run: String::new(),
            delivery: String::new(),
            cause: CROWD.to_owned(),
            part: Part::Crowd,
        };
        let place = self.api.post(&self.channel, &message::of_crowd(), &mark, None).await?;
        self.state.pace.take_another(self.api.http.now());
        Ok(self.begin(&mark, &place, self.api.http.now(), None).await)
    }

    /// Posts the message of a run that failed as others did, in the thread of the first.
    pub(super) async fn post_into(
        &self,
        telling: Telling<'_>,
        group: Group,
        call: Option<&str>,
    ) -> Result<Place> {
        self.state.pace.take(self.api.http.now())?;
        let line = self.line(telling, call);
        let thread = Some((&group.place, false));
        let place = self.api.post(&self.channel, &line, telling.mark, thread).await?;
        self.remember(telling, &place).await;
        self.count(group.calling(call)).await;
        Ok(place)
    }

    /// Says in the thread of the first that a run failed as others did which has its message already,
    /// elsewhere.
    pub(super) async fn join(
        &self,
        telling: Telling<'_>,
        place: &Place,
        group: Group,
        call: Option<&str>,
    ) -> Result<()> {
        let mark = telling.marked(Part::Line);
        if self.state.replies.contains_key(&mark.delivery) {
            return Ok(());
        }
        if place.root() == group.place.root() {
            self.state.replies.insert(mark.delivery, ()).await;
            self.count(group).await;
            return Ok(());
        }
        if telling.notification.may_have_reached {
            // What stands in a thread may be there because it joined a group before.
            if place.thread.is_some() {
                return Ok(());
            }
            let is_it = |found: &Mark| found.part == Part::Line && found.delivery == mark.delivery;
            if self.look_for(telling, is_it).await?.is_some() {
                return Ok(());
            }
        }
        self.state.pace.take(self.api.http.now())?;
        let line = self.line(telling, call);
        self.api.post(&self.channel, &line, &mark, Some((&group.place, false))).await?;
        self.state.replies.insert(mark.delivery, ()).await;
        self.count(group.calling(call)).await;
        Ok(())
    }

    fn line(&self, telling: Telling<'_>, call: Option<&str>) -> Message {
        let NotificationView { transition, run, .. } = telling.notification;
        message::of_further_failure(*transition, run, call, &self.templates)
    }

    /// Has the first message say how many joined it, from time to time. It is worth no failure.
    async fn count(&self, mut group: Group) {
        group.joined += 1;
        self.state.groups.insert(group.mark.cause.clone(), group.clone()).await;
        if is_worth_telling(group.joined)
            && let Err(error) = self.tell_count(group).await
        {
            tracing::debug!(%error, "how many failed in the same way is not shown");
        }
    }

    async fn tell_count(&self, mut group: Group) -> Result<()> {
        let there = self.state.search.thread_at_once(&self.api, &group.place).await;
        let Some((message, replies)) = there else { return Ok(()) };
        let of_cause = replies.iter().filter(|reply| {
            reply.mark.cause == group.mark.cause
                && reply.mark.run != group.run
                && matches!(reply.mark.part, Part::Message | Part::Line)
        });
        group.joined = of_cause.count().max(group.joined);
        let Some(blocks) = message.get("blocks").and_then(Value::as_array) else { return Ok(()) };
        let is_count = |block: &&Value| block.get("block_id").is_some_and(|id| id == GROUP);
        let mut blocks: Vec<Value> =
            blocks.iter().filter(|block| !is_count(block)).cloned().collect();
        blocks.extend(message::further_failures(group.joined));
        let text = message.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.api.update(&group.place, &Message { text, blocks }, &group.mark).await?;
        self.state.groups.insert(group.mark.cause.clone(), group).await;
        Ok(())
    }
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
