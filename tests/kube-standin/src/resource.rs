//! Kinds of objects that the server knows.

use serde_json::{Value, json};

/// A kind of object, as a built-in or a CustomResourceDefinition makes it known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// The API group; empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
    /// The name in paths.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Whether its status is written through a path of its own.
    pub has_status: bool,
}

impl Resource {
    /// A namespaced kind, with a status of its own.
    pub fn namespaced(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: true,
            has_status: true,
        }
    }

    /// A kind of the whole cluster.
    pub fn of_cluster(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self { namespaced: false, ..Self::namespaced(group, version, kind, plural) }
    }

    /// The same without a status of its own.
    #[must_use]
    pub fn without_status(mut self) -> Self {
        self.has_status = false;
        self
    }

    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Where all objects of a namespace are, or one of them.
    pub(crate) fn path(&self, namespace: &str, name: Option<&str>) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let within = match namespace {
            "" => String::new(),
            namespace => format!("/namespaces/{namespace}"),
        };
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!("/{root}/{}{within}/{}{name}", self.api_version(), self.plural)
    }

    pub(crate) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    pub(crate) fn kind_in_group(&self) -> String {
        match self.group.as_str() {
            "" => self.kind.clone(),
            group => format!("{}.{group}", self.kind),
        }
    }

    pub(crate) fn details(&self, name: &str) -> Value {
        json!({"name": name, "group": self.group, "kind": self.plural})
    }
}

/// What every cluster has, as far as it is played here.
pub(crate) fn built_in() -> Vec<Resource> {
    vec![
        crate::definition::definitions(),
        Resource::of_cluster("", "v1", "Namespace", "namespaces"),
        Resource::namespaced("", "v1", "Secret", "secrets").without_status(),
        Resource::namespaced("", "v1", "ConfigMap", "configmaps").without_status(),
        Resource::namespaced("", "v1", "Event", "events").without_status(),
        Resource::namespaced("", "v1", "Pod", "pods"),
        Resource::namespaced("coordination.k8s.io", "v1", "Lease", "leases").without_status(),
    ]
}
