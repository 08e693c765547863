//! The GitLab driver.

mod conformance;
mod engine;
mod reading;
mod scenarios;
mod statuses;
mod webhooks;
mod world;
