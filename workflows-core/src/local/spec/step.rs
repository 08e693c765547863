//! The steps of a task.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    STEP_MARKER, Script, Step,
    document::{Object, Reader},
};
use crate::local::variables::{Template, scalar};

const MOST_STEPS: usize = 200;

impl Reader<'_> {
    pub(super) fn steps(&mut self, spec: &Object<'_>) -> Vec<Step> {
        let items = self.list(spec, "steps");
        if items.is_empty() || items.len() > MOST_STEPS {
            self.invalid(&spec.at("steps"), format!("a task has 1 to {MOST_STEPS} steps"));
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        let mut steps = Vec::new();
        for (index, (at, value)) in items.into_iter().enumerate() {
            if let Some(step) = self.step(index, at.clone(), value) {
                if !names.insert(step.name.clone()) {
                    self.invalid(&at, format!("two steps are called {:?}", step.name));
                }
                steps.push(step);
            }
        }
        steps
    }

    fn step(&mut self, index: usize, at: String, value: &Value) -> Option<Step> {
        let step = self.object(
            value,
            at,
            &[
                "name",
                "displayName",
                "image",
                "imagePullPolicy",
                "script",
                "command",
                "args",
                "env",
                "workingDir",
            ],
        );
        let name = match step.get("name") {
            Some(_) => self.label(&step, "name"),
            // Tekton's name for it: <https://tekton.dev/docs/pipelines/tasks/#defining-steps>.
            None => format!("unnamed-{index}"),
        };
        let script = self.text(&step, "script").filter(|script| !script.trim().is_empty());
        let script = match script {
            Some(text) => Some(self.script(&step.at("script"), &text)?),
            None => None,
        };
        let command = self.arguments(&step, "command");
        let args = self.arguments(&step, "args");
        if script.is_some() && !command.is_empty() {
            self.invalid(&step.at, "a step has a script or a command, not both");
        }
        if script.is_none() && command.is_empty() {
            self.invalid(&step.at, "it needs a script or a command, for images are not used");
        }
        let mut env = Vec::new();
        for (at, value) in self.list(&step, "env") {
            let object = self.object(value, at, &["name", "value"]);
            let name = self.text(&object, "name").unwrap_or_default();
            let mut characters = name.chars();
            let starts = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !starts || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.unsupported(
                    &object.at("name"),
                    "a process of this machine has names of letters, digits and '_'",
                );
            }
            if name == STEP_MARKER {
                self.invalid(&object.at("name"), "the local sink sets this variable itself");
            }
            let json = object.get("value").cloned().unwrap_or_else(|| "".into());
            let at = object.at("value");
            let template = scalar(&json).and_then(|text| Template::parse_argument(&text));
            env.push((name, self.ok(&at, template)?));
        }
        let working_dir = self.text(&step, "workingDir").filter(|path| !path.is_empty());
        let working_dir = working_dir.and_then(|path| self.template(&step.at("workingDir"), &path));
        Some(Step { name, script, command, args, env, working_dir })
    }

    fn arguments(&mut self, step: &Object<'_>, name: &str) -> Vec<Template> {
        let items = self.list(step, name);
        items
            .into_iter()
            .filter_map(|(at, value)| {
                let template = scalar(value).and_then(|text| Template::parse_argument(&text));
                self.ok(&at, template)
            })
            .collect()
    }

    /// A script. Without an interpreter line it is Tekton's default: `#!/bin/sh` and `set -e`.
    fn script(&mut self, at: &str, text: &str) -> Option<Script> {
        let trimmed = text.trim_start();
        let Some(rest) = trimmed.strip_prefix("#!") else {
            let text = self.template(at, &format!("#!/bin/sh\nset -e\n{text}"))?;
            return Some(Script { interpreter: vec!["/bin/sh".into()], text });
        };
        let line = rest.lines().next().unwrap_or_default().trim();
        let (program, argument) = match line.split_once([' ', '\t']) {
            Some((program, argument)) => (program, Some(argument.trim())),
            None => (line, None),
        };
        if !program.starts_with('/') || program.contains("$(") {
            self.invalid(at, "the interpreter line needs an absolute path");
            return None;
        }
        let mut interpreter = vec![program.to_owned()];
        interpreter.extend(argument.map(str::to_owned));
        Some(Script { interpreter, text: self.template(at, trimmed)? })
    }
}
