//! What programs are sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{Response, StatusCode},
};
use jiff::SignedDuration;
use serde_json::Value;
use workflows_core::{ErrorKind, ManualClock, Notifier, RunState, Transition};
use workflows_notify::{
    CloudEventFormat, CloudEventMode, CloudEventsNotifier, WebhookNotifier, WebhookSecret,
};

use crate::support::{assert_golden, failed, run, secret, start, told};

#[derive(Debug, Clone)]
struct Received {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A receiver that answers what it is told to, and 204 after that.
#[derive(Debug, Clone, Default)]
struct Receiver {
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<Vec<(u16, &'static str)>>>,
    /// Whether it answers with what it was sent.
    repeats: Arc<std::sync::atomic::AtomicBool>,
}

impl Receiver {
    async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().fallback(receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, address)
    }

    fn last(&self) -> Received {
        self.received.lock().unwrap().last().cloned().unwrap()
    }

    fn answer(&self, status: u16, retry_after: &'static str) {
        self.answers.lock().unwrap().push((status, retry_after));
    }
}

async fn receive(State(receiver): State<Receiver>, request: Request) -> Response<String> {
    let (parts, body) = request.into_parts();
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
    receiver.received.lock().unwrap().push(Received { headers: headers.collect(), body });
    let (status, retry_after) = receiver.answers.lock().unwrap().pop().unwrap_or((204, ""));
    let received = receiver.received.lock().unwrap().last().cloned().unwrap();
    let said = match receiver.repeats.load(std::sync::atomic::Ordering::SeqCst) {
        true => format!("{} {:?}", parts.uri, received.headers),
        false => "no \u{1b}[31mthanks".to_owned(),
    };
    let mut response = Response::new(said);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if !retry_after.is_empty() {
        response.headers_mut().insert("retry-after", retry_after.parse().unwrap());
    }
    response
}

const KEY: &str = "a secret of many bytes";

#[tokio::test]
async fn a_webhook_is_signed_and_can_be_told_from_a_repetition() {
    let (receiver, address) = Receiver::start().await;
    let clock = ManualClock::at(start());
    let notifier = WebhookNotifier::to(address, secret(KEY))
        .header("authorization", secret("Bearer abc"))
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap();
    notifier.validate().await.unwrap();
    let notification = told(Transition::Failed, failed("k", "boom"));
    notifier.deliver(&notification).await.unwrap();
    let first = receiver.last();
    assert_eq!(first.headers["authorization"], "Bearer abc");
    let body = first.json();
    assert_eq!(body["id"], "k/failed");
    assert_eq!(body["transition"], "failed");
    assert_eq!(body["run"]["failure"]["step"], "run");

    let verify = |one: &Received, key: &str| {
        let header = |name: &str| one.headers[name].clone();
        WebhookSecret::new(secret(key)).unwrap().verify(
            &header("webhook-id"),
            &header("webhook-timestamp"),
            &header("webhook-signature"),
            &one.body,
            workflows_core::Clock::now(&clock),
            SignedDuration::from_mins(5),
        )
    };
    verify(&first, KEY).unwrap();
    verify(&first, "another secret of many bytes").unwrap_err();
    clock.advance(SignedDuration::from_mins(6));
    let error = verify(&first, KEY).unwrap_err();
    assert!(error.to_string().contains("too long ago"), "{error}");
    notifier.deliver(&notification).await.unwrap();
    let repeated = receiver.last();
    verify(&repeated, KEY).unwrap();
    assert_eq!(repeated.headers["webhook-id"], first.headers["webhook-id"]);
    assert!(!format!("{notifier:?}").contains(KEY));
}

#[tokio::test]
async fn what_a_receiver_answers_says_whether_to_try_again() {
    let (receiver, address) = Receiver::start().await;
    let clock = Arc::new(ManualClock::at(start()));
    let webhook = WebhookNotifier::to(&*address, secret(KEY)).clock(clock.clone()).build().unwrap();
    let events = CloudEventsNotifier::to(&*address, "/ci").clock(clock).build().unwrap();
    let limited = |seconds| ErrorKind::RateLimited {
        until: Some(start() + SignedDuration::from_secs(seconds)),
    };
    let answers = [
        (500, "", ErrorKind::Transient),
        (503, "", ErrorKind::Transient),
        (503, "7", limited(7)),
        (429, "90", limited(90)),
        (429, "soon", ErrorKind::RateLimited { until: None }),
        (429, "99999999999", limited(86_400)),
        (429, "-5", limited(0)),
        (401, "", ErrorKind::Denied),
        (404, "", ErrorKind::Denied),
        (400, "", ErrorKind::Invalid),
        (301, "", ErrorKind::Invalid),
    ];
    let notification = told(Transition::Failed, failed("k", "boom"));
    for (status, retry_after, kind) in answers {
        for notifier in [&webhook as &dyn Notifier, &events] {
            receiver.answer(status, retry_after);
            let error = notifier.deliver(&notification).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_a_receiver_repeats_of_what_it_was_sent_is_no_secret_in_an_error() {
    let (receiver, address) = Receiver::start().await;
    receiver.repeats.store(true, std::sync::atomic::Ordering::SeqCst);
    let address = format!("{address}/s3cr3t-path?key=s3cr3t-key");
    let token = secret("Bearer s3cr3t-token");
    let webhook =
        WebhookNotifier::to(&*address, secret(KEY)).header("authorization", token.clone());
    let events = CloudEventsNotifier::to(&*address, "/ci").header("authorization", token);
    let builders = format!("{webhook:?} {events:?}");
    assert!(!builders.contains("s3cr3t"), "{builders}");
    let (webhook, events) = (webhook.build().unwrap(), events.build().unwrap());
    for notifier in [&webhook as &dyn Notifier, &events] {
        // Each part of the answer that could be within the limit.
        receiver.answer(400, "");
        let failed = told(Transition::Failed, failed("k", "boom"));
        let error = notifier.deliver(&failed).await.unwrap_err();
        let sent = receiver.last();
        let text = format!("{error} {error:?} {notifier:?}");
        assert!(text.contains("it says") && text.contains("authorization"), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
        if let Some(signature) = sent.headers.get("webhook-signature") {
            assert!(!text.contains(&signature[3..20]), "{text}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_when_the_notifier_is_built() {
    let webhook = |url: &str| WebhookNotifier::to(url, secret(KEY)).build();
    for url in ["", "x", "ftp://x/", "https://user:password@x/", "unix:/x"] {
        let error = webhook(url).unwrap_err().to_string();
        assert!(error.contains("the webhook's address") && !error.contains("password@"), "{error}");
    }
    let header = WebhookNotifier::to("https://x/", secret(KEY)).header("a b", secret("x")).build();
    assert!(header.unwrap_err().to_string().contains("header: \"a b\""));
    for source in ["", "a b", "http://[", "ü"] {
        CloudEventsNotifier::to("https://x/", source).build().unwrap_err();
    }
}

#[tokio::test]
async fn a_secret_that_is_too_short_is_refused_before_anything_is_sent() {
    let (receiver, address) = Receiver::start().await;
    let notifier = WebhookNotifier::to(address, secret("short")).build().unwrap();
    let error = notifier.validate().await.unwrap_err();
    assert!(error.to_string().contains("fewer than 16 bytes"), "{error}");
    notifier.deliver(&told(Transition::Failed, failed("k", "x"))).await.unwrap_err();
    assert!(receiver.received.lock().unwrap().is_empty());
}

/// What each transition is sent as.
async fn all(format: CloudEventFormat, mode: CloudEventMode) -> String {
    let (receiver, address) = Receiver::start().await;
    let notifier = CloudEventsNotifier::to(address, "https://ci.example.com")
        .format(format)
        .mode(mode)
        .build()
        .unwrap();
    let mut text = String::new();
    for transition in Transition::ALL {
        let state = match transition {
            Transition::Queued => RunState::Queued,
            Transition::Started | Transition::Progress | Transition::RunningLong => {
                RunState::Running
            }
            Transition::Succeeded | Transition::Recovered => RunState::Succeeded,
            Transition::Cancelled => RunState::Cancelled,
            Transition::TimedOut => RunState::TimedOut,
            Transition::Superseded => RunState::Superseded,
            Transition::Expired => RunState::Expired,
            Transition::Refused => RunState::Refused,
            Transition::WaitingForApproval => RunState::Planned,
            _ => RunState::Failed,
        };
        let before = receiver.received.lock().unwrap().len();
        notifier.deliver(&told(transition, run("k", state))).await.unwrap();
        let received = receiver.received.lock().unwrap()[before..].to_vec();
        text.push_str(&format!("== {transition}\n"));
        for one in received {
            let wanted = |name: &str| name.starts_with("ce-") || name == "content-type";
            for (name, value) in one.headers.iter().filter(|(name, _)| wanted(name)) {
                text.push_str(&format!("{name}: {value}\n"));
            }
            let mut body = one.json();
            for pointer in ["/data/run", "/run", "/data/customData/run", "/customData/run"] {
                if let Some(run) = body.pointer_mut(pointer) {
                    assert_eq!(run["repo"], "acme/api");
                    *run = Value::from("...");
                }
            }
            text.push_str(&format!("{}\n", sorted(&body)));
        }
    }
    text
}

/// The fields of a document in alphabetical order, whatever else is in the build.
fn sorted(value: &Value) -> String {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let sorted: BTreeMap<_, _> =
                    fields.iter().map(|(name, value)| (name.clone(), sort(value))).collect();
                Value::Object(sorted.into_iter().collect())
            }
            Value::Array(all) => all.iter().map(sort).collect(),
            other => other.clone(),
        }
    }
    serde_json::to_string_pretty(&sort(value)).unwrap()
}

#[tokio::test]
async fn cloud_events_have_the_types_that_tekton_sends() {
    let text = all(CloudEventFormat::Tekton, CloudEventMode::Structured).await;
    assert_golden("cloud_events_tekton.txt", &text);
}

#[tokio::test]
async fn cloud_events_have_their_attributes_in_headers_in_the_binary_mode() {
    let text = all(CloudEventFormat::Tekton, CloudEventMode::Binary).await;
    assert_golden("cloud_events_binary.txt", &text);
}

#[tokio::test]
async fn cd_events_have_the_attributes_in_headers_in_the_binary_mode() {
    let text = all(CloudEventFormat::CdEvents, CloudEventMode::Binary).await;
    assert_golden("cloud_events_cdevents_binary.txt", &text);
    assert_eq!(text.matches("ce-specversion: 1.0").count(), 11);
    assert_eq!(text.matches("content-type: application/json\n").count(), 11);
}

#[tokio::test]
async fn cd_events_tell_of_queued_started_and_finished_alone() {
    let text = all(CloudEventFormat::CdEvents, CloudEventMode::Structured).await;
    assert_golden("cloud_events_cdevents.txt", &text);
    assert_eq!(text.matches("\"specversion\"").count(), 11);
}
