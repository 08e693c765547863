//! What Notifiers may say.

use serde_json::{Value, json};
use workflows_kube_standin::Resource;

use crate::deployed::{TEAM, World};

fn notifiers() -> Resource {
    Resource::namespaced("workflows.tekton.dev", "v1alpha1", "Notifier", "notifiers")
}

/// A PipelineRun of the platform's with these parameters.
fn mail(params: &[&str]) -> Value {
    let params: Vec<Value> = params.iter().map(|name| json!({"name": name, "value": ""})).collect();
    json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "spec": {"pipelineRef": {"name": "mail"}, "params": params},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_type_is_taken_and_what_it_does_not_understand_is_told() {
    let world = World::new().await;
    world.secret("people", "value", "s3cret").await;
    let ledger = world.directory.path().join("ledger.db");
    let process = world.start("one", world.port, ("LEDGER_FILE", ledger.to_str().unwrap()));
    process.ready().await;
    let secret = |name: &str| json!({name: {"name": "people", "key": "value"}});
    let url = "https://ci.example.com/hook";
    for (number, (kind, secrets, settings, expected)) in [
        ("log", json!({}), json!({}), ""),
        ("slack", secret("token"), json!({"channel": "C0123456789"}), ""),
        (
            "slack",
            secret("token"),
            json!({"channel": "C0123456789", "mentions": {"alice": "U0123456789"},
                   "otherwiseMention": "S0123456789"}),
            "",
        ),
        ("slack-webhook", secret("url"), json!({}), ""),
        ("webhook", secret("secret"), json!({"url": url}), ""),
        ("cloud-events", json!({}), json!({"url": url, "source": "/ci"}), ""),
        (
            "cloud-events",
            secret("bearer"),
            json!({"url": url, "source": "/ci", "format": "CDEvents", "mode": "Binary",
                   "headers": {"authorization": "bearer"}}),
            "",
        ),
        (
            "slack",
            secret("token"),
            json!({"channel": "C0123456789", "apiUrl": "https://slack-gov.com/api", "groupWithin": "0s",
                   "headlines": [{"on": ["recovered"], "text": "$(run.workflow) is well again"}]}),
            "",
        ),
        ("pipeline", json!({}), json!({"pipelineRun": mail(&["summary"])}), ""),
        ("pipeline", json!({}), json!({"pipelineRun": mail(&["summery"])}), "\"summery\""),
        ("pipeline", json!({}), json!({}), "spec.settings: missing field `pipelineRun`"),
        (
            "slack-webhook",
            secret("url"),
            json!({"headlines": [{"on": ["recovered"], "text": "$(run.wokflow)"}]}),
            "wokflow",
        ),
        ("slack-webhook", secret("url"), json!({"channel": "C0"}), "remove channel and apiUrl"),
        ("slack", secret("token"), json!({"channel": "C0123456789", "x": 1}), "unknown field `x`"),
        (
            "slack",
            secret("token"),
            json!({"channel": "C0123456789", "groupWithin": "soon"}),
            "spec.settings.groupWithin: ",
        ),
        (
            "slack",
            secret("token"),
            json!({"channel": "C0123456789", "apiUrl": "ftp://slack.example.com"}),
            "the address of Slack's API",
        ),
        (
            "slack-webhook",
            secret("url"),
            json!({"certificateAuthority": "-----BEGIN CERTIFICATE-----"}),
            "certificate",
        ),
        (
            "cloud-events",
            json!({}),
            json!({"url": url, "source": "/", "certificateAuthority": "-----BEGIN CERTIFICATE-----"}),
            "certificate",
        ),
        (
            "webhook",
            secret("secret"),
            json!({"url": url, "headers": {"x-key": "key"}}),
            "spec.secrets.key: type webhook needs it",
        ),
        (
            "webhook",
            secret("secret"),
            json!({"url": url, "certificateAuthority": "-----BEGIN CERTIFICATE-----"}),
            "certificate",
        ),
        ("log", json!({}), json!({"level": "info"}), "spec.settings: unknown field `level`"),
        ("log", secret("token"), json!({}), "spec.secrets.token: type log has no such secret"),
        ("slack", json!({}), json!({"channel": "C0"}), "spec.secrets.token: type slack needs it"),
        ("slack", secret("token"), json!({}), "spec.settings.channel: type slack needs it"),
        ("slack", secret("token"), json!({"channel": "#ci"}), "channel"),
        ("cloud-events", json!({}), json!({"url": url, "source": "/", "mode": "Fast"}), "`Fast`"),
        ("webhook", secret("secret"), json!({"url": "ftp://x"}), "http"),
        ("pager", json!({}), json!({}), "there is no type \"pager\""),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("number-{number}");
        let notifier = json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
            "metadata": {"name": name},
            "spec": {"type": kind, "secrets": secrets, "settings": settings},
        });
        world.apply("notifiers", &notifier).await;
        let told = |object: &Value| {
            let ready = object["status"]["conditions"].as_array()?.first()?.clone();
            Some((ready["status"] == "True", ready["message"].as_str()?.to_owned()))
        };
        let (ready, message) = world
            .cluster
            .until(&name, |cluster| told(&cluster.object(&notifiers(), TEAM, &name)?))
            .await;
        assert_eq!(ready, expected.is_empty(), "{notifier}: {message}");
        assert!(message.contains(expected), "{notifier}: {message}");
    }
    assert!(process.terminate(), "{}", world.logs());
}
