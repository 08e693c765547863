//! Parameters: their declarations, their types, their values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::{Object, Reader};
use crate::local::variables::{Kind, ParamValue, ValueTemplate};

struct Declaration {
    at: String,
    name: String,
    kind: Kind,
    keys: BTreeSet<String>,
    default: Option<ParamValue>,
}

impl Reader<'_> {
    /// A declaration of a parameter: its name, its type, the keys of an object, its default.
    fn param_declaration(&mut self, at: String, value: &Value) -> Declaration {
        let object =
            self.object(value, at, &["name", "type", "default", "description", "properties"]);
        let name = self.name(&object);
        let default = object.get("default").and_then(|value| {
            let at = object.at("default");
            let parsed = self.ok(&at, ParamValue::from_json(value));
            if let Some(template) = self.ok(&at, ValueTemplate::parse(value))
                && template.templates().iter().any(|template| template.variables().next().is_some())
            {
                self.unsupported(&at, "variables in a default are not replaced");
            }
            parsed
        });
        let keys = self.properties(&object);
        let kind = match (self.kind(&object), &default, keys.is_empty()) {
            (Some(kind), _, _) => kind,
            (None, Some(default), _) => default.kind(),
            (None, None, false) => Kind::Map,
            (None, None, true) => Kind::Text,
        };
        if default.as_ref().is_some_and(|default| default.kind() != kind) {
            self.invalid(&object.at("default"), format!("expected a value of type {kind}"));
        }
        Declaration { at: object.at, name, kind, keys, default }
    }

    pub(super) fn kind(&mut self, object: &Object<'_>) -> Option<Kind> {
        match self.text(object, "type")?.as_str() {
            "string" => Some(Kind::Text),
            "array" => Some(Kind::List),
            "object" => Some(Kind::Map),
            _ => {
                self.invalid(&object.at("type"), "expected string, array or object");
                None
            }
        }
    }

    pub(super) fn properties(&mut self, object: &Object<'_>) -> BTreeSet<String> {
        let Some(value) = object.get("properties") else { return BTreeSet::new() };
        let at = object.at("properties");
        let Some(properties) = value.as_object() else {
            self.invalid(&at, "expected an object");
            return BTreeSet::new();
        };
        for (key, property) in properties {
            let property = self.object(property, format!("{at}.{key}"), &["type"]);
            if self.kind(&property).is_some_and(|kind| kind != Kind::Text) {
                self.invalid(&property.at, "the values of an object are strings");
            }
        }
        properties.keys().cloned().collect()
    }

    pub(super) fn pipeline_params(
        &mut self,
        spec: &Object<'_>,
        pipeline: &Object<'_>,
    ) -> BTreeMap<String, ParamValue> {
        let mut params = BTreeMap::new();
        for (at, value) in self.list(spec, "params") {
            let object = self.object(value, at, &["name", "value"]);
            let name = self.name(&object);
            let json = object.get("value").unwrap_or(&Value::Null);
            if let Some(value) = self.ok(&object.at("value"), ParamValue::from_json(json))
                && params.insert(name.clone(), value).is_some()
            {
                self.invalid(&object.at, format!("parameter {name:?} is given twice"));
            }
        }
        let mut declared = BTreeSet::new();
        for (at, value) in self.list(pipeline, "params") {
            let declaration = self.param_declaration(at, value);
            if !declared.insert(declaration.name.clone()) {
                self.invalid(&declaration.at, "it is declared twice");
            }
            let given = params.get(&declaration.name);
            let value = self.settle(&declaration, given);
            if let Some(value) = value {
                params.insert(declaration.name, value);
            }
        }
        params
    }

    /// The value of a parameter: what was given, or its default, checked against its declaration.
    fn settle(
        &mut self,
        declaration: &Declaration,
        given: Option<&ParamValue>,
    ) -> Option<ParamValue> {
        let name = &declaration.name;
        let value = match (given, &declaration.default) {
            // Keys of an object that are not given have the default's values.
            (Some(ParamValue::Map(given)), Some(ParamValue::Map(default))) => {
                let mut merged = default.clone();
                merged.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
                ParamValue::Map(merged)
            }
            (Some(given), _) => given.clone(),
            (None, Some(default)) => default.clone(),
            (None, None) => {
                self.invalid(&declaration.at, format!("parameter {name:?} has no value"));
                return None;
            }
        };
        if value.kind() != declaration.kind {
            let (expected, got) = (declaration.kind, value.kind());
            self.invalid(
                &declaration.at,
                format!("parameter {name:?} is of type {expected}, and its value of type {got}"),
            );
        } else if let ParamValue::Map(entries) = &value
            && let Some(key) = declaration.keys.iter().find(|key| !entries.contains_key(*key))
        {
            self.invalid(&declaration.at, format!("parameter {name:?} has no key {key:?}"));
        }
        Some(value)
    }

    pub(super) fn task_params(&mut self, task: &Object<'_>) -> BTreeMap<String, ValueTemplate> {
        let mut params = BTreeMap::new();
        for (at, value) in self.list(task, "params") {
            let object = self.object(value, at, &["name", "value"]);
            let name = self.name(&object);
            let json = object.get("value").unwrap_or(&Value::Null);
            if let Some(template) = self.ok(&object.at("value"), ValueTemplate::parse(json))
                && params.insert(name.clone(), template).is_some()
            {
                self.invalid(&object.at, format!("parameter {name:?} is given twice"));
            }
        }
        params
    }

    /// Values of a task's parameters that the pipeline does not pass: the task's default, else the
    /// pipeline's parameter of that name. Tekton propagates parameters into embedded tasks
    /// (<https://tekton.dev/docs/pipelines/pipelineruns/#propagated-parameters>).
    pub(super) fn task_defaults(
        &mut self,
        spec: &Object<'_>,
        passed: &BTreeMap<String, ValueTemplate>,
        pipeline_params: &BTreeMap<String, ParamValue>,
    ) -> BTreeMap<String, ParamValue> {
        let mut defaults = pipeline_params.clone();
        for (at, value) in self.list(spec, "params") {
            let declaration = self.param_declaration(at, value);
            if passed.contains_key(&declaration.name) {
                match declaration.default {
                    Some(default) => defaults.insert(declaration.name, default),
                    None => defaults.remove(&declaration.name),
                };
                continue;
            }
            let inherited = match declaration.default {
                Some(_) => None,
                None => pipeline_params.get(&declaration.name),
            };
            if let Some(value) = self.settle(&declaration, inherited) {
                defaults.insert(declaration.name, value);
            }
        }
        defaults
    }
}
