//! What people and programs are told.

mod engine;
mod pipeline;
mod receivers;
mod slack;
mod slack_groups;
mod slack_messages;
mod slack_search;
mod statuses;
mod support;
mod terminal;
mod told;
