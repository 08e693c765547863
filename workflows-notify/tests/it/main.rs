//! What people and programs are told.

mod engine;
mod pipeline;
mod receivers;
mod slack;
mod slack_messages;
mod statuses;
mod support;
mod terminal;
