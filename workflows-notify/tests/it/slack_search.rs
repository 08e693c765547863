//! What an earlier try made is found, however long ago and however much stands in the channel.

use workflows_core::{Delivered, ErrorKind, NotificationView, Notifier, RunState, Transition};
use workflows_slack_standin::Fault;

use crate::support::{Chat, failed, run, seconds, start, told};

/// Posts a message whose answer is lost, and is what tells of it again.
async fn lose(chat: &Chat, mut notification: NotificationView) -> NotificationView {
    chat.slack.fail("chat.postMessage", Fault::LostAnswer, 1);
    chat.deliver(&chat.notifier(), &notification).await.unwrap_err();
    notification.may_have_reached = true;
    notification
}

/// Delivers as an outbox does: again when the error says. How often it was tried.
async fn deliver(
    chat: &Chat,
    notifiers: &[&dyn Notifier],
    notification: &NotificationView,
) -> (Delivered, usize) {
    for tries in 0..1_000 {
        match notifiers[tries % notifiers.len()].deliver(notification).await {
            Ok(delivered) => return (delivered, tries),
            Err(error) => {
                let ErrorKind::RateLimited { until: Some(until) } = error.kind() else {
                    panic!("{error}");
                };
                assert!(error.is_of_this_alone(), "others can be told meanwhile: {error}");
                let now = workflows_core::Clock::now(&chat.clock);
                chat.clock.advance(until.duration_since(now));
            }
        }
    }
    panic!("the look has no end");
}

#[tokio::test]
async fn others_messages_and_pages_of_them_are_looked_through() {
    let chat = Chat::new();
    let again = lose(&chat, told(Transition::Succeeded, run("wanted", RunState::Succeeded))).await;
    for n in 0..3_000 {
        chat.slack.say(&chat.channel, &format!("lunch? ({n})"));
    }
    chat.deliver(&chat.notifier(), &again).await.unwrap();
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 3_001);
    assert_eq!(chat.slack.count("conversations.history"), 16);
}

#[tokio::test]
async fn the_message_of_a_run_that_began_long_ago_is_found() {
    let chat = Chat::new();
    let started = told(Transition::Started, run("k", RunState::Running));
    chat.deliver(&chat.notifier(), &started).await.unwrap();
    chat.clock.advance(seconds(3 * 3_600));
    // Of a ledger that was lost it is not known what was told.
    let mut ended = told(Transition::Failed, failed("k", "boom"));
    ended.at = start() + seconds(3 * 3_600);
    ended.may_have_reached = true;
    chat.deliver(&chat.notifier(), &ended).await.unwrap();
    let in_channel = chat.slack.in_channel(&chat.channel);
    assert_eq!(in_channel.len(), 1);
    assert!(in_channel[0].lines()[0].contains(" failed "));
}

#[tokio::test]
async fn a_message_in_the_thread_of_a_group_that_is_over_is_found() {
    let chat = Chat::new();
    let first = told(Transition::Failed, failed("first", "boom"));
    chat.deliver(&chat.notifier(), &first).await.unwrap();
    chat.clock.advance(seconds(500));
    let mut lost = told(Transition::Failed, failed("lost", "boom"));
    lost.at = workflows_core::Clock::now(&chat.clock);
    let again = lose(&chat, lost).await;
    assert_eq!(chat.slack.messages(&chat.channel).len(), 3);
    chat.clock.advance(seconds(4_000));
    chat.deliver(&chat.notifier(), &again).await.unwrap();
    assert_eq!(chat.slack.messages(&chat.channel).len(), 3);
}

#[tokio::test]
async fn a_line_in_the_thread_of_a_group_is_not_posted_twice() {
    let chat = Chat::new();
    chat.deliver(&chat.notifier(), &told(Transition::Failed, failed("first", "boom")))
        .await
        .unwrap();
    let started = told(Transition::Started, run("k", RunState::Running));
    let mut ended = told(Transition::Failed, failed("k", "boom"));
    ended.earlier = chat.deliver(&chat.notifier(), &started).await.unwrap().reference;
    let again = lose(&chat, ended).await;
    let before = chat.slack.messages(&chat.channel).len();
    chat.deliver(&chat.notifier(), &again).await.unwrap();
    assert_eq!((before, chat.slack.messages(&chat.channel).len()), (4, 4));
}

#[tokio::test]
async fn a_message_that_was_written_anew_and_its_answer_lost_is_found() {
    let chat = Chat::new();
    let started = told(Transition::Started, run("k", RunState::Running));
    let place = chat.deliver(&chat.notifier(), &started).await.unwrap().reference.unwrap();
    chat.slack.delete(&chat.channel, place.split_once('/').unwrap().1);
    let mut ended = told(Transition::Succeeded, run("k", RunState::Succeeded));
    ended.earlier = Some(place);
    let again = lose(&chat, ended).await;
    chat.deliver(&chat.notifier(), &again).await.unwrap();
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 1);
}

#[tokio::test]
async fn where_slack_lets_little_be_read_the_look_goes_on_from_page_to_page() {
    let chat = Chat::new();
    chat.slack.set_limits(|limits| limits.reads_little = true);
    let again = lose(&chat, told(Transition::Succeeded, run("k", RunState::Succeeded))).await;
    for n in 0..100 {
        chat.slack.say(&chat.channel, &format!("lunch? ({n})"));
    }
    let notifier = chat.notifier();
    let (_, tries) = deliver(&chat, &[&notifier], &again).await;
    assert_eq!(tries, 6, "seven pages, a minute apart");
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 101);
    let calls = chat.slack.calls();
    let reads: Vec<_> =
        calls.iter().filter(|call| call.method == "conversations.history").collect();
    let refused = reads.iter().filter(|call| !call.refused.is_empty()).count();
    assert_eq!((reads.len() - refused, refused), (7, 6));

    // What is not there is posted in the end, and others are told meanwhile.
    let mut other = told(Transition::Succeeded, run("other", RunState::Succeeded));
    other.may_have_reached = true;
    chat.clock.advance(seconds(61));
    let error = notifier.deliver(&other).await.unwrap_err();
    assert!(error.is_of_this_alone());
    let third = told(Transition::Succeeded, run("third", RunState::Succeeded));
    chat.deliver(&notifier, &third).await.unwrap();
    let (_, tries) = deliver(&chat, &[&notifier], &other).await;
    assert_eq!(tries, 7, "and once more for what came meanwhile");
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 103);
}

#[tokio::test]
async fn what_another_replica_posted_during_the_look_is_found() {
    let chat = Chat::new();
    let notification = told(Transition::Succeeded, run("k", RunState::Succeeded));
    for n in 0..40 {
        chat.slack.say(&chat.channel, &format!("lunch? ({n})"));
    }
    chat.slack.set_limits(|limits| limits.reads_little = true);
    let mut again = notification.clone();
    again.may_have_reached = true;
    let slow = chat.notifier();
    chat.deliver(&slow, &again).await.unwrap_err();
    lose(&chat, notification).await;
    deliver(&chat, &[&slow], &again).await;
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 41);
}
