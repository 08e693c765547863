//! One look at the pull requests of one repository.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use workflows_core::{
    Error, ErrorKind, Observation, RepoRef, Result, SourceName, SubjectClaim, Tenant,
    event::{
        LabelClaim, Occurrence, PullRequest, PullRequestClaim, PullRequestState, Seen, SubjectKey,
        claimed_state,
    },
    repo::{CommentFeed, FoundComment, PullRequests},
    source::{RepoInterest, SourceContext},
    store::CursorMove,
};

use super::{
    FirstSight, PullRequestPoller,
    rounds::{Reading, TOGETHER, again_on_conflict},
};

/// What changed so long before the newest change that was read is read again: hosts tell times in
/// whole seconds, and list a change a little after they made it.
const OVERLAP: SignedDuration = SignedDuration::from_mins(2);

/// How far the first look goes back to find the highest number and the newest change.
const FIRST_LISTING: usize = 100;

/// What is remembered from look to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Read {
    /// The newest change of a pull request that was read, by the host's clock.
    newest: Timestamp,
    /// All comments that came with changes up to this one were read.
    #[serde(alias = "newest_comment")]
    comments_through: Timestamp,
    /// Comments that were written before are not new.
    first: Timestamp,
    /// The highest number when the repository was first looked at: a pull request up to it that is
    /// not recorded was closed then.
    highest: u64,
}

pub(super) async fn read(
    poller: &PullRequestPoller,
    context: &SourceContext,
    interest: &RepoInterest,
) -> Result<Reading> {
    again_on_conflict(|| read_once(poller, context, interest)).await
}

async fn read_once(
    poller: &PullRequestPoller,
    context: &SourceContext,
    interest: &RepoInterest,
) -> Result<Reading> {
    let tenant = &interest.tenant;
    let connection =
        context.connections.repository(tenant, &interest.connection, &interest.repo).await?;
    let power = connection.pull_requests().ok_or_else(|| {
        Error::unsupported("poll pull requests", "the connection offers none")
            .with("repository", connection.repo())
    })?;
    let repo = connection.repo();
    let name = format!("{}/{}/{}", poller.name, repo.connection, repo.id);
    let stored = context.publisher.cursor(tenant, &name).await?;
    let before = stored.as_deref().and_then(|text| serde_json::from_str::<Read>(text).ok());
    if stored.is_some() && before.is_none() {
        tracing::warn!(cursor = %name, "the cursor cannot be read; the repository is taken for a new one");
    }
    let as_of = context.publisher.position().await?;
    let look = Look { context, tenant, repo, source: &poller.name, as_of };
    let (observations, after) = match &before {
        None => look.first(power, poller.first_sight).await?,
        Some(before) => look.again(power, connection.comment_feed(), before).await?,
    };
    if observations.is_empty() && before.as_ref() == Some(&after) {
        return Ok(Reading::UnchangedSince(after.newest));
    }
    let to = serde_json::to_string(&after).map_err(|error| {
        Error::invalid("poll pull requests", "the cursor has no text").caused_by(error)
    })?;
    let cursor = CursorMove { tenant: tenant.clone(), name, from: stored, to };
    let news = look.hand_in(observations, cursor).await?;
    Ok(if news { Reading::Changed } else { Reading::UnchangedSince(after.newest) })
}

struct Look<'a> {
    context: &'a SourceContext,
    tenant: &'a Tenant,
    repo: &'a RepoRef,
    source: &'a SourceName,
    /// What the ledger hears from here on is newer than what is read.
    as_of: i64,
}

impl Look<'_> {
    /// Records what is open.
    async fn first(
        &self,
        power: &dyn PullRequests,
        first_sight: FirstSight,
    ) -> Result<(Vec<Observation>, Read)> {
        // The listing comes first, so that what changes meanwhile is found by the next look.
        let latest: Vec<PullRequest> =
            power.changed_since(None).take(FIRST_LISTING).try_collect().await?;
        let open: Vec<PullRequest> = if latest.len() < FIRST_LISTING {
            let is_open = |one: &&PullRequest| one.state == PullRequestState::Open;
            latest.iter().filter(is_open).cloned().collect()
        } else {
            power.open().try_collect().await?
        };
        let both = || latest.iter().chain(&open);
        let newest = both().map(|one| one.updated_at).max().unwrap_or(Timestamp::UNIX_EPOCH);
        let highest = both().map(|one| one.number).max().unwrap_or(0);
        let seen = match first_sight {
            FirstSight::Baseline => Seen::Baseline { as_of: self.as_of },
            FirstSight::Run => Seen::Read { as_of: self.as_of },
        };
        let mut observations = Vec::new();
        for pull_request in open {
            self.compare(pull_request, seen, &mut observations).await?;
        }
        // Where nothing was ever changed there are no comments, and all that come are new.
        Ok((observations, Read { newest, comments_through: newest, first: newest, highest }))
    }

    async fn again(
        &self,
        power: &dyn PullRequests,
        comments: Option<&dyn CommentFeed>,
        before: &Read,
    ) -> Result<(Vec<Observation>, Read)> {
        let since = earlier(before.newest);
        let mut after = before.clone();
        let mut observations = Vec::new();
        let mut changed = BTreeMap::new();
        let mut listing = power.changed_since(Some(since));
        while let Some(one) = listing.try_next().await? {
            // Pages shift while they are read; of a pull request that comes twice, the first is newer.
            changed.entry(one.number).or_insert(one);
        }
        drop(listing);
        for pull_request in changed.values() {
            after.newest = after.newest.max(pull_request.updated_at);
            let unknown_of_old = pull_request.state != PullRequestState::Open
                && pull_request.number <= before.highest;
            let seen = if unknown_of_old && !self.is_recorded(pull_request.number).await? {
                Seen::Baseline { as_of: self.as_of }
            } else {
                Seen::Read { as_of: self.as_of }
            };
            self.compare(pull_request.clone(), seen, &mut observations).await?;
        }
        if let Some(feed) = comments
            && after.newest > before.comments_through
        {
            match self.comments(feed, &changed, before, &mut observations).await {
                // The cursor of comments stays behind, so that the next look reads them.
                Err(error) if matches!(error.kind(), ErrorKind::RateLimited { .. }) => {
                    tracing::info!(%error, repository = %self.repo, "comments are read later");
                }
                // What came since the last look is read once more by the next one: in the second of
                // its change more may be written, which no later change tells of.
                read => {
                    read?;
                    after.comments_through = before.newest;
                }
            }
        }
        Ok((observations, after))
    }

    async fn is_recorded(&self, number: u64) -> Result<bool> {
        let subject = SubjectKey::pull_request(number);
        let found =
            self.context.publisher.subjects(self.tenant, self.repo, subject.as_str()).await?;
        Ok(found.iter().any(|(known, _)| *known == subject))
    }

    /// Compares a pull request and its labels with what is recorded.
    async fn compare(
        &self,
        pull_request: PullRequest,
        seen: Seen,
        observations: &mut Vec<Observation>,
    ) -> Result<()> {
        let subject = SubjectKey::pull_request(pull_request.number);
        let prefix = subject.as_str();
        let recorded: BTreeMap<SubjectKey, String> = self
            .context
            .publisher
            .subjects(self.tenant, self.repo, prefix)
            .await?
            .into_iter()
            .map(|(subject, state)| (subject, state.state))
            .collect();
        let mut labels: BTreeMap<Arc<str>, bool> =
            pull_request.labels.iter().map(|label| (Arc::clone(label), true)).collect();
        let of_labels = format!("{prefix}/label/");
        for (key, state) in &recorded {
            if let Some(label) = key.as_str().strip_prefix(&of_labels)
                && state == "present"
            {
                labels.entry(label.into()).or_insert(false);
            }
        }
        let claim = PullRequestClaim { pull_request: pull_request.clone() };
        let mut claims = vec![SubjectClaim::PullRequest(Box::new(claim))];
        claims.extend(labels.into_iter().map(|(label, present)| {
            let pull_request = pull_request.clone();
            SubjectClaim::Label(Box::new(LabelClaim { pull_request, label, present }))
        }));
        for claim in claims {
            let state = claimed_state(&claim);
            if recorded.get(&claim.subject()) != Some(&state) {
                observations.push(self.observation(seen, &state, claim));
            }
        }
        Ok(())
    }

    /// Adds comments that are new.
    async fn comments(
        &self,
        feed: &dyn CommentFeed,
        changed: &BTreeMap<u64, PullRequest>,
        before: &Read,
        observations: &mut Vec<Observation>,
    ) -> Result<()> {
        let since = earlier(before.comments_through);
        let found: Vec<FoundComment> = feed.comments_since(since).try_collect().await?;
        for one in found {
            if one.created_at <= before.first {
                continue;
            }
            let at = one.created_at;
            let mut occurrence = match changed.get(&one.pull_request) {
                Some(pull_request) => Occurrence::comment(one.comment, pull_request.clone()),
                None => Occurrence::comment_on(one.comment, one.pull_request),
            };
            occurrence.occurred_at = Some(at);
            let claim = SubjectClaim::Occurrence(Box::new(occurrence));
            let subject = claim.subject();
            let known =
                self.context.publisher.subjects(self.tenant, self.repo, subject.as_str()).await?;
            if !known.iter().any(|(known, _)| *known == subject) {
                let seen = Seen::Read { as_of: self.as_of };
                observations.push(self.observation(seen, "once", claim));
            }
        }
        Ok(())
    }

    fn observation(&self, seen: Seen, state: &str, claim: SubjectClaim) -> Observation {
        // The ledger's position moves with whatever is taken in, so that the same id is the same
        // look at the same subject.
        let delivery = format!("{}@{}/{}/{state}", self.repo.id, self.as_of, claim.subject());
        Observation::new(
            self.tenant.clone(),
            self.repo.clone(),
            self.source.clone(),
            delivery.into(),
            seen,
            claim,
        )
    }

    /// Hands in what was found; whether any of it was news.
    async fn hand_in(
        &self,
        mut observations: Vec<Observation>,
        cursor: CursorMove,
    ) -> Result<bool> {
        let publisher = &self.context.publisher;
        let mut admitted = Vec::new();
        // The cursor moves with the last of them: when this is broken off before, the next look
        // finds the first ones recorded and the others still new.
        while observations.len() > TOGETHER {
            let rest = observations.split_off(TOGETHER);
            admitted.extend(publisher.publish(std::mem::replace(&mut observations, rest)).await?);
        }
        admitted.extend(publisher.publish_with_cursor(observations, cursor).await?);
        Ok(admitted.iter().any(|one| one.event().is_some()))
    }
}

fn earlier(than: Timestamp) -> Timestamp {
    than.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN)
}
