//! Whatever GitHub, or somebody in its place, sends is read or refused.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use workflows_core::Verified;
use workflows_scm::{
    github::{GitHubDeliveries, GitHubDriver},
    webhook::{DeliveryFormat, DeliveryHeaders},
};

static DELIVERIES: LazyLock<GitHubDeliveries> =
    LazyLock::new(|| GitHubDriver::builder().build().expect("it has no options").deliveries());

// The first line is the event, the rest the body.
fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (event, body) = input.split_at(end);
    let event = String::from_utf8_lossy(event).into_owned();
    let headers = DeliveryHeaders::new([("x-github-event", event)]);
    let body = Verified::fetched(body.to_vec().into());
    let _ = DELIVERIES.decode(&headers, &body);
});
