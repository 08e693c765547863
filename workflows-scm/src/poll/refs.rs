//! Finding pushes, tags and deletions: [`RefPoller`].

use async_trait::async_trait;
use workflows_core::{
    Error, Result,
    matching::Pattern,
    source::{RepoInterest, SourceContext},
};

use super::{
    Poller,
    ref_reading::read,
    rounds::{Looks, Reading},
};

/// Polls the refs of every repository that some workflow needs branches or tags of.
///
/// One look at a repository is one listing with exactly the prefixes that all its workflows need,
/// compared with what the ledger has recorded. What differs becomes one event for each ref, with
/// the commits before and after it: several pushes between two looks are one event, and a ref that
/// went away and came back at the same commit is none. What the ledger heard meanwhile from another
/// source (a webhook, say) is newer than the look.
///
/// Which prefixes were watched is kept in a cursor, which moves in the transaction of what was
/// found. Refs under a prefix that is newly watched are recorded and run nothing
/// ([`FirstSight`](super::FirstSight) is about a repository as a whole).
///
/// ```
/// use jiff::SignedDuration;
/// use workflows_scm::poll::{FirstSight, RefPoller};
///
/// # fn main() -> workflows_core::Result<()> {
/// let poller = RefPoller::every(SignedDuration::from_secs(30))?
///     .slowing_to(SignedDuration::from_mins(10))?
///     .first_sight(FirstSight::Run);
/// # Ok(())
/// # }
/// ```
pub type RefPoller = Poller<Refs>;

/// What a [`RefPoller`] looks at.
#[derive(Debug, Clone, Default)]
pub struct Refs {
    pub(super) branches: Option<Pattern>,
}

impl RefPoller {
    /// Looks only at branches that match a pattern, such as `release/*`, whatever the workflows ask
    /// for; tags are looked at as they are asked for. A branch that comes to be looked at because
    /// the pattern is another one than before makes no event at first.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is no pattern (see [`Pattern`]).
    pub fn only_branches(mut self, pattern: &str) -> Result<Self> {
        let compiled = Pattern::new(pattern).map_err(|message| {
            Error::invalid("set up polling", message).with("pattern", format!("{pattern:?}"))
        })?;
        self.looks.branches = Some(compiled);
        Ok(self)
    }
}

#[async_trait]
impl Looks for Refs {
    const NAME: &'static str = "poll";

    fn wants(&self, interest: &RepoInterest) -> bool {
        !interest.ref_prefixes.is_empty()
    }

    fn wants_the_same(&self, one: &RepoInterest, other: &RepoInterest) -> bool {
        one.ref_prefixes == other.ref_prefixes
    }

    async fn look(
        poller: &RefPoller,
        context: &SourceContext,
        interest: &RepoInterest,
    ) -> Result<Reading> {
        read(poller, context, interest).await
    }
}
