//! The PipelineRun as this sink understands it: a typed view of the document. What it does not
//! offer is refused by name, all of it at once, before anything is made.
//!
//! Fields are those of `tekton.dev/v1`:
//! <https://tekton.dev/docs/pipelines/pipeline-api/#tekton.dev/v1.PipelineRun>.

mod check;
mod document;
mod params;
mod pipeline;
mod step;
mod task;
mod workspaces;

use std::{collections::BTreeMap, path::PathBuf};

use jiff::SignedDuration;
use serde_json::Value;

use self::document::Reader;
use super::{
    graph,
    variables::{Kind, ParamValue, Template, ValueTemplate, Variable},
};
use crate::{Result, Tenant};

/// Which claims, config maps and secrets of a tenant are which directories.
pub(in crate::local) type Volumes = BTreeMap<(Tenant, VolumeKind, String), PathBuf>;

/// What a workspace of a PipelineRun can be bound to besides directories that the sink makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeKind {
    /// `persistentVolumeClaim`
    PersistentVolumeClaim,
    /// `configMap`
    ConfigMap,
    /// `secret`
    Secret,
}

#[derive(Debug)]
pub(in crate::local) struct Pipeline {
    pub(in crate::local) params: BTreeMap<String, ParamValue>,
    /// The tasks, then those of `finally`.
    pub(in crate::local) tasks: Vec<Task>,
    /// How many of them are not of `finally`.
    pub(in crate::local) finally_from: usize,
    /// What each has to wait for; empty for those of `finally`.
    pub(in crate::local) needs: Vec<graph::Needs>,
    pub(in crate::local) results: Vec<(String, ValueTemplate)>,
    pub(in crate::local) workspaces: BTreeMap<String, Option<Binding>>,
    pub(in crate::local) timeouts: SectionTimeouts,
}

/// Limits; `None` is none.
#[derive(Debug, Clone, Copy)]
pub(in crate::local) struct SectionTimeouts {
    pub(in crate::local) pipeline: Option<SignedDuration>,
    pub(in crate::local) tasks: Option<SignedDuration>,
    pub(in crate::local) finally: Option<SignedDuration>,
}

#[derive(Debug, Clone)]
pub(in crate::local) struct Binding {
    pub(in crate::local) volume: Volume,
    /// Literal, relative and without `..`.
    pub(in crate::local) sub_path: Option<String>,
}

#[derive(Debug, Clone)]
pub(in crate::local) enum Volume {
    /// A new directory for each attempt of each task, as Tekton has one for each pod.
    PerAttempt,
    /// One directory for the run.
    PerRun,
    /// A directory that is already there.
    Mapped(PathBuf),
}

#[derive(Debug)]
pub(in crate::local) struct Task {
    pub(in crate::local) name: String,
    pub(in crate::local) params: BTreeMap<String, ValueTemplate>,
    /// Values of what the pipeline does not pass.
    pub(in crate::local) defaults: BTreeMap<String, ParamValue>,
    pub(in crate::local) when: Vec<When>,
    pub(in crate::local) run_after: Vec<String>,
    pub(in crate::local) retries: u32,
    pub(in crate::local) timeout: Option<SignedDuration>,
    pub(in crate::local) workspaces: BTreeMap<String, TaskWorkspace>,
    pub(in crate::local) results: BTreeMap<String, Kind>,
    pub(in crate::local) steps: Vec<Step>,
}

#[derive(Debug)]
pub(in crate::local) struct TaskWorkspace {
    /// The pipeline's workspace; `None` when it is optional and not bound.
    pub(in crate::local) pipeline_workspace: Option<String>,
    pub(in crate::local) sub_path: Option<Template>,
    pub(in crate::local) read_only: bool,
}

#[derive(Debug)]
pub(in crate::local) struct When {
    pub(in crate::local) input: Template,
    pub(in crate::local) is_in: bool,
    pub(in crate::local) values: Vec<Template>,
}

#[derive(Debug)]
pub(in crate::local) struct Step {
    pub(in crate::local) name: String,
    pub(in crate::local) script: Option<Script>,
    pub(in crate::local) command: Vec<Template>,
    pub(in crate::local) args: Vec<Template>,
    pub(in crate::local) env: Vec<(String, Template)>,
    pub(in crate::local) working_dir: Option<Template>,
}

#[derive(Debug)]
pub(in crate::local) struct Script {
    /// The interpreter and, as the kernel splits the line, at most one argument for it.
    pub(in crate::local) interpreter: Vec<String>,
    pub(in crate::local) text: Template,
}

/// The name of the environment variable by which the processes of a step are recognised.
pub(in crate::local) const STEP_MARKER: &str = "WORKFLOWS_STEP_DIR";

/// Reads a PipelineRun.
///
/// # Errors
///
/// `Unsupported` when it uses what this sink does not offer, else `Invalid`; the message names
/// every place.
pub(in crate::local) fn read(
    pipeline_run: &Value,
    tenant: &Tenant,
    volumes: &Volumes,
    default_timeout: SignedDuration,
) -> Result<Pipeline> {
    let mut reader = Reader::new(tenant, volumes);
    match reader.pipeline_run(pipeline_run, default_timeout) {
        Some(pipeline) if reader.found_no_problem() => Ok(pipeline),
        _ => Err(reader.into_error()),
    }
}

impl Step {
    fn templates(&self) -> impl Iterator<Item = &Template> {
        self.script
            .iter()
            .map(|script| &script.text)
            .chain(&self.command)
            .chain(&self.args)
            .chain(self.env.iter().map(|(_, template)| template))
            .chain(&self.working_dir)
    }
}

impl Task {
    /// Every variable in it.
    pub(in crate::local) fn variables(&self) -> impl Iterator<Item = &Variable> {
        let params = self.params.values().flat_map(ValueTemplate::templates);
        let when =
            self.when.iter().flat_map(|when| std::iter::once(&when.input).chain(&when.values));
        let sub_paths =
            self.workspaces.values().filter_map(|workspace| workspace.sub_path.as_ref());
        let steps = self.steps.iter().flat_map(Step::templates);
        params.chain(when).chain(sub_paths).chain(steps).flat_map(Template::variables)
    }
}

/// A path below a directory.
pub(in crate::local) fn relative(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    let stays = path.components().all(|component| {
        matches!(component, std::path::Component::Normal(_) | std::path::Component::CurDir)
    });
    match stays {
        true => Ok(path),
        false => Err("expected a relative path without '..'".into()),
    }
}

/// Whether a text is a DNS-1123 label.
pub(in crate::local) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(outer)
        && text.ends_with(outer)
}
