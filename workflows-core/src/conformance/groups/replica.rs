//! One of the engines: it goes on from one call of the ledger to the next when it is told to.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::{
    Error, Result,
    conformance::{StoreCall, StoreTap},
    engine::Engine,
    store::Stage,
};

/// The gate before every call of the ledger.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Passing>);

#[derive(Debug, Default)]
struct Passing {
    waits: bool,
    may_pass: bool,
    loses_answer: bool,
    committed: bool,
}

impl Gate {
    fn passing(&self) -> MutexGuard<'_, Passing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StoreTap for Gate {
    async fn before(&self, _call: StoreCall) -> Result<()> {
        self.passing().waits = true;
        // Nobody has to be woken: who opens the gate polls.
        poll_fn(|_| {
            let mut passing = self.passing();
            if !std::mem::take(&mut passing.may_pass) {
                return Poll::Pending;
            }
            passing.waits = false;
            Poll::Ready(())
        })
        .await;
        Ok(())
    }

    async fn after(&self, call: StoreCall) -> Result<()> {
        let mut passing = self.passing();
        passing.committed |= call == StoreCall::Commit;
        if call.writes() && std::mem::take(&mut passing.loses_answer) {
            return Err(Error::transient("use the ledger", "the answer was lost"));
        }
        Ok(())
    }
}

/// What an engine is doing.
struct Step {
    work: BoxFuture<'static, Result<usize>>,
    stage: Stage,
    /// Which commit was the last one when it began.
    since: usize,
    /// The latest that the clock showed since it began.
    latest: Timestamp,
}

/// An engine that shares the ledger with others.
pub(super) struct Replica {
    engine: Engine,
    gate: Arc<Gate>,
    step: Option<Step>,
}

/// What a commit was made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) stage: Stage,
    /// Which commit was the last one when the stage began.
    pub(super) since: usize,
    /// The latest that the clock showed since then.
    pub(super) latest: Timestamp,
}

impl Replica {
    pub(super) fn new(engine: Engine, gate: Arc<Gate>) -> Self {
        Self { engine, gate, step: None }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.step.is_some()
    }

    /// Begins the work of a stage. Nothing has been read then.
    pub(super) fn begin(&mut self, stage: Stage, since: usize, now: Timestamp) {
        let engine = self.engine.clone();
        *self.gate.passing() = Passing::default();
        let work = Box::pin(async move { engine.step(stage).await });
        self.step = Some(Step { work, stage, since, latest: now });
    }

    pub(super) fn clock_moved(&mut self, now: Timestamp) {
        if let Some(step) = &mut self.step {
            step.latest = step.latest.max(now);
        }
    }

    /// Goes on to the next call of the ledger. Says what it did when it committed something in
    /// doing so.
    pub(super) async fn go_on(&mut self, loses_answer: bool) -> Result<Option<Made>> {
        let Some(step) = &mut self.step else { return Ok(None) };
        let made = Made { stage: step.stage, since: step.since, latest: step.latest };
        let gate = Arc::clone(&self.gate);
        // The first time it has not reached the gate yet.
        let mut first = !gate.passing().waits;
        if !first {
            let mut passing = gate.passing();
            passing.may_pass = true;
            passing.loses_answer = loses_answer;
        }
        let done = poll_fn(|context| {
            loop {
                let polled = step.work.as_mut().poll(context);
                if let Poll::Ready(result) = polled {
                    return Poll::Ready(Some(result));
                }
                let mut passing = gate.passing();
                if !passing.waits {
                    return Poll::Pending;
                }
                if !first {
                    return Poll::Ready(None);
                }
                first = false;
                passing.may_pass = true;
                passing.loses_answer = loses_answer;
            }
        })
        .await;
        let committed = std::mem::take(&mut gate.passing().committed);
        match done {
            // Work that could not even be claimed is claimed the next time.
            Some(Err(error)) if !error.kind().is_retryable() => return Err(error),
            Some(_) => self.step = None,
            None => {}
        }
        Ok(committed.then_some(made))
    }

    /// The process dies, and another takes its place.
    pub(super) fn die(&mut self) {
        self.step = None;
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("busy", &self.is_busy()).finish_non_exhaustive()
    }
}
