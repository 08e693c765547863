//! What the engine measures, through the [`metrics`](https://docs.rs/metrics) facade: an embedding
//! program installs whatever recorder it likes, and without one nothing is kept.
//!
//! | name | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `workflows_stage_total` | counter | `stage`, `outcome` | pieces of work handled; `outcome` is `ok`, the kind of the error, `panicked` or `lease_lost` |
//! | `workflows_stage_seconds` | histogram | `stage` | how long one piece of work took, on the engine's clock |
//! | `workflows_stage_backlog` | gauge | `stage` | pieces of work that are due and not taken, each time retention is looked after |
//! | `workflows_runs_ended_total` | counter | `workflow`, `state` | runs that reached their end |
//! | `workflows_run_seconds` | histogram | `workflow`, `state` | from start to end, of runs that started |
//! | `workflows_event_to_run_seconds` | histogram | `workflow` | from the intake of the event to the answer of the sink, of first attempts that were not queued |
//! | `workflows_notifications_total` | counter | `notifier`, `outcome` | deliveries tried; `outcome` is `delivered`, `retried` or `dead` |
//! | `workflows_statuses_total` | counter | `outcome` | statuses driven; `outcome` is `shown`, `kept` or `given_up` |
//! | `workflows_answers_total` | counter | `what`, `outcome` | commands answered; `what` is `reaction` or `comment`, `outcome` is `given` or `given_up` |
//! | `workflows_pruned_total` | counter | `what` | rows that retention removed |
//!
//! Names of workflows come from documents that anybody may write: the first 500 become labels, the
//! others are counted as `other`.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::SignedDuration;
use metrics::{counter, gauge, histogram};

use crate::{
    ErrorKind, Run,
    store::{Backlog, Pruned, Stage},
};

const WORKFLOW_LABELS: usize = 500;

/// The engine's measurements.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    workflows: Mutex<HashSet<Arc<str>>>,
}

impl Metrics {
    fn workflow(&self, run: &Run) -> Arc<str> {
        let mut known = self.workflows.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &run.workflow.name;
        if !known.contains(name) {
            if known.len() >= WORKFLOW_LABELS {
                return "other".into();
            }
            known.insert(Arc::clone(name));
        }
        Arc::clone(name)
    }

    pub(crate) fn handled(&self, stage: Stage, outcome: &'static str, took: SignedDuration) {
        counter!("workflows_stage_total", "stage" => stage.as_str(), "outcome" => outcome)
            .increment(1);
        histogram!("workflows_stage_seconds", "stage" => stage.as_str()).record(took.as_secs_f64());
    }

    pub(crate) fn backlog(&self, backlog: &Backlog) {
        gauge!("workflows_stage_backlog", "stage" => backlog.stage.as_str())
            .set(backlog.due as f64);
    }

    pub(crate) fn run_ended(&self, run: &Run) {
        let (workflow, state) = (self.workflow(run), run.state.as_str());
        counter!("workflows_runs_ended_total", "workflow" => workflow.to_string(), "state" => state)
            .increment(1);
        if let (Some(started), Some(finished)) = (run.started_at, run.finished_at) {
            let took = finished.duration_since(started).as_secs_f64();
            histogram!("workflows_run_seconds", "workflow" => workflow.to_string(), "state" => state)
                .record(took);
        }
    }

    pub(crate) fn run_created(&self, run: &Run, since_event: SignedDuration) {
        let workflow = self.workflow(run).to_string();
        histogram!("workflows_event_to_run_seconds", "workflow" => workflow)
            .record(since_event.as_secs_f64());
    }

    pub(crate) fn notification(&self, notifier: &crate::NotifierName, outcome: &'static str) {
        let notifier = notifier.to_string();
        counter!("workflows_notifications_total", "notifier" => notifier, "outcome" => outcome)
            .increment(1);
    }

    pub(crate) fn status(&self, outcome: &'static str) {
        counter!("workflows_statuses_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn answer(&self, what: &'static str, outcome: &'static str) {
        counter!("workflows_answers_total", "what" => what, "outcome" => outcome).increment(1);
    }

    pub(crate) fn pruned(&self, pruned: &Pruned) {
        for (what, rows) in
            [("payloads", pruned.payloads), ("events", pruned.events), ("runs", pruned.runs)]
        {
            counter!("workflows_pruned_total", "what" => what).increment(rows);
        }
    }
}

/// The word for an error's kind in labels.
pub(crate) fn error_label(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not_found",
        ErrorKind::Denied => "denied",
        ErrorKind::RateLimited { .. } => "rate_limited",
        ErrorKind::Transient => "transient",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Conflict => "conflict",
    }
}
