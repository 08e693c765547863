//! The objects, and what happened to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{Refusal, Resource, selector::Selector};

/// The name of an object: its namespace (empty for objects of the cluster) and its name.
pub(crate) type Name = (String, String);

/// One change, as watches tell it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: Resource,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// Everything that the server keeps.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) resources: BTreeSet<Resource>,
    objects: BTreeMap<Resource, BTreeMap<Name, Value>>,
    pub(crate) changes: Vec<Change>,
    pub(crate) version: u64,
    /// Watches and continued lists that begin before this are refused.
    pub(crate) oldest: u64,
    created: u64,
}

/// Where a list goes on.
#[derive(Debug, Clone)]
pub(crate) struct Continue {
    pub(crate) version: u64,
    pub(crate) after: Name,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    pub(crate) next: Option<Name>,
}

impl Store {
    /// Nothing of these kinds. Versions begin at 1.
    pub(crate) fn with(resources: Vec<Resource>) -> Self {
        Self {
            resources: resources.into_iter().collect(),
            version: 1,
            oldest: 1,
            ..Self::default()
        }
    }

    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.resources
            .iter()
            .find(|one| one.group == group && one.version == version && one.plural == plural)
    }

    pub(crate) fn get(&self, resource: &Resource, name: &Name) -> Option<&Value> {
        self.objects.get(resource)?.get(name)
    }

    pub(crate) fn all(&self, resource: &Resource) -> impl Iterator<Item = (&Name, &Value)> {
        self.objects.get(resource).into_iter().flatten()
    }

    pub(crate) fn list(
        &self,
        resource: &Resource,
        namespace: &str,
        selector: &Selector,
        after: Option<&Name>,
        limit: usize,
    ) -> Page {
        let empty = BTreeMap::new();
        let objects = self.objects.get(resource).unwrap_or(&empty);
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let mut page = Page { items: Vec::new(), next: None };
        let mut last = None;
        for (name, object) in objects.range((from, Bound::Unbounded)) {
            if !namespace.is_empty() && name.0 != namespace {
                continue;
            }
            if !selector.matches(object) {
                continue;
            }
            if limit > 0 && page.items.len() == limit {
                page.next = last;
                break;
            }
            last = Some(name.clone());
            page.items.push(object.clone());
        }
        page
    }

    /// Adds an object that was checked; returns it as it is kept.
    pub(crate) fn create(
        &mut self,
        resource: &Resource,
        name: &Name,
        mut object: Value,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        if self.get(resource, name).is_some() {
            return Err(Refusal::already_exists(resource, &name.1));
        }
        self.created += 1;
        let uid = format!("00000000-0000-4000-8000-{:012x}", self.created);
        if resource.has_status
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        let metadata = metadata(&mut object);
        metadata.insert("name".into(), json!(name.1));
        if resource.namespaced {
            metadata.insert("namespace".into(), json!(name.0));
        }
        metadata.insert("uid".into(), json!(uid));
        metadata.insert("creationTimestamp".into(), json!(time(now)));
        metadata.insert("generation".into(), json!(1));
        metadata.remove("deletionTimestamp");
        self.put(resource, name, object, None)
    }

    /// Replaces an object that is there; its generation grows when its spec changed. The last
    /// finalizer of one that is being deleted takes it away.
    pub(crate) fn replace(
        &mut self,
        resource: &Resource,
        name: &Name,
        mut object: Value,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let Some(before) = self.get(resource, name).cloned() else {
            return Err(Refusal::not_found(resource, &name.1));
        };
        let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
        let changed = without_status(&before) != without_status(&object);
        let metadata = metadata(&mut object);
        for kept in ["uid", "creationTimestamp", "namespace", "name", "deletionTimestamp"] {
            match before["metadata"].get(kept) {
                Some(value) => metadata.insert(kept.into(), value.clone()),
                None => metadata.remove(kept),
            };
        }
        metadata.insert("generation".into(), json!(generation + i64::from(changed)));
        if object == before {
            return Ok(object);
        }
        let finalizers = object["metadata"]["finalizers"].as_array();
        let is_over = object["metadata"].get("deletionTimestamp").is_some()
            && finalizers.is_none_or(Vec::is_empty);
        if is_over {
            self.remove(resource, name, now);
            return Ok(object);
        }
        self.put(resource, name, object, Some(before))
    }

    /// Deletes an object: at once, or when its finalizers are gone. What it owns goes with it.
    pub(crate) fn delete(
        &mut self,
        resource: &Resource,
        name: &Name,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let Some(before) = self.get(resource, name).cloned() else {
            return Err(Refusal::not_found(resource, &name.1));
        };
        let waits = before["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if waits {
            if before["metadata"].get("deletionTimestamp").is_some() {
                return Ok(before);
            }
            let mut object = before.clone();
            metadata(&mut object).insert("deletionTimestamp".into(), json!(time(now)));
            return self.put(resource, name, object, Some(before));
        }
        self.remove(resource, name, now);
        Ok(before)
    }

    fn remove(&mut self, resource: &Resource, name: &Name, now: Timestamp) {
        let Some(mut object) = self.objects.get_mut(resource).and_then(|all| all.remove(name))
        else {
            return;
        };
        self.version += 1;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        metadata(&mut object).insert("resourceVersion".into(), json!(self.version.to_string()));
        self.changes.push(Change {
            version: self.version,
            resource: resource.clone(),
            before: Some(object),
            after: None,
        });
        self.collect_owned(&uid, now);
    }

    fn collect_owned(&mut self, uid: &str, now: Timestamp) {
        let owned: Vec<(Resource, Name)> = self
            .objects
            .iter()
            .flat_map(|(resource, all)| all.iter().map(move |(name, one)| (resource, name, one)))
            .filter(|(_, _, object)| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                owners.is_some_and(|owners| {
                    !owners.is_empty() && owners.iter().all(|owner| owner["uid"] == uid)
                })
            })
            .map(|(resource, name, _)| (resource.clone(), name.clone()))
            .collect();
        for (resource, name) in owned {
            // It was found a moment ago.
            let _ = self.delete(&resource, &name, now);
        }
    }

    fn put(
        &mut self,
        resource: &Resource,
        name: &Name,
        mut object: Value,
        before: Option<Value>,
    ) -> Result<Value, Refusal> {
        self.version += 1;
        let fields = metadata(&mut object);
        fields.insert("resourceVersion".into(), json!(self.version.to_string()));
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
        self.objects.entry(resource.clone()).or_default().insert(name.clone(), object.clone());
        self.changes.push(Change {
            version: self.version,
            resource: resource.clone(),
            before,
            after: Some(object.clone()),
        });
        Ok(object)
    }
}

pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().expect("it was made an object")
}

fn without_status(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        fields.remove("metadata");
    }
    object
}

pub(crate) fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
