//! Workflows on Kubernetes.
//!
//! [`TektonSink`] executes runs as Tekton PipelineRuns, [`KubernetesSecrets`] reads secrets, and
//! [`violations`] checks a PipelineRun against the rules for names, labels, annotations and owners
//! before it is sent anywhere. [`AnnotatedRuns`] tells of PipelineRuns that others created. [`resources`] are the custom resources; with the feature `controller` an
//! engine is kept in step with them, and with `api` it is served over HTTP.

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "controller")]
pub mod controller;
mod error;
mod lease;
mod limits;
mod namespaces;
pub mod resources;
mod secrets;
mod tekton;

pub use self::{
    lease::LeaseHolder,
    limits::{Violation, violations},
    namespaces::Namespaces,
    secrets::KubernetesSecrets,
    tekton::{AnnotatedRuns, RunKind, Swept, TektonSink},
};
