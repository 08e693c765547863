//! Workflows on Kubernetes, over HTTP with a stand-in for the API server and for Tekton.

mod conformance;
mod credentials;
mod refusals;
mod secrets;
mod sink;
mod world;
