//! Answering who gave a command in a comment: a reaction to the comment, and one comment of the
//! engine's own on the pull request once a command could not be carried out.
//!
//! Neither is sent from where the command is carried out. Both are work of the ledger, stored with
//! what the command did, and tried until the host took it. What the comment says is computed from the
//! ledger each time; whoever holds the work of the comment is alone in writing it.

use serde::{Deserialize, Serialize};

use super::{
    backoff,
    core::Core,
    markdown::{cell, code},
};
use crate::{
    Error, ErrorKind, Event, EventKey, EventKind, RepoConnection, RepoRef, Result, Tenant, hash_of,
    source::Connections,
    store::{
        Claim, CommandDecision, CommandOutcome, CommentKey, CommentPurpose, Committed, CursorMove,
        DecisionQuery, Effects, EventQuery, NewWork, PageRequest, Stage, WorkKey,
    },
};

/// So many commands are shown, the newest.
const COMMANDS: usize = 10;
/// So many comments are looked through for them.
const COMMENTS: u32 = 50;
/// So many decisions about an event are looked through for its commands.
const DECISIONS: u32 = 20;
/// In bytes, of what came of a command.
const OUTCOME: usize = 1_000;

/// Has the author of a comment told what came of its commands.
pub(crate) fn promise(event: &Event, pull_request: u64, effects: &mut Effects) {
    let comment =
        CommentKey { repo: event.repo.clone(), pull_request, purpose: CommentPurpose::Commands };
    for key in [WorkKey::Acknowledgement { event: event.key.clone() }, WorkKey::Comment { comment }]
    {
        effects.work.push(NewWork::now(event.tenant.clone(), Stage::Report, key));
    }
}

/// Reacts to a comment that held commands.
pub(crate) async fn acknowledge(core: &Core, claim: &Claim, key: &EventKey) -> Result<Committed> {
    let tenant = &claim.work.tenant;
    if let Some(event) = core.store.event(tenant, key).await?
        && let (Some(comment), Some(pull_request)) = (&event.comment, &event.pull_request)
    {
        let commands = commands_of(core, tenant, key).await?;
        if !commands.is_empty() {
            let accepted = commands.iter().all(is_done);
            let reacted = async {
                let connection = connect(core, tenant, &event.repo).await?;
                let commenter = commenter(&*connection)?;
                let reacting = commenter.acknowledge(pull_request.number, &comment.id, accepted);
                core.call("react to a comment", reacting).await
            };
            settle(core, claim, "reaction", reacted.await)?;
        }
    }
    core.commit(claim, Effects::default()).await
}

/// The comment as the host was made to show it.
#[derive(Debug, Serialize, Deserialize)]
struct ShownComment {
    /// The host's id of it.
    id: String,
    /// A digest of what it says.
    digest: String,
}

/// Makes the engine's own comment on a pull request say what it should.
pub(crate) async fn keep_up_to_date(
    core: &Core,
    claim: &Claim,
    key: &CommentKey,
) -> Result<Committed> {
    let tenant = &claim.work.tenant;
    let mut effects = Effects::default();
    let purpose = key.purpose.as_str();
    let cursor = format!("comment/{}/{}/{purpose}", key.repo.id, key.pull_request);
    let recorded = core.store.cursor(tenant, &cursor).await?;
    let shown: Option<ShownComment> =
        recorded.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let body = match key.purpose {
        CommentPurpose::Commands => about_commands(core, tenant, key, shown.is_some()).await?,
    };
    if let Some(body) = body {
        let digest = hash_of(&[&body]);
        if shown.as_ref().is_none_or(|shown| shown.digest != digest) {
            let known = shown.as_ref().map(|shown| shown.id.as_str());
            let marker = format!("{}/{tenant}/{purpose}", core.options.status_prefix);
            let written = async {
                let connection = connect(core, tenant, &key.repo).await?;
                let commenter = commenter(&*connection)?;
                let writing = commenter.upsert(key.pull_request, &marker, &body, known);
                core.call("write a comment", writing).await
            };
            if let Some(id) = settle(core, claim, "comment", written.await)? {
                let now = ShownComment { id, digest };
                effects.cursors.push(CursorMove {
                    tenant: tenant.clone(),
                    name: cursor,
                    from: recorded,
                    // Two strings always have a JSON form.
                    to: serde_json::to_string(&now).unwrap_or_default(),
                });
            }
        }
    }
    core.commit(claim, effects).await
}

/// Tells what came of the newest commands on a pull request; nothing when all could be carried out
/// and nothing was told before.
async fn about_commands(
    core: &Core,
    tenant: &Tenant,
    key: &CommentKey,
    told_before: bool,
) -> Result<Option<String>> {
    let query = EventQuery::of(tenant.clone())
        .repo(Some(key.repo.id.clone()))
        .kind(Some(EventKind::COMMENT))
        .pull_request(Some(key.pull_request))
        .page(PageRequest { limit: COMMENTS, after: None });
    let mut newest: Vec<CommandDecision> = Vec::new();
    for event in core.store.events(query).await?.items {
        let of_comment = commands_of(core, tenant, &event.key).await?;
        newest.extend(of_comment.into_iter().rev());
        if newest.len() >= COMMANDS {
            newest.truncate(COMMANDS);
            break;
        }
    }
    if newest.is_empty() || !(told_before || newest.iter().any(|one| !is_done(one))) {
        return Ok(None);
    }
    Ok(Some(table(&newest)))
}

fn table(newest: &[CommandDecision]) -> String {
    let mut body = "What came of the commands on this pull request, the newest first:\n\n\
                    | Command | By | Outcome |\n| --- | --- | --- |\n"
        .to_owned();
    for one in newest {
        let (word, text) = match &one.outcome {
            CommandOutcome::Done { effect } => ("done", effect),
            CommandOutcome::Denied { rule } => ("**denied**", rule),
            CommandOutcome::Failed { error } => ("**failed**", error),
        };
        let by = one.by.as_deref().unwrap_or_default();
        let (command, by) = (cell(&one.command, 200), cell(by, 100));
        body.push_str(&format!("| {command} | {by} | {word}: {} |\n", cell(text, OUTCOME)));
    }
    body.push_str(&format!("\nCommands: {}.\n", KNOWN.map(code).join(", ")));
    body
}

/// What may be written, for whom a command failed.
const KNOWN: [&str; 4] =
    ["/test [workflow]", "/retest [workflow]", "/cancel [workflow]", "/ok-to-test <commit>"];

fn is_done(one: &CommandDecision) -> bool {
    matches!(one.outcome, CommandOutcome::Done { .. })
}

/// What came of the commands of a comment. They are carried out when the event is decided first;
/// later decisions about it hold none.
async fn commands_of(
    core: &Core,
    tenant: &Tenant,
    event: &EventKey,
) -> Result<Vec<CommandDecision>> {
    let query = DecisionQuery::of(tenant.clone())
        .event(Some(event.clone()))
        .page(PageRequest { limit: DECISIONS, after: None });
    let batches = core.store.decisions(query).await?.items;
    Ok(batches
        .into_iter()
        .map(|batch| batch.commands)
        .find(|some| !some.is_empty())
        .unwrap_or_default())
}

async fn connect(
    core: &Core,
    tenant: &Tenant,
    repo: &RepoRef,
) -> Result<std::sync::Arc<dyn RepoConnection>> {
    let connection = core.connections.repository(tenant, &repo.connection, &repo.name);
    core.call("connect to the repository", connection).await
}

fn commenter(connection: &dyn RepoConnection) -> Result<&dyn crate::repo::Commenter> {
    connection.commenter().ok_or_else(|| {
        Error::unsupported("answer a command", "the connection writes no comments")
            .with("repository", &connection.repo().name)
    })
}

/// Decides whether an answer that could not be given is tried again. Nobody waits for it as for a
/// status, so that what cannot be answered is left.
fn settle<T>(
    core: &Core,
    claim: &Claim,
    what: &'static str,
    outcome: Result<T>,
) -> Result<Option<T>> {
    let error = match outcome {
        Ok(given) => {
            core.metrics.answer(what, "given");
            return Ok(Some(given));
        }
        Err(error) => error,
    };
    let tried = backoff::tried_for(claim, error.kind(), core.clock.now());
    let may_pass = error.kind().is_retryable() || error.kind() == ErrorKind::Denied;
    if may_pass && tried <= core.options.notification_max_age {
        return Err(match error.kind() {
            ErrorKind::Denied => {
                Error::transient("answer a command", error.to_string()).caused_by(error)
            }
            _ => error,
        });
    }
    tracing::warn!(%error, what, "a command is not answered");
    core.metrics.answer(what, "given_up");
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays_text_in_the_table() {
        let decided = |command: &str, outcome| CommandDecision {
            command: command.to_owned(),
            by: Some("mal|lory".into()),
            outcome,
        };
        let body = table(&[
            decided("/test a|b", CommandOutcome::Denied { rule: "only `writers`\n@all".into() }),
            decided("/retest", CommandOutcome::Done { effect: "x".repeat(5_000) }),
        ]);
        let rows: Vec<&str> = body.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows[2], "| `/test a¦b` | `mal¦lory` | **denied**: ``only `writers` @all`` |");
        assert!(rows[3].len() < OUTCOME + 50 && rows[3].ends_with("…` |"), "{}", rows[3]);
    }
}
