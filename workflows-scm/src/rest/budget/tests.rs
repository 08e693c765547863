use std::sync::Arc;

use futures::FutureExt;
use jiff::SignedDuration;
use reqwest::{StatusCode, header::HeaderMap};
use workflows_core::{Clock, ErrorKind, ManualClock};

use super::*;
use crate::github::testing::{GitHub, LIMITS, Principal};

const WHO: Principal = Principal::Installation(1);

fn governor(limits: BudgetLimits) -> (ManualClock, Arc<Governor<GitHub>>) {
    let clock = ManualClock::at("2026-01-02T03:04:05Z".parse().unwrap());
    let governor = Governor::new(limits, Arc::new(clock.clone()));
    (clock, governor)
}

/// Lets a call through that has ended already.
async fn call(governor: &Arc<Governor<GitHub>>, priority: Priority, cost: Cost) -> Result<()> {
    governor.admit(&WHO, priority, "core", cost).await.map(drop)
}

fn until(result: Result<()>) -> Timestamp {
    match result.unwrap_err().kind() {
        ErrorKind::RateLimited { until: Some(until) } => until,
        other => panic!("{other:?}"),
    }
}

fn told(limit: u32, remaining: u32, resets_at: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-ratelimit-limit", limit.into());
    headers.insert("x-ratelimit-remaining", remaining.into());
    headers.insert("x-ratelimit-reset", resets_at.as_second().into());
    headers
}

#[tokio::test]
async fn what_is_left_goes_to_what_matters_most() {
    let (clock, governor) = governor(LIMITS);
    let reset = clock.now() + SignedDuration::from_mins(2);
    for (remaining, expected) in [
        (1_001, [true, true, true]),
        (1_000, [true, true, false]),
        (100, [true, false, false]),
        (0, [false, false, false]),
    ] {
        governor.observe(&WHO, StatusCode::OK, &told(5_000, remaining, reset), "");
        let priorities = [Priority::Status, Priority::Fetch, Priority::Background];
        for (priority, expected) in priorities.into_iter().zip(expected) {
            let made = call(&governor, priority, Cost::Read).await;
            assert_eq!(made.is_ok(), expected, "{priority:?} with {remaining} left");
        }
    }
    clock.set(reset);
    call(&governor, Priority::Background, Cost::Read).await.unwrap();
}

#[tokio::test]
async fn what_may_be_free_goes_on_where_other_polls_wait() {
    let (clock, governor) = governor(LIMITS);
    let reset = clock.now() + SignedDuration::from_mins(30);
    for (remaining, expected) in [(1_000, true), (501, true), (500, false)] {
        governor.observe(&WHO, StatusCode::OK, &told(5_000, remaining, reset), "");
        assert!(call(&governor, Priority::Poll, Cost::Read).await.is_err());
        let made = call(&governor, Priority::Poll, Cost::Reread).await;
        assert_eq!(made.is_ok(), expected, "with {remaining} left");
    }
}

#[tokio::test]
async fn polls_that_count_are_spread_over_the_hour_and_what_was_missed_is_not() {
    let (clock, governor) = governor(LIMITS);
    let begun = clock.now();
    let reset = begun + SignedDuration::from_hours(1);
    let mut used = 0;
    let mut by_ten_minutes = Vec::new();
    for _ in 0..6 {
        let end = clock.now() + SignedDuration::from_mins(10);
        let before = used;
        while clock.now() < end {
            governor.observe(&WHO, StatusCode::OK, &told(5_000, 5_000 - used, reset), "");
            match governor.admit(&WHO, Priority::Poll, "core", Cost::Read).await {
                Ok(_) => used += 1,
                Err(held_back) => {
                    let at = until(Err(held_back));
                    assert!(at > clock.now() && at <= reset);
                    clock.set(at.min(end));
                }
            }
        }
        by_ten_minutes.push(used - before);
    }
    assert_eq!(used, 4_000, "all but twice the reserve");
    let hour = clock.now() + SignedDuration::from_hours(1);
    governor.observe(&WHO, StatusCode::OK, &told(5_000, 1_001, hour), "");
    call(&governor, Priority::Background, Cost::Read).await.unwrap();
    call(&governor, Priority::Poll, Cost::Read).await.unwrap_err();
    // A tenth at once, and then as the time goes by.
    assert!(by_ten_minutes[0] <= 400 + 700, "{by_ten_minutes:?}");
    assert!(
        by_ten_minutes[1..5].iter().all(|used| (600..=720).contains(used)),
        "{by_ten_minutes:?}"
    );
}

#[tokio::test]
async fn calls_under_way_count_as_made() {
    let (clock, governor) = governor(LIMITS);
    let reset = clock.now() + SignedDuration::from_mins(30);
    governor.observe(&WHO, StatusCode::OK, &told(5_000, 2, reset), "");
    let one = governor.admit(&WHO, Priority::Status, "core", Cost::Read).await.unwrap();
    let _two = governor.admit(&WHO, Priority::Status, "core", Cost::Read).await.unwrap();
    assert!(call(&governor, Priority::Status, Cost::Read).await.is_err());
    drop(one);
    call(&governor, Priority::Status, Cost::Read).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_comes_late_gives_nothing_back() {
    let (clock, governor) = governor(LIMITS);
    let reset = clock.now() + SignedDuration::from_mins(30);
    governor.observe(&WHO, StatusCode::OK, &told(5_000, 10, reset), "");
    governor.observe(&WHO, StatusCode::OK, &told(5_000, 4_000, reset), "");
    assert_eq!(governor.snapshot()[0].resources[0].remaining, 10);
    // The next window has its own number.
    let next = reset + SignedDuration::from_hours(1);
    governor.observe(&WHO, StatusCode::OK, &told(5_000, 4_999, next), "");
    assert_eq!(governor.snapshot()[0].resources[0].remaining, 4_999);
    // And what was still under way from the one before says nothing about it.
    governor.observe(&WHO, StatusCode::OK, &told(5_000, 3, reset), "");
    assert_eq!(governor.snapshot()[0].resources[0].remaining, 4_999);
}

#[tokio::test]
async fn limits_are_each_one_s_own() {
    let (clock, governor) = governor(LIMITS);
    let reset = clock.now() + SignedDuration::from_mins(30);
    governor.observe(&WHO, StatusCode::OK, &told(5_000, 0, reset), "");
    let other = Principal::Installation(2);
    assert!(governor.admit(&other, Priority::Background, "core", Cost::Read).await.is_ok());
    assert!(governor.admit(&WHO, Priority::Status, "graphql", Cost::Read).await.is_ok());
    assert!(governor.admit(&WHO, Priority::Status, "core", Cost::Read).await.is_err());
}

#[tokio::test]
async fn the_points_of_a_minute_are_kept() {
    let limits = BudgetLimits { points: 100, ..LIMITS };
    let (clock, governor) = governor(limits);
    let begun = clock.now();
    for _ in 0..10 {
        call(&governor, Priority::Background, Cost::Write).await.unwrap();
    }
    clock.advance(SignedDuration::from_secs(20));
    for _ in 0..35 {
        call(&governor, Priority::Background, Cost::Read).await.unwrap();
    }
    let later = begun + SignedDuration::from_secs(60);
    assert_eq!(until(call(&governor, Priority::Background, Cost::Read).await), later);
    for _ in 0..10 {
        call(&governor, Priority::Fetch, Cost::Read).await.unwrap();
    }
    assert!(call(&governor, Priority::Fetch, Cost::Read).await.is_err());
    call(&governor, Priority::Status, Cost::Write).await.unwrap();
    assert_eq!(until(call(&governor, Priority::Status, Cost::Read).await), later);
    clock.set(later);
    call(&governor, Priority::Status, Cost::Read).await.unwrap();
}

#[tokio::test]
async fn content_is_made_no_faster_than_people_bear() {
    let (clock, governor) = governor(LIMITS);
    let begun = clock.now();
    for _ in 0..75 {
        call(&governor, Priority::Status, Cost::Content).await.unwrap();
    }
    let next = until(call(&governor, Priority::Status, Cost::Content).await);
    assert_eq!(next, begun + SignedDuration::from_secs(60));
    call(&governor, Priority::Status, Cost::Read).await.unwrap();
    let mut made = 75;
    loop {
        clock.advance(SignedDuration::from_secs(60));
        while call(&governor, Priority::Status, Cost::Content).await.is_ok() {
            made += 1;
        }
        if made >= 480 {
            break;
        }
    }
    assert_eq!(made, 480);
    let next = until(call(&governor, Priority::Status, Cost::Content).await);
    assert_eq!(next, begun + SignedDuration::from_hours(1));
    clock.set(next);
    call(&governor, Priority::Status, Cost::Content).await.unwrap();
}

#[tokio::test]
async fn polls_never_take_the_last_connection() {
    let limits = BudgetLimits { concurrency: 8, ..LIMITS };
    let (_, governor) = governor(limits);
    let admit = |priority| governor.admit(&WHO, priority, "core", Cost::Read);
    let mut under_way = Vec::new();
    for _ in 0..4 {
        under_way.push(admit(Priority::Background).await.unwrap());
    }
    assert!(admit(Priority::Background).now_or_never().is_none());
    for _ in 0..3 {
        under_way.push(admit(Priority::Fetch).await.unwrap());
    }
    assert!(admit(Priority::Fetch).now_or_never().is_none());
    let last = admit(Priority::Status).await.unwrap();
    assert!(admit(Priority::Status).now_or_never().is_none());
    drop(last);
    assert!(admit(Priority::Status).now_or_never().is_some());
    under_way.clear();
    assert!(admit(Priority::Background).now_or_never().is_some());
    assert_eq!(governor.snapshot()[0].in_flight, 0);
}

#[tokio::test]
async fn a_clock_that_is_set_back_stops_nothing_for_good() {
    let limits = BudgetLimits { points: 10, ..LIMITS };
    let (clock, governor) = governor(limits);
    for _ in 0..10 {
        call(&governor, Priority::Status, Cost::Read).await.unwrap();
    }
    assert!(call(&governor, Priority::Status, Cost::Read).await.is_err());
    clock.advance(SignedDuration::from_hours(-5));
    call(&governor, Priority::Status, Cost::Read).await.unwrap();
}

#[tokio::test]
async fn a_server_without_limits_is_asked_as_often_as_is_needed() {
    let (_, governor) = governor(LIMITS);
    governor.observe(&WHO, StatusCode::OK, &HeaderMap::new(), "");
    call(&governor, Priority::Background, Cost::Read).await.unwrap();
    assert!(governor.snapshot()[0].resources.is_empty());
}
