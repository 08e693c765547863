//! A pipeline that is run to tell somebody: whatever a task can do.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use workflows_core::{
    Delivered, Error, NotificationView, Notifier, Result, RunKey, RunSink, Tenant, hash_of,
    sink::RunRequest,
};

use crate::describe;

/// Runs a pipeline for each notification, where runs execute.
///
/// The PipelineRun is the platform's own; it gets the parameters that [`PARAMS`](Self::PARAMS) names
/// and that it declares under `spec.params` with an empty value. They are values of parameters, and
/// never part of the document. A delivery that is repeated is the same run: the sink creates it or
/// gets it by its key. It is told as soon as the sink has it; how the run ends is the sink's to show.
#[derive(Debug)]
pub struct PipelineNotifier {
    sink: Arc<dyn RunSink>,
    tenant: Option<Tenant>,
    pipeline_run: Value,
}

impl PipelineNotifier {
    /// The parameters that a pipeline run may ask for: which run, what happened, and a sentence.
    pub const PARAMS: [&'static str; 12] = [
        "author",
        "commit",
        "link",
        "message",
        "pull-request",
        "ref",
        "repository",
        "run",
        "state",
        "summary",
        "transition",
        "workflow",
    ];

    /// Runs this PipelineRun (`tekton.dev/v1`). Its name and its parameters' values are put in.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is none, or asks for a parameter that there is not.
    pub fn new(sink: Arc<dyn RunSink>, pipeline_run: Value) -> Result<Self> {
        let refuse = |why: String| Error::invalid("build a notifier", why);
        let is = |field: &str, value: &str| {
            pipeline_run.get(field).and_then(Value::as_str) == Some(value)
        };
        if !is("apiVersion", "tekton.dev/v1") || !is("kind", "PipelineRun") {
            return Err(refuse("a PipelineRun of tekton.dev/v1 is wanted".to_owned()));
        }
        if pipeline_run.get("metadata").is_some_and(|metadata| !metadata.is_object()) {
            return Err(refuse("the PipelineRun's metadata is no object".to_owned()));
        }
        for param in params(&pipeline_run) {
            let name = param.get("name").and_then(Value::as_str).unwrap_or_default();
            let is_empty = param.get("value").and_then(Value::as_str) == Some("");
            if is_empty && !Self::PARAMS.contains(&name) {
                let known = Self::PARAMS.join(", ");
                return Err(refuse(format!(
                    "the parameter {name:?} has an empty value, and nothing can be put in for it; \
                     there are {known}"
                )));
            }
        }
        Ok(Self { sink, tenant: None, pipeline_run })
    }

    /// Runs it where this tenant's runs are, with what is there, rather than where the run is that is
    /// told about.
    #[must_use]
    pub fn in_tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    fn request(&self, notification: &NotificationView) -> RunRequest {
        let run = &notification.run;
        let key = hash_of(&["notification", run.tenant.as_str(), notification.key.as_str()]);
        let name = format!("notify-{}", &key[..16]);
        let mut pipeline_run = self.pipeline_run.clone();
        pipeline_run["metadata"]["name"] = json!(name);
        if let Some(metadata) = pipeline_run["metadata"].as_object_mut() {
            metadata.remove("generateName");
        }
        let given = pipeline_run.pointer_mut("/spec/params").and_then(Value::as_array_mut);
        for param in given.into_iter().flatten() {
            let name = param.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if param.get("value").and_then(Value::as_str) == Some("") {
                param["value"] = json!(value(&name, notification));
            }
        }
        let tenant = self.tenant.as_ref().unwrap_or(&run.tenant).clone();
        RunRequest::new(RunKey::from(key), tenant, name, pipeline_run)
    }
}

fn params(pipeline_run: &Value) -> impl Iterator<Item = &Value> {
    pipeline_run.pointer("/spec/params").and_then(Value::as_array).into_iter().flatten()
}

fn value(name: &str, notification: &NotificationView) -> String {
    let run = &notification.run;
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    match name {
        "author" => text(run.author.as_deref()),
        "commit" => text(run.commit.as_ref().map(|commit| commit.as_str())),
        "link" => text(run.link.as_deref()),
        "message" => run.message.clone(),
        "pull-request" => run.pull_request.map_or_else(String::new, |number| number.to_string()),
        "ref" => text(run.reference.as_deref()),
        "repository" => run.repo.to_string(),
        "run" => run.key.to_string(),
        "state" => run.state.to_string(),
        "summary" => describe(notification.transition, run),
        "transition" => notification.transition.to_string(),
        "workflow" => run.workflow.to_string(),
        _ => String::new(),
    }
}

#[async_trait]
impl Notifier for PipelineNotifier {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let ensured = self.sink.ensure(&self.request(notification)).await?;
        Ok(Delivered { reference: Some(ensured.handle.to_string()) })
    }
}
