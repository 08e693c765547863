//! Workflows on Kubernetes, over HTTP with a stand-in for the API server and for Tekton.

#[cfg(all(feature = "api", feature = "controller"))]
mod annotated;
mod api;
mod conformance;
#[cfg(feature = "controller")]
mod controller;
mod credentials;
mod definitions;
#[cfg(feature = "github")]
mod github;
#[cfg(all(feature = "github", feature = "gitlab"))]
mod gitlab;
mod lease;
#[cfg(feature = "controller")]
mod platform;
mod refusals;
mod secrets;
mod sink;
mod world;
