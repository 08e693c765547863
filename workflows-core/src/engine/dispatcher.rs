//! Creating runs in their sinks, and telling them to end.
//!
//! Every call here may be repeated: by the next claim after a crash, after a lost answer, or by
//! another process that holds the claim now. `ensure` is create-or-get by the run's key, a cancel of
//! what has ended or is not known is success, and what was committed is never undone.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{backoff, core::Core, masking::fingerprints, transition::follow};
use crate::{
    CancelMode, Capability, Error, ErrorKind, NotifierName, Result, Run, RunSink, RunState,
    policy::{PlannedRun, Verdict},
    run::CancelReason,
    sink::{EnsuredRun, GivenCredential, RunRequest, SinkRun},
    source::Connections,
    store::{Claim, Committed, Effects, NewWork, RunChange, Stage, WorkKey},
};

/// How long a run's credential lives at least when its workflow sets no time limit.
const USUAL_RUN: SignedDuration = SignedDuration::from_hours(1);

/// Creates the run of a claim, or tells it to end.
pub(crate) async fn run(core: &Core, claim: &Claim) -> Result<Committed> {
    let WorkKey::Run { run: key } = &claim.work.key else {
        return core.commit(claim, Effects::default()).await;
    };
    let Some(run) = core.store.run(&claim.work.tenant, key).await? else {
        return core.commit(claim, Effects::default()).await;
    };
    match (run.state, &run.cancel) {
        (RunState::Planned | RunState::Queued, Some(_)) => end(core, claim, &run).await,
        (RunState::Admitted, Some(cancel)) => {
            let mode = cancel.mode;
            cancel_maybe_created(core, claim, &run, mode).await
        }
        (RunState::Created | RunState::Running, Some(cancel)) if !cancel.delivered => {
            deliver_cancel(core, claim, &run, cancel.mode).await
        }
        (RunState::Admitted, None) => {
            let created = create(core, claim, &run).await;
            if created.is_err() {
                end_if_ended(core, &run).await;
            }
            created
        }
        _ => core.commit(claim, Effects::default()).await,
    }
}

/// Tells a run to end that this process may have created when it had ended already: a process that
/// stood still for longer than its lease finds its claim given away, and its request may have gone
/// out all the same.
async fn end_if_ended(core: &Core, run: &Run) {
    let told = async {
        let now = core.store.run(&run.tenant, &run.key).await?;
        if !now.is_none_or(|now| now.state.is_terminal()) {
            return Ok(());
        }
        let run_there = sink_run(run);
        let cancel = sink(core, run)?.cancel(&run_there, CancelMode::AtOnce);
        core.call("cancel a run that has ended", cancel).await
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, run = %run.key, "it may have been created after it had ended");
    }
}

/// A run as its sink knows it.
pub(crate) fn sink_run(run: &Run) -> SinkRun {
    SinkRun {
        key: run.key.clone(),
        tenant: run.tenant.clone(),
        name: run.name.clone(),
        handle: run.handle.clone(),
    }
}

/// How a run that shall end is called once it has, and why, for people.
pub(crate) fn called_off(run: &Run) -> (RunState, String) {
    match run.cancel.as_ref().map(|cancel| &cancel.reason) {
        Some(CancelReason::SupersededBy(newer)) => {
            (RunState::Superseded, format!("run {} took its place", newer.short()))
        }
        Some(CancelReason::Requested { by }) => (RunState::Cancelled, format!("cancelled by {by}")),
        None => (RunState::Cancelled, "it was stopped where it executed".to_owned()),
    }
}

/// Ends a run that the sink has never seen.
async fn end(core: &Core, claim: &Claim, run: &Run) -> Result<Committed> {
    let (state, message) = called_off(run);
    finish(core, claim, run, state, message).await
}

async fn finish(
    core: &Core,
    claim: &Claim,
    run: &Run,
    state: RunState,
    message: String,
) -> Result<Committed> {
    let mut after = run.clone();
    after.state = state;
    after.message = message;
    after.finished_at = Some(core.clock.now());
    commit_change(core, claim, run, after, Vec::new()).await
}

async fn commit_change(
    core: &Core,
    claim: &Claim,
    before: &Run,
    after: Run,
    work: Vec<NewWork>,
) -> Result<Committed> {
    let mut effects = Effects { work, claim_next: Some(core.options.lease), ..Effects::default() };
    follow(core, Some(before), &after, &mut effects).await?;
    effects.changes.push(RunChange { run: after });
    core.commit(claim, effects).await
}

fn observe(run: &Run) -> NewWork {
    NewWork::now(run.tenant.clone(), Stage::Observe, WorkKey::run(run.key.clone()))
}

fn sink<'a>(core: &'a Core, run: &Run) -> Result<&'a dyn RunSink> {
    core.sinks.get(&run.sink).map(|sink| &**sink).ok_or_else(|| {
        let known: Vec<&str> = core.sinks.keys().map(crate::SinkName::as_str).collect();
        Error::not_found("find the run's sink", "the engine has no sink of that name")
            .with("sink", &run.sink)
            .with("known", known.join(", "))
    })
}

/// Makes sure that this process still holds the claim, and bounds a call by what remains of it, so
/// that it cannot reach the sink after somebody else has decided otherwise.
async fn while_leased<T>(
    core: &Core,
    claim: &Claim,
    operation: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let lease = core.store.extend(&claim.lease, core.options.lease).await?;
    let left = lease.until.duration_since(core.clock.now());
    let limit = left.clamp(SignedDuration::ZERO, core.options.call_timeout);
    tokio::time::timeout(limit.unsigned_abs(), call).await.unwrap_or_else(|_| {
        Err(Error::transient(operation, "there was no answer in time").with("limit", limit))
    })
}

/// Tells a run that exists to end. The observer sees when it has.
async fn deliver_cancel(
    core: &Core,
    claim: &Claim,
    run: &Run,
    mode: CancelMode,
) -> Result<Committed> {
    let mut after = run.clone();
    if let Err(error) = cancel(core, claim, run, mode).await {
        if !never_cancels(core, claim, &error) {
            return Err(again_later(error));
        }
        after.message = format!("it cannot be told to end: {error}");
    }
    if let Some(cancel) = &mut after.cancel {
        cancel.delivered = true;
    }
    commit_change(core, claim, run, after, vec![observe(run)]).await
}

/// Ends a run that was to be created: whether an earlier claim created it is not known, so its sink
/// is told to end it. When the sink has it, its end is waited for.
async fn cancel_maybe_created(
    core: &Core,
    claim: &Claim,
    run: &Run,
    mode: CancelMode,
) -> Result<Committed> {
    if !core.sinks.contains_key(&run.sink) {
        return end(core, claim, run).await;
    }
    if let Err(error) = cancel(core, claim, run, mode).await
        && !never_cancels(core, claim, &error)
    {
        return Err(again_later(error));
    }
    match core.call("read a run's state", sink(core, run)?.state(&sink_run(run))).await {
        Err(error) if error.kind() == ErrorKind::NotFound => end(core, claim, run).await,
        Err(error) => Err(again_later(error)),
        Ok(_) => {
            let mut after = run.clone();
            after.state = RunState::Created;
            if let Some(cancel) = &mut after.cancel {
                cancel.delivered = true;
            }
            commit_change(core, claim, run, after, vec![observe(run)]).await
        }
    }
}

async fn cancel(core: &Core, claim: &Claim, run: &Run, mode: CancelMode) -> Result<()> {
    let run_there = sink_run(run);
    let call = sink(core, run)?.cancel(&run_there, mode);
    while_leased(core, claim, "cancel a run", call).await
}

/// Whether it is no use to tell a run to end once more.
fn never_cancels(core: &Core, claim: &Claim, error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::Unsupported => true,
        ErrorKind::Denied | ErrorKind::NotFound => is_given_up(core, claim),
        _ => false,
    }
}

fn is_given_up(core: &Core, claim: &Claim) -> bool {
    let tried = backoff::tried_for(claim, ErrorKind::Transient, core.clock.now());
    tried > core.options.give_up_dispatch_after
}

/// Something is wrong outside that somebody may mend: tried again, as a fault that passes.
fn again_later(error: Error) -> Error {
    if error.kind().is_retryable() {
        return error;
    }
    Error::transient("dispatch a run", error.to_string()).caused_by(error)
}

async fn create(core: &Core, claim: &Claim, run: &Run) -> Result<Committed> {
    if let Some(refusal) = refusal(core, run).await? {
        return refuse(core, claim, run, refusal).await;
    }
    let given_up = claim.last_error.as_ref().filter(|_| is_given_up(core, claim));
    if let Some(error) = given_up {
        return refuse(core, claim, run, format!("it could not be created: {error}")).await;
    }
    if !core.sinks.contains_key(&run.sink) {
        let error = sink(core, run).err().map(|error| error.to_string()).unwrap_or_default();
        return refuse(core, claim, run, error).await;
    }
    end_replaced(core, claim, run).await?;
    let mut with_secrets = run.clone();
    let given = credential(core, run).await?;
    if let Some(given) = &given {
        with_secrets.secrets = fingerprints(&given.credential);
        with_secrets.credential_until = given.credential.expires_at;
    }
    match ensure(core, claim, run, given).await {
        Ok(ensured) => created(core, claim, run, with_secrets, ensured).await,
        Err(error) => match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::NotFound => {
                let message = format!("{} refused it: {error}", run.sink);
                finish(core, claim, run, RunState::Refused, message).await
            }
            _ => Err(again_later(error)),
        },
    }
}

async fn ensure(
    core: &Core,
    claim: &Claim,
    run: &Run,
    credential: Option<GivenCredential>,
) -> Result<EnsuredRun> {
    let (credential, clone_url) = credential.map(|one| (one.credential, one.clone_url)).unzip();
    let request = RunRequest {
        key: run.key.clone(),
        tenant: run.tenant.clone(),
        name: run.name.clone(),
        pipeline_run: run.pipeline_run.clone(),
        credential,
        clone_url,
    };
    while_leased(core, claim, "create a run", sink(core, run)?.ensure(&request)).await
}

async fn created(
    core: &Core,
    claim: &Claim,
    run: &Run,
    mut after: Run,
    ensured: EnsuredRun,
) -> Result<Committed> {
    after.state = RunState::Created;
    after.message = String::new();
    after.handle = Some(ensured.handle);
    after.link = ensured.link;
    let committed = commit_change(core, claim, run, after, vec![observe(run)]).await?;
    tracing::info!(created = ensured.created, name = %run.name, "the run is with its sink");
    if ensured.created && run.attempt.is_first() && run.groups.is_empty() {
        // It is measured only; when the event is gone there is nothing to measure.
        if let Ok(Some(event)) = core.store.event(&run.tenant, &run.event).await {
            let since_event = core.clock.now().duration_since(event.received_at);
            core.metrics.run_created(run, since_event);
        }
    }
    Ok(committed)
}

/// Asks the policy again. What was allowed when the run was planned may have been revoked since.
async fn refusal(core: &Core, run: &Run) -> Result<Option<String>> {
    let may_start = may_start(core, run).await;
    let notifiers = run.asked_notifiers.iter().map(NotifierName::as_str).collect();
    let metadata = metadata(run);
    let planned = PlannedRun::new(
        &run.tenant,
        &run.repo,
        &run.workflow,
        run.workflow.repo.is_some(),
        &run.pipeline_run,
        run.sink.as_str(),
        notifiers,
        &metadata,
    );
    let may_have = match may_start {
        Ok(Verdict::Allow) => core.call("ask the policy", core.policy.judge(&planned)).await,
        other => other,
    };
    match may_have {
        Ok(Verdict::Allow) => Ok(None),
        Ok(Verdict::Deny { rule }) => Ok(Some(format!("the policy refused it: {rule}"))),
        Ok(Verdict::Wait { approvers }) => {
            Ok(Some(format!("the policy wants an approval that it has not: {approvers}")))
        }
        Err(error) if error.kind().is_retryable() => Err(error),
        Err(error) => Ok(Some(format!("the policy gave no answer: {error}"))),
    }
}

/// Everybody who caused the run must be allowed to. Facts of nobody are not trusted.
async fn may_start(core: &Core, run: &Run) -> Result<Verdict> {
    let mut verdict = Verdict::Deny { rule: "nothing is known about who caused it".to_owned() };
    for facts in &run.facts {
        verdict = core.call("ask the policy", core.policy.decide(facts)).await?;
        if verdict != Verdict::Allow {
            break;
        }
    }
    Ok(verdict)
}

/// Labels and annotations of the PipelineRun, among which are those of the workflow.
fn metadata(run: &Run) -> BTreeMap<String, String> {
    let metadata = &run.pipeline_run["metadata"];
    ["labels", "annotations"]
        .into_iter()
        .filter_map(|kind| metadata[kind].as_object())
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Refuses a run that an earlier claim may have created all the same: it is told to end first.
async fn refuse(core: &Core, claim: &Claim, run: &Run, message: String) -> Result<Committed> {
    let maybe_created = claim.attempts > 1 && core.sinks.contains_key(&run.sink);
    if maybe_created
        && let Err(error) = cancel(core, claim, run, CancelMode::AtOnce).await
        && !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
    {
        return Err(again_later(error));
    }
    finish(core, claim, run, RunState::Refused, message).await
}

/// Tells the runs that this one replaces to end, before it is created. Their own dispatch does so
/// too, and records it; a second time changes nothing.
async fn end_replaced(core: &Core, claim: &Claim, run: &Run) -> Result<()> {
    for key in &run.replaces {
        let Some(older) = core.store.run(&run.tenant, key).await? else { continue };
        let Some(order) = older.cancel.as_ref().filter(|cancel| !cancel.delivered) else {
            continue;
        };
        if !matches!(older.state, RunState::Admitted | RunState::Created | RunState::Running) {
            continue;
        }
        match cancel(core, claim, &older, order.mode).await {
            Ok(()) => {}
            Err(error) if error.kind().is_retryable() => return Err(error),
            // Its own dispatch records that it cannot be told; the newer run need not wait for that.
            Err(error) => tracing::warn!(%error, replaced = %older.key, "it was not told to end"),
        }
    }
    Ok(())
}

/// A credential to clone the repository with, where the connection can mint one.
pub(crate) async fn credential(core: &Core, run: &Run) -> Result<Option<GivenCredential>> {
    let mints = core
        .connections
        .get(&run.tenant, &run.repo.connection)
        .is_ok_and(|one| one.driver.capabilities().has(Capability::CloneCredentials));
    if !mints {
        return Ok(None);
    }
    let connection = core.connections.repository(&run.tenant, &run.repo.connection, &run.repo.name);
    let connection =
        core.call("connect to the repository", connection).await.map_err(again_later)?;
    let Some(credentials) = connection.clone_credentials() else { return Ok(None) };
    let limit = run.pipeline_run["spec"]["timeouts"]["pipeline"].as_str();
    let for_at_least =
        limit.and_then(|limit| crate::workflow::parse_duration(limit).ok()).unwrap_or(USUAL_RUN);
    match core.call("mint a credential", credentials.mint(for_at_least)).await {
        Ok(credential) => Ok(Some(GivenCredential::new(credential, connection.links().clone_url))),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(again_later(error)),
    }
}
