//! Commands: the platform's own in comments (`/test`, `/retest`, `/ok-to-test`, `/cancel`), and
//! those of programs ([`Command`]).

mod again;
mod ending;

use std::sync::Arc;

use jiff::SignedDuration;

use self::again::Latest;
use super::{
    answers,
    command::{Command, RerunOf},
    core::Core,
    gate::{self, Gate},
    matcher::AttemptRequest,
    scheduler,
    transition::follow,
};
use crate::{
    Approval, AttemptId, CommitId, DeliveryKey, Event, EventKey, EventKind, Result, Run, RunKey,
    event::{PullRequest, SubjectKey, recorded_head},
    matching::{PlatformCommand, commands},
    policy::{FactsOrigin, Request, Verdict},
    store::{
        CommandDecision, CommandOutcome, DecisionQuery, DeliveryQuery, Effects, EventQuery,
        NewWork, NotificationState, Outcome, PageRequest, RunQuery, Stage, WorkKey,
    },
};

/// Carries out the commands of an event: adds to `effects` what they do, and that the author of a
/// comment is told. Returns what came of each.
pub(crate) async fn execute(
    core: &Core,
    event: &Event,
    effects: &mut Effects,
) -> Result<Vec<CommandDecision>> {
    if event.kind == EventKind::COMMAND {
        return execute_command(core, event, effects).await;
    }
    let Some(comment) = &event.comment else { return Ok(Vec::new()) };
    let Some(pull_request) = &event.pull_request else { return Ok(Vec::new()) };
    let mut said = Vec::new();
    for command in commands(&comment.body) {
        let Some(parsed) = PlatformCommand::parse(&command) else { continue };
        let (text, outcome) = match parsed {
            Err(error) => {
                let error = error.to_string();
                (command.name.to_string(), CommandOutcome::Failed { error })
            }
            Ok(parsed) => {
                let author = FactsOrigin::Comment { author: Arc::clone(&comment.author) };
                let given = Given {
                    core,
                    event,
                    attempt: AttemptId::new(format!("{}/{}", comment.id, command.index)),
                    by: Arc::clone(&comment.author),
                };
                let outcome = given.in_comment(&parsed, author, pull_request, effects).await?;
                (parsed.to_string(), outcome)
            }
        };
        said.push(CommandDecision {
            command: text,
            by: Some(Arc::clone(&comment.author)),
            outcome,
        });
    }
    if !said.is_empty() {
        answers::promise(event, pull_request.number, effects);
    }
    Ok(said)
}

async fn execute_command(
    core: &Core,
    event: &Event,
    effects: &mut Effects,
) -> Result<Vec<CommandDecision>> {
    let by = event.sender.clone();
    let command = match Command::of_event(event) {
        Ok(command) => command,
        Err(error) => {
            let outcome = CommandOutcome::Failed { error: error.to_string() };
            return Ok(vec![CommandDecision { command: "unknown".to_owned(), by, outcome }]);
        }
    };
    let id = event.subject.as_str().strip_prefix("command/").unwrap_or(event.subject.as_str());
    let given = Given {
        core,
        event,
        attempt: AttemptId::new(id),
        by: by.clone().unwrap_or_else(|| event.source.as_str().into()),
    };
    let name = command.name().to_owned();
    let outcome = given.by_program(command, effects).await?;
    Ok(vec![CommandDecision { command: name, by, outcome }])
}

/// A command that somebody gave.
struct Given<'a> {
    core: &'a Core,
    event: &'a Event,
    /// The id of the attempts that it asks for.
    attempt: AttemptId,
    by: Arc<str>,
}

/// The most pages of the ledger that one command reads.
const PAGES: usize = 20;
const PAGE: u32 = 200;

impl Given<'_> {
    async fn in_comment(
        &self,
        command: &PlatformCommand,
        author: FactsOrigin,
        pull_request: &PullRequest,
        effects: &mut Effects,
    ) -> Result<CommandOutcome> {
        let request = match command {
            PlatformCommand::OkToTest { .. } => Request::Approve,
            PlatformCommand::Cancel { .. } => Request::Cancel,
            _ => Request::Rerun,
        };
        if let Some(denied) = self.denied(request, author).await? {
            return Ok(denied);
        }
        let head = &pull_request.head.sha;
        match command {
            PlatformCommand::OkToTest { head: Some(seen) } if !head.as_str().starts_with(seen) => {
                Ok(CommandOutcome::Failed {
                    error: format!(
                        "the head of pull request {} is {head}, not {seen}; look at it and approve \
                         it by that id",
                        pull_request.number
                    ),
                })
            }
            PlatformCommand::OkToTest { head: seen } => {
                let names_it = seen.as_deref() == Some(head.as_str());
                if !names_it && !self.knew_head(pull_request.number, head).await? {
                    return Ok(CommandOutcome::Failed {
                        error: format!(
                            "the head of pull request {} is {head}, which was not known here when \
                             the comment was written; look at that commit and approve it by its \
                             whole id: /ok-to-test {head}",
                            pull_request.number
                        ),
                    });
                }
                self.approve(pull_request.number, head, effects).await
            }
            PlatformCommand::Test { workflow } => {
                self.test(pull_request, workflow.as_deref(), effects).await
            }
            PlatformCommand::Retest { workflow } => {
                let query = RunQuery::of(self.event.tenant.clone())
                    .repo(Some(self.event.repo.id.clone()))
                    .pull_request(Some(pull_request.number))
                    .commit(Some(head.clone()));
                let events = self.events_at(pull_request.number, head).await?;
                let workflow = workflow.as_deref();
                self.retest(Latest::Unsuccessful, query, &events, workflow, effects).await
            }
            PlatformCommand::Cancel { workflow } => {
                self.cancel_all(pull_request.number, workflow.as_deref(), effects).await
            }
        }
    }

    async fn by_program(&self, command: Command, effects: &mut Effects) -> Result<CommandOutcome> {
        let origin = gate::sender_origin(self.event);
        let program = matches!(origin, FactsOrigin::Caller { .. });
        let command = match command {
            Command::Adopt { run } if program => return self.adopt(*run, effects).await,
            other => other,
        };
        let request = match &command {
            Command::Approve { .. } => Request::Approve,
            Command::Rerun { .. } => Request::Rerun,
            _ => Request::Cancel,
        };
        if let Some(denied) = self.denied(request, origin).await? {
            return Ok(denied);
        }
        // What a host sends is about its own repository.
        let for_hosts = matches!(
            command,
            Command::Cancel { .. } | Command::Approve { .. } | Command::Rerun { .. }
        );
        if !program && !for_hosts {
            let rule = "only the embedding program may give this command".to_owned();
            return Ok(CommandOutcome::Denied { rule });
        }
        let tenant = &self.event.tenant;
        match command {
            Command::Cancel { run, mode } => {
                let Some(run) = self.run(&run, program).await? else { return Ok(no_run(&run)) };
                if run.state.is_terminal() {
                    return Ok(done(format!("run {} had ended: {}", run.name, run.state)));
                }
                let effect = format!("run {} was told to end", run.name);
                self.cancel(&run, mode, effects).await?;
                Ok(done(effect))
            }
            Command::Approve { pull_request, head } => {
                self.approve(pull_request, &head, effects).await
            }
            Command::Rerun { of: RerunOf::Run { run } } => {
                let Some(run) = self.run(&run, program).await? else { return Ok(no_run(&run)) };
                Ok(self.run_again(&run, effects))
            }
            Command::Rerun { of: RerunOf::Shown { external_id, commit } } => {
                let key = RunKey::from(external_id.to_string());
                if let Some(run) = self.run(&key, program).await? {
                    return Ok(self.run_again(&run, effects));
                }
                let (runs, events) = self.of_commit(&commit).await?;
                self.retest(Latest::Unsuccessful, runs, &events, None, effects).await
            }
            Command::Rerun { of: RerunOf::Event { event } } => {
                let known = self.core.store.event(tenant, &event).await?;
                match known.filter(|known| program || known.repo.id == self.event.repo.id) {
                    Some(_) => {
                        self.again(&event, None, effects);
                        Ok(done(format!("event {event} is decided again")))
                    }
                    None => Ok(CommandOutcome::Failed {
                        error: format!("event {event} is not in the ledger"),
                    }),
                }
            }
            Command::Rerun { of: RerunOf::Unsuccessful { commit } } => {
                let (runs, events) = self.of_commit(&commit).await?;
                self.retest(Latest::Unsuccessful, runs, &events, None, effects).await
            }
            Command::Rerun { of: RerunOf::All { commit } } => {
                let (runs, events) = self.of_commit(&commit).await?;
                self.retest(Latest::Ended, runs, &events, None, effects).await
            }
            Command::Hold { workflow, reason } => {
                let now = self.core.clock.now();
                let store = &*self.core.store;
                let held =
                    scheduler::hold(store, tenant, &workflow, &self.by, &reason, now).await?;
                join(effects, held);
                Ok(done(format!("workflow {workflow} is held")))
            }
            Command::Unhold { workflow } => {
                let released = scheduler::unhold(&*self.core.store, tenant, &workflow).await?;
                join(effects, released);
                Ok(done(format!("workflow {workflow} is released")))
            }
            Command::ClearQueue { group } => self.clear_queue(&group, effects).await,
            Command::Resend { delivery } => self.resend(&delivery, effects).await,
            // The embedding program's were carried out above, and others may not.
            Command::Adopt { run } => Ok(no_run(&run.key)),
        }
    }

    /// Writes a run down that is under way, and has it looked at. It was allowed when it was created.
    async fn adopt(&self, mut run: Run, effects: &mut Effects) -> Result<CommandOutcome> {
        if self.run(&run.key, true).await?.is_some() {
            return Ok(done(format!("run {} was known", run.name)));
        }
        run.order = self.event.sequence;
        follow(self.core, None, &run, effects).await?;
        let key = WorkKey::run(run.key.clone());
        effects.work.push(NewWork::now(run.tenant.clone(), Stage::Observe, key));
        let effect = format!("run {} is known again", run.name);
        effects.runs.push(run);
        Ok(done(effect))
    }

    /// What the policy says when it does not allow a command.
    async fn denied(
        &self,
        request: Request,
        origin: FactsOrigin,
    ) -> Result<Option<CommandOutcome>> {
        let gate = Gate::new(self.core, self.event);
        Ok(match gate.judge(request, origin).await?.verdict {
            Verdict::Allow => None,
            Verdict::Deny { rule } => Some(CommandOutcome::Denied { rule }),
            Verdict::Wait { approvers } => {
                let rule = format!("it would have to be approved by {approvers}");
                Some(CommandOutcome::Denied { rule })
            }
        })
    }

    /// A run, of the event's repository unless a program asks.
    async fn run(&self, key: &RunKey, program: bool) -> Result<Option<Run>> {
        let run = self.core.store.run(&self.event.tenant, key).await?;
        Ok(run.filter(|run| program || run.repo.id == self.event.repo.id))
    }

    // --- approval ------------------------------------------------------------------------------

    /// Whether the ledger had this head of a pull request before the comment was written. What was
    /// pushed since was not looked at by who wrote it.
    async fn knew_head(&self, number: u64, head: &CommitId) -> Result<bool> {
        let Event { tenant, repo, occurred_at, received_at, .. } = self.event;
        // Of what was taken in together it is not known which came first.
        let before = received_at.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(*received_at);
        let until = before.min(*occurred_at);
        let subject = SubjectKey::pull_request(number);
        let arrivals = self.core.store.arrivals(tenant, &repo.id, &subject, until, 1).await?;
        Ok(arrivals.first().and_then(|last| recorded_head(&last.state)) == Some(head.as_str()))
    }

    /// Stores the approval of a head, and has what waited for it decided again.
    async fn approve(
        &self,
        number: u64,
        head: &CommitId,
        effects: &mut Effects,
    ) -> Result<CommandOutcome> {
        effects.approvals.push(Approval {
            tenant: self.event.tenant.clone(),
            repo: self.event.repo.clone(),
            subject: SubjectKey::pull_request(number),
            head: head.clone(),
            by: Arc::clone(&self.by),
            at: self.core.clock.now(),
        });
        let mut waiting = 0;
        for event in self.events_at(number, head).await? {
            if self.waits(&event.key).await? {
                waiting += 1;
                effects.work.push(decide_again(&event, &self.by));
            }
        }
        Ok(done(format!("commit {head} is approved; {waiting} events that waited are decided")))
    }

    /// Whether something waited for an approval when an event was last decided.
    async fn waits(&self, event: &EventKey) -> Result<bool> {
        let query = DecisionQuery::of(self.event.tenant.clone())
            .event(Some(event.clone()))
            .attempt(Some(AttemptId::first()))
            .page(PageRequest { limit: 1, after: None });
        let batches = self.core.store.decisions(query).await?.items;
        let mut decisions = batches.iter().flat_map(|batch| &batch.decisions);
        Ok(decisions.any(|one| matches!(one.outcome, Outcome::Waiting { .. })))
    }

    // --- notifications -------------------------------------------------------------------------

    async fn resend(&self, key: &DeliveryKey, effects: &mut Effects) -> Result<CommandOutcome> {
        let mut page = PageRequest { limit: PAGE, after: None };
        for _ in 0..PAGES {
            let query = DeliveryQuery::of(self.event.tenant.clone())
                .state(Some(NotificationState::Dead))
                .page(page);
            let found = self.core.store.notifications(query).await?;
            if let Some(dead) = found.items.into_iter().find(|one| one.key == *key) {
                let mut again = dead;
                again.state = NotificationState::Pending;
                again.attempts = 0;
                again.created_at = self.core.clock.now();
                let work =
                    WorkKey::Outbox { run: again.run.clone(), notifier: again.notifier.clone() };
                effects.work.push(NewWork::now(again.tenant.clone(), Stage::Notify, work));
                let effect = format!("notification {key} is delivered again");
                effects.delivered.push(again);
                return Ok(done(effect));
            }
            match found.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        Ok(CommandOutcome::Failed { error: format!("{key} is no notification that was given up") })
    }

    // --- reading the ledger --------------------------------------------------------------------

    /// The events about a pull request at a head, newest first, commands to the engine left out.
    async fn events_at(&self, number: u64, head: &CommitId) -> Result<Vec<Event>> {
        let about = EventQuery::of(self.event.tenant.clone())
            .repo(Some(self.event.repo.id.clone()))
            .pull_request(Some(number))
            .commit(Some(head.clone()));
        self.events(about).await
    }

    async fn events(&self, mut query: EventQuery) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        query.page.limit = PAGE;
        for _ in 0..PAGES {
            let found = self.core.store.events(query.clone()).await?;
            events.extend(found.items.into_iter().filter(|one| one.key != self.event.key));
            match found.next {
                Some(next) => query.page.after = Some(next),
                None => break,
            }
        }
        Ok(events)
    }

    async fn runs(&self, mut query: RunQuery) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        query.page.limit = PAGE;
        for _ in 0..PAGES {
            let found = self.core.store.runs(query.clone()).await?;
            runs.extend(found.items);
            match found.next {
                Some(next) => query.page.after = Some(next),
                None => break,
            }
        }
        Ok(runs)
    }
}

/// Work to decide an event anew in its first attempt, because `by` approved what it waited for. Its
/// commands are not carried out again.
pub(crate) fn decide_again(event: &Event, by: &Arc<str>) -> NewWork {
    let request = AttemptRequest { order: event.sequence, by: Some(Arc::clone(by)), only: None };
    let key = WorkKey::Event { event: event.key.clone(), attempt: AttemptId::first() };
    NewWork::now(event.tenant.clone(), Stage::Match, key).with_detail(request.detail())
}

fn done(effect: String) -> CommandOutcome {
    CommandOutcome::Done { effect }
}

fn no_run(key: &RunKey) -> CommandOutcome {
    CommandOutcome::Failed { error: format!("run {key} is not in the ledger") }
}

/// Adds what one part of a command does to the rest.
fn join(effects: &mut Effects, more: Effects) {
    effects.cursors.extend(more.cursors);
    effects.work.extend(more.work);
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Approve { .. } => "approve",
            Self::Rerun { .. } => "rerun",
            Self::Hold { .. } => "hold",
            Self::Unhold { .. } => "unhold",
            Self::ClearQueue { .. } => "clear_queue",
            Self::Resend { .. } => "resend",
            Self::Adopt { .. } => "adopt",
        }
    }
}
