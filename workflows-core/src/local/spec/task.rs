//! The tasks of a pipeline.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Binding, Task, When,
    document::{Object, Reader},
};
use crate::local::variables::{Kind, ParamValue, scalar};

const MOST_RETRIES: u64 = 100;

impl Reader<'_> {
    pub(super) fn tasks(
        &mut self,
        pipeline: &Object<'_>,
        section: &str,
        params: &BTreeMap<String, ParamValue>,
        workspaces: &BTreeMap<String, Option<Binding>>,
    ) -> Vec<Task> {
        let items = self.list(pipeline, section);
        items.into_iter().map(|(at, value)| self.task(at, value, params, workspaces)).collect()
    }

    fn task(
        &mut self,
        at: String,
        value: &Value,
        pipeline_params: &BTreeMap<String, ParamValue>,
        pipeline_workspaces: &BTreeMap<String, Option<Binding>>,
    ) -> Task {
        let task = self.object(
            value,
            at,
            &[
                "name",
                "description",
                "displayName",
                "params",
                "retries",
                "runAfter",
                "taskSpec",
                "timeout",
                "when",
                "workspaces",
            ],
        );
        let name = self.label(&task, "name");
        let empty = Value::Object(Map::new());
        let task_spec = task.get("taskSpec").unwrap_or_else(|| {
            self.invalid(&task.at("taskSpec"), "it is missing: the local sink resolves nothing");
            &empty
        });
        let spec = self.object(
            task_spec,
            task.at("taskSpec"),
            &["description", "displayName", "metadata", "params", "results", "steps", "workspaces"],
        );
        let params = self.task_params(&task);
        let defaults = self.task_defaults(&spec, &params, pipeline_params);
        let run_after = self.list(&task, "runAfter");
        let run_after =
            run_after.into_iter().filter_map(|(at, value)| self.ok(&at, scalar(value))).collect();
        let retries = match task.get("retries").map(Value::as_u64) {
            None => 0,
            Some(Some(retries)) if retries <= MOST_RETRIES => retries as u32,
            Some(_) => {
                self.invalid(&task.at("retries"), format!("expected 0 to {MOST_RETRIES}"));
                0
            }
        };
        let timeout = self.duration(&task, "timeout").flatten();
        let when = self.list(&task, "when");
        let when = when.into_iter().filter_map(|(at, value)| self.when(at, value)).collect();
        let results = self.task_results(&spec);
        let steps = self.steps(&spec);
        let workspaces = self.task_workspaces(&task, &spec, &steps, pipeline_workspaces);
        Task {
            name,
            params,
            defaults,
            when,
            run_after,
            retries,
            timeout,
            workspaces,
            results,
            steps,
        }
    }

    fn when(&mut self, at: String, value: &Value) -> Option<When> {
        let object = self.object(value, at, &["input", "operator", "values"]);
        if object.get("cel").is_some() {
            return None;
        }
        let input = self.text(&object, "input").unwrap_or_default();
        let input = self.template(&object.at("input"), &input)?;
        let is_in = match self.text(&object, "operator").as_deref() {
            Some("in") => true,
            Some("notin") => false,
            _ => {
                self.invalid(&object.at("operator"), "expected in or notin");
                return None;
            }
        };
        let mut values = Vec::new();
        for (at, value) in self.list(&object, "values") {
            let text = self.ok(&at, scalar(value))?;
            values.push(self.template(&at, &text)?);
        }
        if values.is_empty() {
            self.invalid(&object.at("values"), "it is missing");
        }
        Some(When { input, is_in, values })
    }

    pub(super) fn task_results(&mut self, spec: &Object<'_>) -> BTreeMap<String, Kind> {
        let mut results = BTreeMap::new();
        for (at, value) in self.list(spec, "results") {
            let object = self.object(value, at, &["name", "type", "description", "properties"]);
            let name = self.name(&object);
            let keys = self.properties(&object);
            let implied = if keys.is_empty() { Kind::Text } else { Kind::Map };
            let kind = self.kind(&object).unwrap_or(implied);
            if results.insert(name.clone(), kind).is_some() {
                self.invalid(&object.at, format!("result {name:?} is declared twice"));
            }
        }
        results
    }
}
