//! The custom resources of `workflows.tekton.dev`: what platform teams and users declare in a cluster.
//!
//! | kind | who writes it | what it is |
//! | --- | --- | --- |
//! | [`Workflow`] | users | the document that a repository's `.tekton` directory may hold too |
//! | [`ScmConnection`] | the platform team | repositories at a host, reached with one credential |
//! | [`Notifier`] | the platform team | somebody to tell |
//! | [`Policy`] | the platform team | who may start what, and what a workflow may use |
//!
//! The namespace is the tenant. [`definitions`] has the CustomResourceDefinitions; they are in
//! `workflows-k8s/crds` too, to be applied as they are.
#![expect(
    clippy::duplicated_attributes,
    reason = "each printer column has a type, mostly the same"
)]

mod notifier;
mod policy;
mod scm_connection;
mod status;
mod structural;
mod workflow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use self::{
    notifier::{Notifier, NotifierSpec, Occasions},
    policy::{
        Allowed, Approvals, DefinitionsFrom, Limits, NeededPermission, Policy, PolicySpec,
        WorkspaceSource,
    },
    scm_connection::{
        App, BasicCredential, Credentials, Grant, HookRegistration, Poll, ScmConnection,
        ScmConnectionSpec, ScmConnectionStatus, WebhookIn,
    },
    status::{ObjectStatus, READY},
    workflow::{Workflow, WorkflowObjectSpec},
};

/// The API group of the custom resources.
pub const GROUP: &str = "workflows.tekton.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// The CustomResourceDefinitions, in the order of their kinds' names.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![Notifier::crd(), Policy::crd(), ScmConnection::crd(), Workflow::crd()]
}
