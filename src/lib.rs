#![doc = include_str!("../README.md")]

pub use workflows_core as core;
pub use workflows_core::*;
#[cfg(feature = "kubernetes")]
pub use workflows_k8s as kubernetes;
pub use workflows_notify as notify;
pub use workflows_scm as scm;
