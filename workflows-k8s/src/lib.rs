//! Workflows on Kubernetes.
//!
//! So far this crate knows what an API server accepts: [`violations`] checks a PipelineRun against
//! the rules for names, labels, annotations and owners before it is sent anywhere. The run sink for
//! Tekton, the custom resources and the controller build on it.

mod limits;

pub use self::limits::{Violation, violations};
