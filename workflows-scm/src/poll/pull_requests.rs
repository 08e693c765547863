//! Finding what happens to pull requests: [`PullRequestPoller`].

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{
    EventKind, Result,
    source::{RepoInterest, SourceContext},
};

use super::{
    Poller,
    pull_request_reading::read,
    rounds::{Looks, Reading},
};

/// Polls the pull requests of every repository that some workflow needs pull requests, labels or
/// comments of.
///
/// One look is one listing of what changed last, newest first, read as far back as the last look and
/// a little further. Each pull request becomes at most one event, with the actions that lead from the
/// recorded state to the present one: what was done and undone between two looks is not seen. Labels
/// are compared one by one. When a pull request changed, new comments are asked for, too, for a
/// comment changes its pull request, at that look and once more at the next one, for hosts tell times
/// in whole seconds. So a look at a repository where nothing happens is one request, which costs
/// little where the host can say that nothing changed. A comment is an event when it is
/// new; that it was edited or deleted is not, and what was written with a review as a whole is not
/// seen.
///
/// The first look at a repository records the pull requests that are open and makes no events, unless
/// [`first_sight`](Poller::first_sight) says otherwise. The place up to which was read is kept in a
/// cursor, which moves in the transaction of what was found. A connection that offers no pull
/// requests is told as a failure.
///
/// ```
/// use jiff::SignedDuration;
/// use workflows_scm::poll::PullRequestPoller;
///
/// # fn main() -> workflows_core::Result<()> {
/// let poller = PullRequestPoller::every(SignedDuration::from_secs(45))?
///     .slowing_to(SignedDuration::from_mins(27))?;
/// # Ok(())
/// # }
/// ```
pub type PullRequestPoller = Poller<PullRequests>;

/// What a [`PullRequestPoller`] looks at.
#[derive(Debug, Clone)]
pub struct PullRequests {
    per_minute: u32,
}

impl Default for PullRequests {
    fn default() -> Self {
        Self { per_minute: 700 }
    }
}

impl PullRequestPoller {
    /// Sets how many looks a minute are begun through one connection. Default: 700, which leaves
    /// something of the 900 requests a minute that GitHub allows for other things. Looks beyond it
    /// wait their turn.
    #[must_use]
    pub fn at_most_per_minute(mut self, looks: u32) -> Self {
        self.looks.per_minute = looks.max(1);
        self
    }
}

/// Kinds of events that come of pull requests.
const KINDS: [EventKind; 3] = [EventKind::PULL_REQUEST, EventKind::LABEL, EventKind::COMMENT];

#[async_trait]
impl Looks for PullRequests {
    const NAME: &'static str = "poll-pull-requests";

    fn wants(&self, interest: &RepoInterest) -> bool {
        KINDS.iter().any(|kind| interest.kinds.contains(kind))
    }

    fn wants_the_same(&self, _: &RepoInterest, _: &RepoInterest) -> bool {
        true
    }

    fn spacing(&self) -> Option<SignedDuration> {
        Some(SignedDuration::from_micros(60_000_000 / i64::from(self.per_minute)))
    }

    async fn look(
        poller: &PullRequestPoller,
        context: &SourceContext,
        interest: &RepoInterest,
    ) -> Result<Reading> {
        read(poller, context, interest).await
    }
}
