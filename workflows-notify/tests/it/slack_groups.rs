//! Many runs at once: what of them shows in the channel, and who is called.

use workflows_core::{RunState, Transition};
use workflows_notify::slack::SlackNotifier;
use workflows_slack_standin::{Fault, Shown};

use crate::support::{Chat, failed, run, seconds, secret, told};

#[tokio::test]
async fn failures_of_one_cause_join_the_first_for_a_while() {
    let chat = Chat::new();
    let notifier = chat.notifier();
    let line =
        |n: usize| format!("2026-11-01 10:00:0{n} pull of registry/api@{n}f3 timed out ({n} s)");
    for n in 0..5 {
        let run = failed(&format!("k{n}"), &line(n));
        chat.deliver(&notifier, &told(Transition::Failed, run)).await.unwrap();
    }
    let other = failed("other", "assertion failed");
    chat.deliver(&notifier, &told(Transition::Failed, other)).await.unwrap();
    let in_channel = chat.slack.in_channel(&chat.channel);
    assert_eq!(in_channel.len(), 2, "the first of the cause, and another");
    let thread = chat.slack.in_thread(&chat.channel, &in_channel[0].ts);
    assert_eq!(thread.len(), 1 + 4, "its details, and those that joined");
    assert!(thread.iter().all(|one| !one.broadcast));
    let counted = "3 more runs failed in the same way; see the thread.";
    assert!(in_channel[0].lines().last().unwrap().ends_with(counted), "told at 1, 2, 3, 5, 10...");

    // A process that remembers nothing finds the first.
    let fresh = chat.notifier();
    chat.deliver(&fresh, &told(Transition::Failed, failed("k6", &line(6)))).await.unwrap();
    let first = chat.slack.in_channel(&chat.channel).remove(0);
    assert!(first.lines().last().unwrap().contains(" 5 more runs"), "{:?}", first.lines());
    // Repeated, it is found in the thread.
    let mut again = told(Transition::Failed, failed("k6", &line(6)));
    again.may_have_reached = true;
    chat.deliver(&chat.notifier(), &again).await.unwrap();
    assert_eq!(chat.slack.in_thread(&chat.channel, &first.ts).len(), 1 + 5);

    chat.clock.advance(seconds(601));
    chat.deliver(&fresh, &told(Transition::Failed, failed("k7", &line(7)))).await.unwrap();
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 3, "ten minutes are over");
}

#[tokio::test]
async fn failures_can_be_told_each_by_itself() {
    let chat = Chat::new();
    let notifier = chat.builder().group_within(seconds(0)).build().unwrap();
    for n in 0..3 {
        let run = failed(&format!("k{n}"), "boom");
        chat.deliver(&notifier, &told(Transition::Failed, run)).await.unwrap();
    }
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 3);
}

/// How often somebody is called in messages.
fn calls(messages: &[Shown], id: &str) -> usize {
    messages.iter().map(|one| one.blocks.to_string().matches(id).count()).sum()
}

#[tokio::test]
async fn a_storm_of_runs_that_were_told_before_shows_little_in_the_channel_and_calls_each_once() {
    const RUNS: usize = 200;
    let chat = Chat::new();
    let notifier =
        chat.builder().mention("alice", "U024BE7LH").otherwise_mention("S0614TZR7").build();
    let notifier = notifier.unwrap();
    let mut places = Vec::new();
    for n in 0..RUNS {
        let started = told(Transition::Started, run(&format!("k{n}"), RunState::Running));
        places.push(chat.deliver(&notifier, &started).await.unwrap().reference);
    }
    for (n, place) in places.into_iter().enumerate() {
        let mut run = failed(&format!("k{n}"), &format!("pull of registry/api@{n}f3 timed out"));
        run.author = Some(if n % 2 == 0 { "alice" } else { "bob" }.into());
        let mut ended = told(Transition::Failed, run);
        ended.earlier = place.clone();
        let delivered = chat.deliver(&notifier, &ended).await.unwrap();
        assert_eq!(delivered.reference, place, "each run has its one message");
    }
    let shown = chat.slack.shows_in_channel(&chat.channel);
    assert_eq!(shown.len(), 10 + 1 + 1, "the first ten, the crowd, and the first failure");
    let crowd = shown.iter().find(|one| one.lines()[0].contains("Many runs at once")).unwrap();
    let first = &shown[0];
    let counted = first.lines().last().unwrap().clone();
    assert!(
        counted.ends_with(" 100 more runs failed in the same way; see the thread."),
        "{counted}"
    );
    let all = chat.slack.messages(&chat.channel);
    assert!(
        calls(&all, "U024BE7LH") == 1 && calls(&all, "S0614TZR7") == 2,
        "a message and its line"
    );
    let in_crowd = chat.slack.in_thread(&chat.channel, &crowd.ts);
    assert_eq!(in_crowd.len(), RUNS - 10);
    assert!(in_crowd.iter().all(|one| one.edits == 1 && one.lines()[0].contains(" failed ")));
    let with_the_first = chat.slack.in_thread(&chat.channel, &first.ts);
    assert_eq!(with_the_first.len(), 1 + RUNS - 1);
}

#[tokio::test]
async fn a_storm_of_failures_of_as_many_causes_shows_little_in_the_channel() {
    const RUNS: usize = 150;
    let chat = Chat::new();
    let notifier = chat.builder().otherwise_mention("S0614TZR7").build().unwrap();
    for n in 0..RUNS {
        let cause: String =
            n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        let failed = told(Transition::Failed, failed(&format!("k{n}"), &cause));
        chat.clock.advance(seconds(1));
        chat.deliver(&notifier, &failed).await.unwrap();
    }
    let shown = chat.slack.shows_in_channel(&chat.channel);
    assert_eq!(shown.len(), 20 + 1);
    let in_crowd = chat.slack.in_thread(&chat.channel, &shown[20].ts);
    assert_eq!(in_crowd.len(), RUNS - 20);
    assert_eq!(calls(&in_crowd, "S0614TZR7"), 1);
    // A process that remembers nothing has an allowance of its own, and finds the crowd.
    let fresh = chat.notifier();
    for n in 0..15 {
        let succeeded = told(Transition::Succeeded, run(&format!("s{n}"), RunState::Succeeded));
        chat.deliver(&fresh, &succeeded).await.unwrap();
    }
    assert_eq!(chat.slack.shows_in_channel(&chat.channel).len(), 20 + 1 + 10);
    // A lost answer to a message in the crowd's thread.
    chat.slack.fail("chat.postMessage", Fault::LostAnswer, 1);
    let mut lost = told(Transition::Succeeded, run("lost", RunState::Succeeded));
    chat.deliver(&fresh, &lost).await.unwrap_err();
    let before = chat.slack.messages(&chat.channel).len();
    lost.may_have_reached = true;
    let found = chat.deliver(&chat.notifier(), &lost).await.unwrap().reference.unwrap();
    assert_eq!(chat.slack.messages(&chat.channel).len(), before);
    // It is edited there, and its details show in the channel.
    let mut failed = told(Transition::Failed, failed("lost", "boom"));
    failed.earlier = Some(found);
    chat.deliver(&fresh, &failed).await.unwrap();
    assert_eq!(chat.slack.messages(&chat.channel).len(), before + 1);

    chat.clock.advance(seconds(601));
    let later = told(Transition::Succeeded, run("later", RunState::Succeeded));
    chat.deliver(&notifier, &later).await.unwrap();
    assert_eq!(chat.slack.shows_in_channel(&chat.channel).len(), 20 + 1 + 10 + 2);
}

#[tokio::test]
async fn further_failures_of_a_cause_have_somebody_s_own_words_too() {
    let chat = Chat::new();
    let words = "$(run.workflow) broke: $(run.title)";
    let notifier = chat.builder().headline([Transition::Failed], words).build().unwrap();
    for n in 0..2 {
        let run = failed(&format!("k{n}"), "boom");
        chat.deliver(&notifier, &told(Transition::Failed, run)).await.unwrap();
    }
    let first = chat.slack.in_channel(&chat.channel).remove(0);
    let thread = chat.slack.in_thread(&chat.channel, &first.ts);
    assert_eq!(thread[1].lines()[0], ":x: ci broke: Parse the header");
}

#[tokio::test]
async fn a_webhook_shows_a_cause_at_length_once_and_calls_somebody_once() {
    let chat = Chat::new();
    let url = chat.slack.create_webhook(&chat.channel);
    let notifier = SlackNotifier::incoming_webhook(secret(url))
        .clock(std::sync::Arc::new(chat.clock.clone()))
        .otherwise_mention("S0614TZR7")
        .build()
        .unwrap();
    for n in 0..10 {
        let run = failed(&format!("k{n}"), &format!("timed out after {n}s"));
        chat.deliver(&notifier, &told(Transition::Failed, run)).await.unwrap();
    }
    let messages = chat.slack.in_channel(&chat.channel);
    assert_eq!(messages.len(), 10, "nothing can be put together there");
    assert_eq!(calls(&messages, "S0614TZR7"), 1);
    let at_length = |one: &Shown| one.lines().iter().any(|line| line.contains("timed out after"));
    assert_eq!(messages.iter().filter(|one| at_length(one)).count(), 1);
    chat.clock.advance(seconds(601));
    let run = failed("later", "timed out after 1s");
    chat.deliver(&notifier, &told(Transition::Failed, run)).await.unwrap();
    let last = chat.slack.in_channel(&chat.channel).pop().unwrap();
    assert!(at_length(&last) && calls(&[last], "S0614TZR7") == 1);
}
