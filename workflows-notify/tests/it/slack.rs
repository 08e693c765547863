//! One message for each run, whatever is lost, repeated or refused.

use workflows_core::{ErrorKind, Notifier, RunState, Transition};
use workflows_notify::slack::SlackNotifier;
use workflows_slack_standin::Fault;

use crate::support::{Chat, failed, run, seconds, secret, told};

#[tokio::test]
async fn a_run_has_one_message_that_is_edited_and_its_failure_shows_in_the_channel() {
    let chat = Chat::new();
    let notifier = chat.notifier();
    let started = told(Transition::Started, run("k", RunState::Running));
    let place = chat.deliver(&notifier, &started).await.unwrap().reference.unwrap();
    let mut ended = told(Transition::Failed, failed("k", "boom"));
    ended.earlier = Some(place.clone());
    let again = chat.deliver(&notifier, &ended).await.unwrap();
    assert_eq!(again.reference.as_deref(), Some(&*place));
    let in_channel = chat.slack.in_channel(&chat.channel);
    assert_eq!((in_channel.len(), in_channel[0].edits), (1, 1));
    assert!(in_channel[0].lines()[0].contains("ci / pull-request failed after 1m 12s"));
    let thread = chat.slack.in_thread(&chat.channel, &in_channel[0].ts);
    assert_eq!(thread.len(), 1);
    assert!(thread[0].broadcast, "nobody is told of an edit");

    // Repeated, with whatever was remembered and without.
    let mut repeated = ended.clone();
    repeated.may_have_reached = true;
    for notifier in [notifier, chat.notifier()] {
        chat.deliver(&notifier, &repeated).await.unwrap();
    }
    assert_eq!(chat.slack.messages(&chat.channel).len(), 2);
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_found_by_its_run_and_not_posted_again() {
    for lost in [1, 2] {
        let chat = Chat::new();
        let notification = told(Transition::Failed, failed("k", "boom"));
        // The answer to the message, and then that to the details in its thread.
        chat.slack.fail("chat.postMessage", Fault::LostAnswer, lost);
        let mut again = notification.clone();
        again.may_have_reached = true;
        for _ in 0..3 {
            let _ = chat.deliver(&chat.notifier(), &again).await;
        }
        let in_channel = chat.slack.in_channel(&chat.channel);
        assert_eq!(in_channel.len(), 1);
        assert_eq!(chat.slack.in_thread(&chat.channel, &in_channel[0].ts).len(), 1);
    }
}

#[tokio::test]
async fn without_the_scope_to_look_a_lost_answer_makes_one_message_more_at_most() {
    let chat = Chat::with(&["chat:write"]);
    let notifier = chat.notifier();
    notifier.validate().await.unwrap();
    chat.slack.fail("chat.postMessage", Fault::LostAnswer, 1);
    let mut notification = told(Transition::Succeeded, run("k", RunState::Succeeded));
    chat.deliver(&notifier, &notification).await.unwrap_err();
    notification.may_have_reached = true;
    for _ in 0..3 {
        chat.deliver(&notifier, &notification).await.unwrap();
    }
    assert_eq!(chat.slack.in_channel(&chat.channel).len(), 2);
    assert_eq!(chat.slack.count("conversations.history"), 1, "it is not asked for again");
}

#[tokio::test]
async fn a_message_that_somebody_deleted_is_written_anew() {
    let chat = Chat::new();
    let notifier = chat.notifier();
    let started = told(Transition::Started, run("k", RunState::Running));
    let place = chat.deliver(&notifier, &started).await.unwrap().reference.unwrap();
    let (_, ts) = place.split_once('/').unwrap();
    chat.slack.delete(&chat.channel, ts);
    let mut ended = told(Transition::Succeeded, run("k", RunState::Succeeded));
    ended.earlier = Some(place);
    chat.deliver(&notifier, &ended).await.unwrap();
    let in_channel = chat.slack.in_channel(&chat.channel);
    assert_eq!(in_channel.len(), 1);
    assert!(in_channel[0].lines()[0].contains("succeeded"));
}

#[tokio::test]
async fn what_is_outdated_by_what_comes_next_is_left_out() {
    let chat = Chat::new();
    let notifier = chat.notifier();
    let mut started = told(Transition::Started, run("k", RunState::Running));
    started.followed_by = vec![Transition::Succeeded];
    let delivered = chat.deliver(&notifier, &started).await.unwrap();
    assert_eq!(delivered.reference, None);
    assert!(chat.slack.messages(&chat.channel).is_empty());
}

#[tokio::test]
async fn one_that_is_sent_again_does_not_undo_what_was_told_since() {
    let chat = Chat::new();
    let ended = told(Transition::Succeeded, run("k", RunState::Succeeded));
    let place = chat.deliver(&chat.notifier(), &ended).await.unwrap().reference;
    let mut started = told(Transition::Started, run("k", RunState::Running));
    started.earlier = place.clone();
    started.followed_by = vec![Transition::Succeeded];
    assert_eq!(chat.deliver(&chat.notifier(), &started).await.unwrap().reference, place);
    let in_channel = chat.slack.in_channel(&chat.channel);
    assert_eq!((in_channel.len(), in_channel[0].edits), (1, 0));
}

#[tokio::test]
async fn messages_are_a_second_apart_and_slack_s_limits_are_waited_for() {
    let chat = Chat::new();
    let notifier = chat.notifier();
    let succeeded =
        |n: i32| told(Transition::Succeeded, run(&format!("k{n}"), RunState::Succeeded));
    notifier.deliver(&succeeded(0)).await.unwrap();
    let error = notifier.deliver(&succeeded(1)).await.unwrap_err();
    let until = Some(crate::support::start() + seconds(1));
    assert_eq!(error.kind(), ErrorKind::RateLimited { until });
    assert_eq!(chat.slack.count("chat.postMessage"), 1, "Slack was not asked");
    chat.slack.fail("chat.postMessage", Fault::TooMany(30), 1);
    let error = chat.deliver(&notifier, &succeeded(1)).await.unwrap_err();
    let until = Some(crate::support::start() + seconds(2 + 30));
    assert_eq!(error.kind(), ErrorKind::RateLimited { until });
}

#[tokio::test]
async fn what_slack_refuses_has_the_kind_that_says_whether_to_try_again() {
    let chat = Chat::new();
    let notification = told(Transition::Succeeded, run("k", RunState::Succeeded));
    let refusals = [
        (Fault::Status(502), ErrorKind::Transient),
        (Fault::Status(500), ErrorKind::Transient),
        (Fault::Word("internal_error"), ErrorKind::Transient),
        (Fault::Word("ratelimited"), ErrorKind::RateLimited { until: None }),
        (Fault::Word("invalid_auth"), ErrorKind::Denied),
        (Fault::Word("channel_not_found"), ErrorKind::Denied),
        (Fault::Word("msg_too_long"), ErrorKind::Invalid),
        (Fault::Word("something_new"), ErrorKind::Invalid),
    ];
    for (fault, kind) in refusals {
        chat.slack.fail("chat.postMessage", fault, 1);
        let error = chat.deliver(&chat.notifier(), &notification).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    chat.slack.archive(&chat.channel);
    let error = chat.deliver(&chat.notifier(), &notification).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    chat.slack.revoke(&chat.token);
    let error = chat.notifier().validate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let text = format!("{error} {error:?}");
    assert!(text.contains("token_revoked") && !text.contains(&chat.token), "{text}");
}

#[tokio::test]
async fn a_scope_that_is_missing_is_named() {
    let chat = Chat::with(&["channels:history"]);
    let error = chat.notifier().validate().await.unwrap_err();
    assert!(error.to_string().contains("lacks the scope `chat:write`"), "{error}");
    let notification = told(Transition::Succeeded, run("k", RunState::Succeeded));
    let error = chat.deliver(&chat.notifier(), &notification).await.unwrap_err();
    assert!(error.to_string().contains("needed: chat:write"), "{error}");
}

#[tokio::test]
async fn a_webhook_that_is_gone_or_busy_says_so_and_its_address_stays_a_secret() {
    let chat = Chat::new();
    let url = chat.slack.create_webhook(&chat.channel);
    let notifier = |url: &str| {
        SlackNotifier::incoming_webhook(secret(url))
            .clock(std::sync::Arc::new(chat.clock.clone()))
            .build()
            .unwrap()
    };
    let notification = told(Transition::Failed, failed("k", "boom"));
    let refusals = [
        (Fault::Status(503), ErrorKind::Transient),
        (Fault::Status(400), ErrorKind::Invalid),
        (Fault::Status(403), ErrorKind::Denied),
    ];
    for (fault, kind) in refusals {
        chat.slack.fail("webhook", fault, 1);
        let error = chat.deliver(&notifier(&url), &notification).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let gone = url.replace("secret", "other-secret");
    let error = chat.deliver(&notifier(&gone), &notification).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let text = format!("{error} {error:?} {:?}", notifier(&gone));
    assert!(text.contains("no_service") && !text.contains("other-secret"), "{text}");
    let error = notifier("https://hooks.slack.com").validate().await.unwrap_err();
    assert!(error.to_string().contains("has no path"), "{error}");
    // Nothing listens there.
    let error = chat.deliver(&notifier("http://127.0.0.1:9/x"), &notification).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
}
