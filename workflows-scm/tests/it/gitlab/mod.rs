//! The GitLab driver.

mod conformance;
mod engine;
mod group_listing;
mod reading;
mod scenarios;
mod statuses;
mod webhooks;
mod world;
