//! Workspaces: what a run binds them to, and which a task gets.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Binding, Step, TaskWorkspace, Volume, VolumeKind,
    document::{Object, Reader},
    relative,
};
use crate::local::variables::{Subject, Template};

impl Reader<'_> {
    pub(super) fn bindings(&mut self, spec: &Object<'_>) -> BTreeMap<String, Binding> {
        let mut bindings = BTreeMap::new();
        for (at, value) in self.list(spec, "workspaces") {
            let known = [
                "name",
                "subPath",
                "emptyDir",
                "volumeClaimTemplate",
                "persistentVolumeClaim",
                "configMap",
                "secret",
            ];
            let object = self.object(value, at, &known);
            let name = self.label(&object, "name");
            let sub_path = self.text(&object, "subPath").filter(|path| !path.is_empty());
            if let Some(path) = &sub_path {
                self.literal(&object.at("subPath"), path);
                let checked = relative(path).map(|_| ());
                self.ok(&object.at("subPath"), checked);
            }
            let volumes: Vec<&str> =
                known[2..].iter().copied().filter(|kind| object.get(kind).is_some()).collect();
            let volume = match volumes.as_slice() {
                ["emptyDir"] => {
                    if let Some(value) = object.get("emptyDir") {
                        self.object(value, object.at("emptyDir"), &[]);
                    }
                    Volume::PerAttempt
                }
                ["volumeClaimTemplate"] => Volume::PerRun,
                [kind] => match self.mapped(&object, kind) {
                    Some(directory) => Volume::Mapped(directory),
                    None => continue,
                },
                _ => {
                    self.invalid(&object.at, "a workspace is bound to exactly one volume");
                    continue;
                }
            };
            if bindings.insert(name.clone(), Binding { volume, sub_path }).is_some() {
                self.invalid(&object.at, format!("workspace {name:?} is bound twice"));
            }
        }
        bindings
    }

    fn mapped(&mut self, binding: &Object<'_>, kind: &str) -> Option<PathBuf> {
        let (volume_kind, name_field) = match kind {
            "persistentVolumeClaim" => (VolumeKind::PersistentVolumeClaim, "claimName"),
            "configMap" => (VolumeKind::ConfigMap, "name"),
            _ => (VolumeKind::Secret, "secretName"),
        };
        let object = self.object(binding.get(kind)?, binding.at(kind), &[name_field]);
        let name = self.text(&object, name_field).unwrap_or_default();
        let directory =
            self.volumes.get(&(self.tenant.clone(), volume_kind, name.clone())).cloned();
        if directory.is_none() {
            self.unsupported(
                &object.at,
                format!("{name:?} is not mapped to a directory in this sink's options"),
            );
        }
        directory
    }

    pub(super) fn pipeline_workspaces(
        &mut self,
        pipeline: &Object<'_>,
        bindings: BTreeMap<String, Binding>,
    ) -> BTreeMap<String, Option<Binding>> {
        let mut workspaces: BTreeMap<String, Option<Binding>> =
            bindings.into_iter().map(|(name, binding)| (name, Some(binding))).collect();
        for (at, value) in self.list(pipeline, "workspaces") {
            let object = self.object(value, at, &["name", "description", "optional"]);
            let name = self.label(&object, "name");
            let optional = self.boolean(&object, "optional");
            if !optional && !workspaces.contains_key(&name) {
                self.invalid(&object.at, format!("workspace {name:?} is not bound by the run"));
            }
            workspaces.entry(name).or_insert(None);
        }
        workspaces
    }

    pub(super) fn task_workspaces(
        &mut self,
        task: &Object<'_>,
        spec: &Object<'_>,
        steps: &[Step],
        pipeline: &BTreeMap<String, Option<Binding>>,
    ) -> BTreeMap<String, TaskWorkspace> {
        let mut bound = BTreeMap::new();
        for (at, value) in self.list(task, "workspaces") {
            let object = self.object(value, at, &["name", "workspace", "subPath"]);
            let name = self.label(&object, "name");
            let from = self.text(&object, "workspace").unwrap_or_else(|| name.clone());
            if !pipeline.contains_key(&from) {
                self.invalid(&object.at, format!("the pipeline has no workspace {from:?}"));
            }
            let sub_path = self.text(&object, "subPath").filter(|path| !path.is_empty());
            let sub_path = sub_path.and_then(|path| self.template(&object.at("subPath"), &path));
            if bound.insert(name.clone(), (from, sub_path)).is_some() {
                self.invalid(&object.at, format!("workspace {name:?} is bound twice"));
            }
        }
        let mut workspaces = BTreeMap::new();
        for (at, value) in self.list(spec, "workspaces") {
            let object = self.object(value, at, &["name", "description", "optional", "readOnly"]);
            let name = self.label(&object, "name");
            let (optional, read_only) =
                (self.boolean(&object, "optional"), self.boolean(&object, "readOnly"));
            // Tekton propagates workspaces of the run into embedded tasks by name.
            let (from, sub_path) = bound.remove(&name).unwrap_or((name.clone(), None));
            let is_bound = pipeline.get(&from).is_some_and(Option::is_some);
            if !is_bound && !optional {
                self.invalid(&object.at, format!("workspace {name:?} is not bound"));
            }
            let pipeline_workspace = is_bound.then_some(from);
            workspaces.insert(name, TaskWorkspace { pipeline_workspace, sub_path, read_only });
        }
        for (name, (from, sub_path)) in bound {
            let is_bound = pipeline.get(&from).is_some_and(Option::is_some);
            let pipeline_workspace = is_bound.then_some(from);
            let workspace = TaskWorkspace { pipeline_workspace, sub_path, read_only: false };
            workspaces.insert(name, workspace);
        }
        let used = steps.iter().flat_map(Step::templates).flat_map(Template::variables);
        for variable in used {
            if let Subject::WorkspacePath(name) | Subject::WorkspaceBound(name) = &variable.subject
                && !workspaces.contains_key(name)
                && let Some(binding) = pipeline.get(name)
            {
                let pipeline_workspace = binding.is_some().then(|| name.clone());
                let workspace =
                    TaskWorkspace { pipeline_workspace, sub_path: None, read_only: false };
                workspaces.insert(name.clone(), workspace);
            }
        }
        workspaces
    }
}
