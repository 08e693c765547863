//! Requests, answers and events checked against GitHub's published description.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::{Problem, ProblemKind};

/// Where the description may be told to be.
const PLACE: &str = "WORKFLOWS_GITHUB_OPENAPI";
/// Where `.ci/run` puts it, below the repository.
const INSTALLED: &str =
    "../../target/npm/node_modules/@octokit/openapi/generated/api.github.com.json";

pub(crate) struct Description {
    document: Value,
    compiled: Mutex<HashMap<String, Option<Arc<Validator>>>>,
}

impl std::fmt::Debug for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Description").finish_non_exhaustive()
    }
}

/// The description, read once; `None` where it is not, which is said aloud.
pub(crate) fn description() -> Option<&'static Description> {
    static DESCRIPTION: OnceLock<Option<Description>> = OnceLock::new();
    DESCRIPTION.get_or_init(read).as_ref()
}

fn read() -> Option<Description> {
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(INSTALLED);
    let place = std::env::var_os(PLACE).map_or(installed, PathBuf::from);
    match std::fs::read(&place) {
        Ok(bytes) => {
            let document = serde_json::from_slice(&bytes)
                .unwrap_or_else(|error| panic!("{} is no JSON: {error}", place.display()));
            Some(Description { document, compiled: Mutex::default() })
        }
        Err(error) => {
            let skipped = format!(
                "GitHub's description of its API is not at {} ({error}): nothing is checked \
                 against it. `.ci/run` installs it; {PLACE} tells another place.",
                place.display()
            );
            let may_skip = std::env::var("WORKFLOWS_TESTS_MAY_SKIP").as_deref() != Ok("0");
            assert!(may_skip, "{skipped}");
            // Around what captures the output of tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {skipped}");
            None
        }
    }
}

impl Description {
    /// What a reference stands for, and what it is called.
    fn resolved<'a>(&'a self, mut value: &'a Value) -> &'a Value {
        while let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            match self.document.pointer(reference.trim_start_matches('#')) {
                Some(found) => value = found,
                None => return &Value::Null,
            }
        }
        value
    }

    fn operation(&self, template: &str, method: &str) -> Option<(&Value, &Value)> {
        let path = self.document["paths"].get(template)?;
        Some((path, path.get(method.to_ascii_lowercase())?))
    }

    /// The validator of a schema, which is compiled once and with only what it needs.
    fn validator(&self, name: &str, schema: &Value) -> Option<Arc<Validator>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = compiled.get(name) {
            return known.clone();
        }
        let mut schemas = Map::new();
        let mut root = plain(schema);
        let mut left = BTreeSet::new();
        references(&root, &mut left);
        while let Some(next) = left.pop_first() {
            if schemas.contains_key(&next) {
                continue;
            }
            let found = plain(&self.document["components"]["schemas"][&next]);
            let mut more = BTreeSet::new();
            references(&found, &mut more);
            schemas.insert(next, found);
            left.extend(more);
        }
        if let Some(root) = root.as_object_mut() {
            root.insert("components".to_owned(), json!({ "schemas": schemas }));
        }
        let built = match jsonschema::draft202012::new(&root) {
            Ok(validator) => Some(Arc::new(validator)),
            Err(error) => panic!("the schema of {name} does not compile: {error}"),
        };
        compiled.insert(name.to_owned(), built.clone());
        built
    }

    fn faults(&self, name: &str, schema: &Value, value: &Value) -> Vec<String> {
        let Some(validator) = self.validator(name, schema) else { return Vec::new() };
        validator
            .iter_errors(value)
            .take(5)
            .map(|error| {
                let shown: String = error.to_string().chars().take(300).collect();
                format!("{}: {shown}", error.instance_path())
            })
            .collect()
    }
}

/// A schema of OpenAPI 3.0 as JSON Schema: what may be null says so by its type.
fn plain(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").filter(|one| one.is_string()) {
                return json!({ "$ref": reference });
            }
            let mut plain_members: Map<String, Value> = members
                .iter()
                .filter(|(name, _)| {
                    !matches!(name.as_str(), "example" | "examples" | "default" | "description")
                        || members.get("type").is_none()
                })
                .map(|(name, value)| {
                    // Below `properties` names are names, whatever they are.
                    let value = match name.as_str() {
                        "properties" | "patternProperties" => properties(value),
                        "enum" | "required" => value.clone(),
                        _ => plain(value),
                    };
                    (name.clone(), value)
                })
                .collect();
            if members.get("nullable") != Some(&Value::Bool(true)) {
                return Value::Object(plain_members);
            }
            plain_members.remove("nullable");
            json!({ "anyOf": [Value::Object(plain_members), { "type": "null" }] })
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn properties(value: &Value) -> Value {
    let of = |members: &Map<String, Value>| {
        members.iter().map(|(name, value)| (name.clone(), plain(value))).collect::<Map<_, _>>()
    };
    value.as_object().map(of).map_or(Value::Null, Value::Object)
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str)
                && let Some(name) = reference.strip_prefix("#/components/schemas/")
            {
                found.insert(name.to_owned());
            }
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// A route as the description writes it.
fn described(template: &str) -> String {
    template.replace("{+", "{")
}

impl Description {
    /// What a request does that GitHub's description does not allow.
    pub(crate) fn check_request(
        &self,
        method: &str,
        template: &str,
        query: &[(String, String)],
        body: Option<&Value>,
    ) -> Vec<String> {
        let template = described(template);
        let Some((path, operation)) = self.operation(&template, method) else {
            return if template == "/graphql" {
                Vec::new()
            } else {
                vec![format!("{method} {template} is not described")]
            };
        };
        let mut faults = Vec::new();
        let mut known = HashSet::new();
        let parameters = [path, operation]
            .into_iter()
            .filter_map(|one| one.get("parameters")?.as_array())
            .flatten()
            .map(|one| self.resolved(one));
        for parameter in parameters.filter(|one| one["in"] == "query") {
            let name = parameter["name"].as_str().unwrap_or_default();
            known.insert(name);
            let given = query.iter().find(|(key, _)| key == name);
            match given {
                Some((_, text)) => {
                    let schema = self.resolved(&parameter["schema"]);
                    let value = typed(schema, text);
                    let label = format!("{method} {template} ?{name}");
                    for fault in self.faults(&label, schema, &value) {
                        faults.push(format!("query parameter `{name}`: {fault}"));
                    }
                }
                None if parameter["required"] == true => {
                    faults.push(format!("query parameter `{name}` is missing"));
                }
                None => {}
            }
        }
        for (name, _) in query {
            let is_page =
                UNDESCRIBED_PAGES.contains(&template.as_str()) && PAGING.contains(&name.as_str());
            if !is_page && !known.contains(name.as_str()) {
                faults.push(format!("query parameter `{name}` is not described"));
            }
        }
        let wanted = self.resolved(&operation["requestBody"]);
        let schema = &wanted["content"]["application/json"]["schema"];
        match body {
            Some(body) if schema.is_null() => {
                let is_empty = body.as_object().is_some_and(serde_json::Map::is_empty);
                faults.extend((!is_empty).then(|| "the operation takes no body".to_owned()));
            }
            Some(body) => {
                let label = format!("{method} {template} body");
                faults.extend(self.faults(&label, schema, body));
            }
            None if wanted["required"] == true => faults.push("the body is missing".to_owned()),
            None => {}
        }
        faults
    }

    /// What an answer has that GitHub's description does not.
    pub(crate) fn check_answer(
        &self,
        method: &str,
        template: &str,
        status: u16,
        body: &Value,
    ) -> Vec<String> {
        let template = described(template);
        let Some((_, operation)) = self.operation(&template, method) else {
            return Vec::new();
        };
        let response = self.resolved(&operation["responses"][status.to_string()]);
        if response.is_null() {
            return match status {
                200..300 => {
                    vec![format!("{method} {template} is not described to answer {status}")]
                }
                _ => Vec::new(),
            };
        }
        let schema = &response["content"]["application/json"]["schema"];
        if schema.is_null() {
            return Vec::new();
        }
        let route = format!("{method} {template}");
        let faults = self.faults(&format!("{route} {status}"), schema, body);
        without_contradictions(&route, faults)
    }

    /// Checks an event that is to be sent.
    pub(crate) fn check_event(
        &self,
        event: &str,
        action: Option<&str>,
        payload: &Value,
    ) -> Vec<Problem> {
        let name = match action {
            Some(action) => format!("{event}-{action}").replace('_', "-"),
            None => event.replace('_', "-"),
        };
        let schema = &self.document["x-webhooks"][&name]["post"]["requestBody"]["content"]["application/json"]
            ["schema"];
        let problem =
            |text: String| Problem { kind: ProblemKind::Event, place: name.clone(), text };
        if schema.is_null() {
            return match event {
                // What senders may send is theirs, and so is its name.
                "repository_dispatch" => Vec::new(),
                _ => vec![problem("there is no such event".to_owned())],
            };
        }
        let faults = self.faults(&format!("event {name}"), schema, payload);
        without_contradictions(&name, faults).into_iter().map(problem).collect()
    }
}

fn typed(schema: &Value, text: &str) -> Value {
    match schema["type"].as_str() {
        Some("integer" | "number") => text.parse::<i64>().map_or(text.into(), Value::from),
        Some("boolean") => text.parse::<bool>().map_or(text.into(), Value::from),
        Some("array") => text.split(',').collect(),
        _ => text.into(),
    }
}

/// Lists that GitHub pages, though the description does not say so.
const UNDESCRIBED_PAGES: &[&str] = &["/repos/{owner}/{repo}/git/matching-refs/{ref}"];
const PAGING: &[&str] = &["page", "per_page"];

/// Where the description contradicts itself, or what GitHub is seen to do: what the route or the event
/// ends with, and a part of the fault.
const CONTRADICTIONS: &[(&str, &str)] = &[
    // A pull request whose fork was deleted has no repository at its head.
    ("/pulls", "/head/repo: null is not"),
    ("/pulls/{pull_number}", "/head/repo: null is not"),
    // The same App in `check_suite.requested` may listen to merge groups.
    ("check-suite-rerequested", "/check_suite/app/events/"),
];

/// The faults that are none of the stand-in's.
fn without_contradictions(place: &str, mut faults: Vec<String>) -> Vec<String> {
    let of_place = || CONTRADICTIONS.iter().filter(|(of, _)| place.ends_with(of));
    faults.retain(|fault| !of_place().any(|(_, known)| fault.contains(known)));
    faults
}
