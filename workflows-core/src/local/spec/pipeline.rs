//! A PipelineRun, and the pipeline in it.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::Value;

use super::{
    Pipeline, SectionTimeouts,
    document::{Object, Reader},
};
use crate::local::{graph, variables::ValueTemplate};

const MOST_TASKS: usize = 1_000;

impl Reader<'_> {
    pub(super) fn pipeline_run(
        &mut self,
        document: &Value,
        default_timeout: SignedDuration,
    ) -> Option<Pipeline> {
        let run = self.object(document, "PipelineRun", &["apiVersion", "kind", "metadata", "spec"]);
        for (field, expected) in [("apiVersion", "tekton.dev/v1"), ("kind", "PipelineRun")] {
            if run.get(field).and_then(Value::as_str) != Some(expected) {
                self.invalid(field, format!("expected {expected}"));
            }
        }
        let Some(spec) = run.get("spec") else {
            self.invalid("spec", "it is missing");
            return None;
        };
        let spec = self.object(
            spec,
            "spec",
            &["params", "pipelineSpec", "taskRunTemplate", "timeouts", "workspaces"],
        );
        if let Some(template) = spec.get("taskRunTemplate") {
            self.object(template, spec.at("taskRunTemplate"), &["serviceAccountName"]);
        }
        let Some(pipeline_spec) = spec.get("pipelineSpec") else {
            self.invalid("spec.pipelineSpec", "it is missing: the local sink resolves nothing");
            return None;
        };
        let timeouts = self.timeouts(&spec, default_timeout);
        let bindings = self.bindings(&spec);
        let pipeline = self.object(
            pipeline_spec,
            spec.at("pipelineSpec"),
            &["description", "displayName", "finally", "params", "results", "tasks", "workspaces"],
        );
        let workspaces = self.pipeline_workspaces(&pipeline, bindings);
        let params = self.pipeline_params(&spec, &pipeline);
        let mut tasks = self.tasks(&pipeline, "tasks", &params, &workspaces);
        if tasks.is_empty() {
            self.invalid(&pipeline.at("tasks"), "a pipeline needs at least one task");
        }
        let finally_from = tasks.len();
        tasks.extend(self.tasks(&pipeline, "finally", &params, &workspaces));
        if tasks.len() > MOST_TASKS {
            self.invalid(&pipeline.at, format!("it has more than {MOST_TASKS} tasks"));
            return None;
        }
        let mut names = BTreeSet::new();
        for task in &tasks {
            if !names.insert(task.name.as_str()) {
                self.invalid(&pipeline.at, format!("two tasks are called {:?}", task.name));
            }
        }
        let needs = self.ok(&pipeline.at, graph::needs(&tasks, finally_from)).unwrap_or_default();
        let results = self.pipeline_results(&pipeline);
        let pipeline =
            Pipeline { params, tasks, finally_from, needs, results, workspaces, timeouts };
        if self.found_no_problem() {
            self.check(&pipeline);
        }
        Some(pipeline)
    }

    fn timeouts(&mut self, spec: &Object<'_>, default: SignedDuration) -> SectionTimeouts {
        let default_pipeline = (default > SignedDuration::ZERO).then_some(default);
        let none = SectionTimeouts { pipeline: default_pipeline, tasks: None, finally: None };
        let Some(timeouts) = spec.get("timeouts") else { return none };
        let timeouts =
            self.object(timeouts, spec.at("timeouts"), &["pipeline", "tasks", "finally"]);
        let pipeline = self.duration(&timeouts, "pipeline").unwrap_or(default_pipeline);
        let tasks = self.duration(&timeouts, "tasks").flatten();
        let finally = self.duration(&timeouts, "finally").flatten();
        if let Some(pipeline) = pipeline {
            let parts = [tasks, finally].into_iter().flatten();
            let sum = parts.fold(SignedDuration::ZERO, |sum, part| {
                sum.checked_add(part).unwrap_or(SignedDuration::MAX)
            });
            if sum > pipeline {
                self.invalid(&timeouts.at, "tasks and finally together exceed pipeline");
            }
        }
        SectionTimeouts { pipeline, tasks, finally }
    }

    pub(super) fn pipeline_results(
        &mut self,
        pipeline: &Object<'_>,
    ) -> Vec<(String, ValueTemplate)> {
        let mut results = Vec::new();
        for (at, value) in self.list(pipeline, "results") {
            let object = self.object(value, at, &["name", "type", "value", "description"]);
            let name = self.name(&object);
            self.kind(&object);
            let json = object.get("value").unwrap_or(&Value::Null);
            if let Some(template) = self.ok(&object.at("value"), ValueTemplate::parse(json)) {
                results.push((name, template));
            }
        }
        results
    }
}
