//! What people read in Slack, and that Slack takes whatever comes.

use proptest::prelude::*;
use workflows_core::{
    NotificationView, Notifier, RunState, RunView, TaskStatus, Transition, run::FailedStep,
    sink::TaskPhase,
};
use workflows_notify::slack::SlackNotifier;
use workflows_slack_standin::{Shown, rules};

use crate::support::{Chat, assert_golden, failed, run, secret, told};

/// A run as it is when that happened.
fn example(transition: Transition) -> NotificationView {
    let key = transition.as_str();
    let mut view = match transition {
        Transition::WaitingForApproval => run(key, RunState::Planned),
        Transition::Queued => run(key, RunState::Queued),
        Transition::Started | Transition::RunningLong => run(key, RunState::Running),
        Transition::Progress => {
            let mut view = failed(key, "");
            view.state = RunState::Running;
            (view.failure, view.finished_at) = (None, None);
            view.tasks[1].phase = TaskPhase::Running;
            view
        }
        Transition::Succeeded | Transition::Recovered => run(key, RunState::Succeeded),
        Transition::Failed => failed(key, "assertion failed: left == right"),
        Transition::StillFailing => failed(key, "connection refused"),
        Transition::Cancelled => run(key, RunState::Cancelled),
        Transition::TimedOut => run(key, RunState::TimedOut),
        Transition::Superseded => run(key, RunState::Superseded),
        Transition::Expired => run(key, RunState::Expired),
        _ => run(key, RunState::Refused),
    };
    view.message = match transition {
        Transition::WaitingForApproval => "nothing runs before it is approved by a writer".into(),
        Transition::Cancelled => "bob asked for it".into(),
        Transition::TimedOut => "it ran for more than 1h".into(),
        Transition::Superseded => "a newer run of its group took its place".into(),
        Transition::Refused => "denied by the rule: no service accounts".into(),
        _ => String::new(),
    };
    told(transition, view)
}

fn shown(messages: &[Shown]) -> String {
    let mut text = String::new();
    for one in messages {
        let place = if one.thread.is_some() { "  in its thread" } else { "in the channel" };
        text.push_str(&format!("{place}, notified as: {}\n", one.text));
        for line in one.lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

#[tokio::test]
async fn each_transition_has_a_message_that_says_what_one_wants_to_know() {
    let mut text = String::new();
    for transition in Transition::ALL {
        let chat = Chat::new();
        let notifier = chat.builder().mention("Alice", "U024BE7LH").build().unwrap();
        chat.deliver(&notifier, &example(transition)).await.unwrap();
        let messages = chat.slack.messages(&chat.channel);
        text.push_str(&format!("== {transition}\n{}", shown(&messages)));
    }
    assert_golden("slack_bot.txt", &text);
}

#[tokio::test]
async fn a_webhook_gets_a_message_for_each_transition_but_progress() {
    let mut text = String::new();
    for transition in Transition::ALL {
        let chat = Chat::new();
        let url = chat.slack.create_webhook(&chat.channel);
        let notifier = SlackNotifier::incoming_webhook(secret(url)).build().unwrap();
        notifier.validate().await.unwrap();
        chat.deliver(&notifier, &example(transition)).await.unwrap();
        let messages = chat.slack.messages(&chat.channel);
        assert_eq!(messages.len(), usize::from(transition != Transition::Progress));
        text.push_str(&format!("== {transition}\n{}", shown(&messages)));
    }
    assert_golden("slack_webhook.txt", &text);
}

#[tokio::test]
async fn a_run_that_is_known_by_little_has_a_message_too() {
    let chat = Chat::new();
    let notifier = chat.notifier();
    let at = crate::support::start();
    let bare = RunView::new("k", "acme/api", "ci", RunState::Failed, at);
    chat.deliver(&notifier, &told(Transition::Failed, bare)).await.unwrap();
    let sample = NotificationView::sample("1", at);
    chat.deliver(&notifier, &sample).await.unwrap();
    let text = shown(&chat.slack.messages(&chat.channel));
    assert_golden("slack_little.txt", &text);
}

/// The texts of the links in a message, and where they lead.
fn links(value: &serde_json::Value, found: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Array(all) => all.iter().for_each(|one| links(one, found)),
        serde_json::Value::Object(fields) if value["type"] == "link" => {
            let field = |name: &str| fields[name].as_str().unwrap().to_owned();
            found.push((field("text"), field("url")));
        }
        serde_json::Value::Object(fields) => fields.values().for_each(|one| links(one, found)),
        _ => {}
    }
}

#[tokio::test]
async fn links_lead_to_the_repository_the_pull_request_the_run_and_its_tasks() {
    let chat = Chat::new();
    chat.deliver(&chat.notifier(), &example(Transition::Failed)).await.unwrap();
    let mut found = Vec::new();
    for message in chat.slack.messages(&chat.channel) {
        links(&message.blocks, &mut found);
    }
    let found: Vec<_> = found.iter().map(|(text, url)| (&**text, &**url)).collect();
    assert_eq!(
        found,
        [
            ("acme/api", "https://git.example.com/acme/api"),
            ("#7", "https://git.example.com/acme/api/pull/7"),
            ("Open the run", "https://ci.example.com/runs/7"),
            ("build", "https://ci.example.com/runs/7#build"),
            ("test", "https://ci.example.com/runs/7#test"),
        ]
    );
}

#[tokio::test]
async fn somebody_s_own_words_and_whom_to_call() {
    let chat = Chat::new();
    let notifier = chat
        .builder()
        .headline([Transition::Failed], "$(run.workflow) broke at $(run.failed_step): <!channel>")
        .otherwise_mention("S0614TZR7")
        .build()
        .unwrap();
    chat.deliver(&notifier, &example(Transition::Failed)).await.unwrap();
    chat.deliver(&notifier, &example(Transition::Succeeded)).await.unwrap();
    let messages = chat.slack.in_channel(&chat.channel);
    let lines = messages[0].lines();
    assert_eq!(lines[0], ":x: ci broke at run: <!channel>");
    assert!(lines.contains(&"Please look: @S0614TZR7".to_owned()), "{lines:?}");
    assert!(!messages[1].lines().iter().any(|line| line.contains("Please look")));
}

#[test]
fn what_cannot_be_is_refused_when_the_notifier_is_built() {
    let bot = |channel: &str| SlackNotifier::bot(secret("xoxb"), channel);
    let errors = [
        bot("#ci").build(),
        bot("ci").build(),
        bot("C1").mention("alice", "alice").build(),
        bot("C1").otherwise_mention("@oncall").build(),
        bot("C1").headline([Transition::Failed], "$(run.nmae)").build(),
        bot("C1").base("ftp://slack.com").build(),
        bot("C1").root_certificates(b"no PEM".to_vec()).build(),
    ];
    for refused in errors {
        assert_eq!(refused.unwrap_err().kind(), workflows_core::ErrorKind::Invalid);
    }
    assert!(!format!("{:?}", bot("C1").build()).contains("xoxb"));
}

/// Text as whoever may push would like it to be read.
fn hostile() -> impl Strategy<Value = String> {
    let markup = prop_oneof![
        Just("<!channel> <@U024BE7LH> <https://evil.example|click>".to_owned()),
        Just("*bold* _it_ ~s~ `c` ```b``` :rage: &lt;!here&gt; > quote".to_owned()),
        Just("\u{202e}\u{0}\u{1b}[31m\r\n\t\u{2028}\u{feff}".to_owned()),
        Just("🦀".repeat(500)),
        Just("x".repeat(20_000)),
        Just(String::new()),
        Just(" ".to_owned()),
        Just("$(run.title) \\\" {} []".to_owned()),
    ];
    prop_oneof![3 => markup, 1 => any::<String>(), 1 => ".{0,400}"]
}

fn address() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![
        Just("https://ci.example.com/runs/7?a=<b>&c=\"d\"".to_owned()),
        Just("javascript:alert(1)".to_owned()),
        Just("https://user:password@ci.example.com/".to_owned()),
        Just(format!("https://ci.example.com/{}", "x".repeat(5_000))),
        hostile(),
    ])
}

prop_compose! {
    fn view()(
        texts in proptest::collection::vec(hostile(), 9),
        addresses in proptest::collection::vec(address(), 4),
        lines in proptest::collection::vec(hostile(), 0..60),
        tasks in proptest::collection::vec(hostile(), 0..120),
        number in proptest::option::of(any::<u64>()),
        took in -10_i64..1_000_000_000,
        has_failure in any::<bool>(),
    ) -> RunView {
        let mut run = run("k", RunState::Failed);
        run.repo = texts[0].as_str().into();
        run.workflow = texts[1].as_str().into();
        run.trigger = texts[2].as_str().into();
        run.reference = Some(texts[3].as_str().into());
        run.title = Some(texts[4].clone());
        run.author = Some(texts[5].as_str().into());
        run.message = texts[6].clone();
        run.pull_request = number;
        run.finished_at = Some(crate::support::start() + crate::support::seconds(took));
        [run.link, run.repo_url, run.pull_request_url] =
            [0, 1, 2].map(|n| addresses[n].clone());
        run.tasks = tasks
            .iter()
            .map(|name| TaskStatus {
                name: name.as_str().into(),
                phase: TaskPhase::Failed,
                message: String::new(),
                started_at: None,
                finished_at: None,
                link: addresses[3].clone(),
                steps: Vec::new(),
            })
            .collect();
        run.failure = has_failure.then(|| FailedStep {
            task: texts[7].as_str().into(),
            step: texts[8].as_str().into(),
            exit_code: Some(-1),
            last_lines: lines,
            annotations: Vec::new(),
        });
        run
    }
}

/// Nothing in the text that Slack would take for more than text.
fn is_plain(text: &str) -> bool {
    let entities = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
    !entities.contains(['<', '>', '&']) && text.chars().count() <= 2_000
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn slack_takes_whatever_a_run_says_and_takes_none_of_it_for_markup(
        view in view(),
        transition in proptest::sample::select(Transition::ALL.to_vec()),
        own_words in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let chat = Chat::new();
        let url = chat.slack.create_webhook(&chat.channel);
        let headline = "$(run.title) $(run.message) $(run.author) $(run.summary)";
        runtime.block_on(async {
            let bot = chat.builder().mention("alice", "U024BE7LH");
            let bot = if own_words { bot.headline([transition], headline) } else { bot };
            let bot = bot.build().unwrap();
            let incoming = SlackNotifier::incoming_webhook(secret(url))
                .clock(std::sync::Arc::new(chat.clock.clone()))
                .headline([transition], headline)
                .build()
                .unwrap();
            // One of its own, one that is edited, one that joins them, which shows how many, and a
            // process that finds all that.
            for (n, is_told_before) in [false, true, false].into_iter().enumerate() {
                let mut view = view.clone();
                view.key = format!("k{n}").into();
                let mut happened = told(transition, view.clone());
                if is_told_before {
                    let started = told(Transition::Started, view);
                    happened.earlier = chat.deliver(&bot, &started).await.unwrap().reference;
                }
                chat.deliver(&bot, &happened).await.unwrap();
                happened.may_have_reached = true;
                chat.deliver(&chat.notifier(), &happened).await.unwrap();
                chat.deliver(&incoming, &happened).await.unwrap();
            }
        });
        for message in chat.slack.messages(&chat.channel) {
            prop_assert_eq!(rules::violations(&message.blocks), Vec::<String>::new());
            prop_assert!(is_plain(&message.text), "{}", message.text);
            let json = message.blocks.to_string();
            for never in ["mrkdwn", "broadcast", "javascript:", "password@"] {
                prop_assert!(!json.contains(&format!("\"{never}")), "{}", json);
            }
            let mentions = json.matches("\"user_id\"").count();
            prop_assert_eq!(mentions, 0, "alice did not write it: {}", json);
        }
        prop_assert_eq!(chat.slack.take_refused(), Vec::<String>::new());
    }
}
