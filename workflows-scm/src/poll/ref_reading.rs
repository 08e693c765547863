//! One look at the refs of one repository.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use workflows_core::{
    CommitId, Error, Observation, RepoConnection, Result, SubjectClaim,
    event::{Before, RefClaim, Seen},
    matching::Pattern,
    repo::History,
    source::{RepoInterest, SourceContext},
    store::CursorMove,
};

use super::{
    FirstSight, RefPoller, later,
    rounds::{Reading, TOGETHER, again_on_conflict},
};

/// So many moved branches of one look are asked about whether they were forced.
const MOST_ASKED: usize = 64;

/// How long these questions may take, all in all. Without an answer a move counts as an ordinary
/// one: that it happened matters more.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// What is remembered from look to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    /// The prefixes whose refs were compared.
    prefixes: BTreeSet<Arc<str>>,
    /// The pattern that branches had to match; all were compared when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    branches: Option<String>,
}

impl Watched {
    fn covers(&self, name: &str) -> bool {
        let pattern = self.branches.as_deref().map(Pattern::new);
        self.prefixes.iter().any(|prefix| name.starts_with(&**prefix))
            && pattern.is_none_or(|pattern| pattern.is_ok_and(|one| may_look_at(Some(&one), name)))
    }
}

/// Whether a ref is to be compared when branches have to match a pattern.
fn may_look_at(branches: Option<&Pattern>, name: &str) -> bool {
    match (branches, name.strip_prefix("refs/heads/")) {
        (Some(pattern), Some(branch)) => pattern.matches(branch),
        _ => true,
    }
}

/// Looks once, and hands in what differs from the ledger.
pub(super) async fn read(
    poller: &RefPoller,
    context: &SourceContext,
    interest: &RepoInterest,
) -> Result<Reading> {
    again_on_conflict(|| read_once(poller, context, interest)).await
}

async fn read_once(
    poller: &RefPoller,
    context: &SourceContext,
    interest: &RepoInterest,
) -> Result<Reading> {
    let (source, branches) = (&poller.name, poller.looks.branches.as_ref());
    let tenant = &interest.tenant;
    let publisher = &context.publisher;
    let connection =
        context.connections.repository(tenant, &interest.connection, &interest.repo).await?;
    let repo = connection.repo();
    let cursor = format!("{source}/{}/{}", repo.connection, repo.id);
    let stored = publisher.cursor(tenant, &cursor).await?;
    let before = stored.as_deref().and_then(|text| serde_json::from_str::<Watched>(text).ok());
    if stored.is_some() && before.is_none() {
        tracing::warn!(%cursor, "the cursor cannot be read; the repository is taken for a new one");
    }
    let now = Watched {
        prefixes: narrowest(&interest.ref_prefixes),
        branches: branches.map(ToString::to_string),
    };

    // What the ledger hears from here on is newer than what is read.
    let as_of = publisher.position().await?;
    let prefixes: Vec<Arc<str>> = now.prefixes.iter().cloned().collect();
    let listed: BTreeMap<Arc<str>, CommitId> = connection
        .refs(&prefixes)
        .try_filter(|position| std::future::ready(may_look_at(branches, &position.name)))
        .map_ok(|position| (position.name, position.commit))
        .try_collect()
        .await?;
    let mut recorded = recorded_refs(context, interest, &*connection, &now).await?;
    recorded.retain(|name, _| may_look_at(branches, name));

    let seen = |name: &str| match (&before, poller.first_sight) {
        (None, FirstSight::Run) => Seen::Read { as_of },
        (Some(watched), _) if watched.covers(name) => Seen::Read { as_of },
        _ => Seen::Baseline { as_of },
    };
    let mut moves = moves(&listed, &recorded);
    tell_forced(context, connection.history(), &mut moves).await;
    let mut observations: Vec<Observation> = moves
        .into_iter()
        .map(|moved| {
            let name = moved.name;
            let state = moved.after.as_ref().map_or("gone", CommitId::as_str);
            // The ledger's position moves with whatever is taken in, so that the same id is the
            // same look at the same ref.
            let delivery = format!("{}@{as_of}/{name}/{state}", repo.id);
            let claim = RefClaim {
                name: Arc::clone(&name),
                after: moved.after,
                before: Before::Unknown,
                forced: moved.forced,
            };
            Observation::new(
                tenant.clone(),
                repo.clone(),
                source.clone(),
                delivery.into(),
                seen(&name),
                SubjectClaim::Ref(claim),
            )
        })
        .collect();
    if observations.is_empty() && before.as_ref() == Some(&now) {
        return Ok(Reading::Unchanged);
    }

    let to = serde_json::to_string(&now).map_err(|error| {
        Error::invalid("poll repository", "a prefix is no text").caused_by(error)
    })?;
    let cursor = CursorMove { tenant: tenant.clone(), name: cursor, from: stored, to };
    let mut admitted = Vec::new();
    // The cursor moves with the last of them: when this is broken off before, the next look finds
    // the first ones recorded and the others still new.
    while observations.len() > TOGETHER {
        let rest = observations.split_off(TOGETHER);
        admitted.extend(publisher.publish(std::mem::replace(&mut observations, rest)).await?);
    }
    admitted.extend(publisher.publish_with_cursor(observations, cursor).await?);
    let news = admitted.iter().any(|admitted| admitted.event().is_some());
    Ok(if news { Reading::Changed } else { Reading::Unchanged })
}

/// The shortest prefixes that cover all of them.
fn narrowest(prefixes: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
    let mut kept: Vec<Arc<str>> = Vec::new();
    for prefix in prefixes {
        // In their order, one that covers others comes right before them.
        if !kept.last().is_some_and(|last| prefix.starts_with(&**last)) {
            kept.push(Arc::clone(prefix));
        }
    }
    kept.into_iter().collect()
}

/// Where the ledger has the refs; `None` for one that it knows to be gone.
async fn recorded_refs(
    context: &SourceContext,
    interest: &RepoInterest,
    connection: &dyn RepoConnection,
    watched: &Watched,
) -> Result<BTreeMap<Arc<str>, Option<CommitId>>> {
    let mut recorded = BTreeMap::new();
    for prefix in &watched.prefixes {
        let subjects =
            context.publisher.subjects(&interest.tenant, connection.repo(), prefix).await?;
        for (subject, state) in subjects {
            if subject.as_str().starts_with("refs/") {
                recorded.insert(subject.as_str().into(), state.state.parse().ok());
            }
        }
    }
    Ok(recorded)
}

/// A ref that does not stand where the ledger has it.
#[derive(Debug)]
struct Move {
    name: Arc<str>,
    recorded: Option<CommitId>,
    after: Option<CommitId>,
    forced: Option<bool>,
}

fn moves(
    listed: &BTreeMap<Arc<str>, CommitId>,
    recorded: &BTreeMap<Arc<str>, Option<CommitId>>,
) -> Vec<Move> {
    let mut moves = Vec::new();
    for (name, commit) in listed {
        let known = recorded.get(name).cloned().flatten();
        if known.as_ref() != Some(commit) {
            let after = Some(commit.clone());
            moves.push(Move { name: Arc::clone(name), recorded: known, after, forced: None });
        }
    }
    for (name, known) in recorded {
        if known.is_some() && !listed.contains_key(name) {
            let recorded = known.clone();
            moves.push(Move { name: Arc::clone(name), recorded, after: None, forced: None });
        }
    }
    moves
}

/// Finds out which branches were forced, as far as the repository can tell.
async fn tell_forced(context: &SourceContext, history: Option<&dyn History>, moves: &mut [Move]) {
    let Some(history) = history else {
        return;
    };
    let questions: Vec<(usize, CommitId, CommitId)> = moves
        .iter()
        .enumerate()
        .filter(|(_, moved)| moved.name.starts_with("refs/heads/"))
        .filter_map(|(at, moved)| Some((at, moved.recorded.clone()?, moved.after.clone()?)))
        .take(MOST_ASKED)
        .collect();
    if questions.is_empty() {
        return;
    }
    let mut answers: HashMap<usize, bool> = HashMap::new();
    let ask = async {
        let mut asked = stream::iter(questions)
            .map(|(at, from, to)| async move { (at, history.is_ancestor(&from, &to).await) })
            .buffer_unordered(4);
        while let Some((at, answer)) = asked.next().await {
            match answer {
                Ok(descends) => {
                    answers.insert(at, !descends);
                }
                Err(error) => {
                    tracing::debug!(%error, "whether a branch was forced cannot be told");
                }
            }
        }
    };
    let deadline = later(context.clock.now(), PATIENCE);
    tokio::select! {
        () = ask => {}
        () = context.clock.sleep_until(deadline) => {}
    }
    for (at, moved) in moves.iter_mut().enumerate() {
        moved.forced = answers.get(&at).copied();
    }
}
