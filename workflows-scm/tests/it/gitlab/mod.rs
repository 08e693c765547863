//! The GitLab driver.

mod conformance;
mod reading;
mod scenarios;
mod statuses;
mod webhooks;
mod world;
