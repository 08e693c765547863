use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    Event,
    workflow::{
        LoadContext, LoadedWorkflow, load,
        testing::{comment_event, manual_event, push_event},
    },
};

fn document(on: &str, params: &str) -> String {
    format!(
        "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata: {{name: ci}}\nspec:\n  \
         triggers: [{{name: t, on: {on}}}]\n  pipelineRef: {{name: p}}\n  params:\n{params}"
    )
}

fn workflow(on: &str, params: &str) -> LoadedWorkflow {
    let mut loaded = load("ci.yaml", &document(on, params), &LoadContext::in_repository());
    assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
    loaded.workflows.remove(0)
}

/// The messages about a document with these parameters.
fn refused(on: &str, params: &str) -> Vec<String> {
    let loaded = load("ci.yaml", &document(on, params), &LoadContext::in_repository());
    loaded.problems.into_iter().map(|problem| problem.message).collect()
}

fn rendered(event: &Event, params: &str) -> Result<BTreeMap<String, Value>> {
    let view = event.view();
    let body = json!({"n": 5, "list": [1, "two", true], "deep": {"x": null}, "o": {"k": "v"}});
    let headers = BTreeMap::from([("x-github-event".to_owned(), "push".to_owned())]);
    let values = Values::new(&view, "run-key", "run-name")
        .with_payload(Some(&body), Some(&headers))
        .with_attempt("comment-1/0")
        .with_repo(
            "self",
            RepoValues {
                url: "https://example.com/acme/api.git".into(),
                name: "acme/api".into(),
                revision: Some("a".repeat(40)),
                connection: "acme".into(),
            },
        );
    let run = workflow(event.kind.as_str(), params).pipeline_run("t", &values, None)?;
    let params = run["spec"]["params"].as_array().unwrap().iter();
    Ok(params
        .map(|param| (param["name"].as_str().unwrap().to_owned(), param["value"].clone()))
        .collect())
}

#[test]
fn each_kind_of_reference_has_its_value() {
    let values = rendered(
        &comment_event(),
        "  - {name: a, value: $(event.pull_request.number)}
  - {name: b, value: \"$(event.pull_request.draft)/$(event.repo.name)\"}
  - {name: c, value: \"$(event.pull_request.labels[*])\"}
  - {name: d, value: \"$(event.pull_request.labels[1])\"}
  - {name: e, value: $(body.n)}
  - {name: f, value: [first, \"$(body.list[*])\", last]}
  - {name: g, value: $(headers.X-GitHub-Event)}
  - {name: h, value: \"$(repos.self.url)@$(repos.self.revision)\"}
  - {name: i, value: \"$(workflow.name) $(workflow.trigger) $(run.key) $(run.name) $(run.attempt)\"}
  - {name: j, value: {x: $(event.comment.author), y: plain}}
  - {name: k, value: \"$(body.o[*])\"}
",
    )
    .unwrap();
    assert_eq!(values["a"], "7");
    assert_eq!(values["b"], "false/acme/api");
    assert_eq!(values["c"], json!(["perf", "urgent"]));
    assert_eq!(values["d"], "urgent");
    assert_eq!(values["e"], "5");
    assert_eq!(values["f"], json!(["first", "1", "two", "true", "last"]));
    assert_eq!(values["g"], "push");
    assert_eq!(values["h"], format!("https://example.com/acme/api.git@{}", "a".repeat(40)));
    assert_eq!(values["i"], "ci t run-key run-name comment-1/0");
    assert_eq!(values["j"], json!({"x": "ann", "y": "plain"}));
    assert_eq!(values["k"], json!({"k": "v"}));
}

#[test]
fn parameters_may_refer_to_each_other_in_any_order() {
    let values = rendered(
        &push_event(),
        "  - {name: image, value: \"$(params.registry)/api:$(params.tags[1])\"}
  - {name: registry, value: r.example.com}
  - {name: tags, value: [latest, $(event.head.branch)]}
  - {name: all, value: [\"$(params.tags[*])\", x]}
  - {name: o, value: {key: v}}
  - {name: k, value: $(params.o.key)}
",
    )
    .unwrap();
    assert_eq!(values["image"], "r.example.com/api:main");
    assert_eq!(values["all"], json!(["latest", "main", "x"]));
    assert_eq!(values["k"], "v");
}

#[test]
fn a_circle_of_parameters_is_refused_when_the_document_is_loaded() {
    assert_eq!(
        refused(
            "push",
            "  - {name: x, value: $(params.a)}
  - {name: a, value: $(params.b)}
  - {name: b, value: $(params.c)}
  - {name: c, value: $(params.a)}
",
        ),
        ["parameters refer to each other in a circle: a -> b -> c -> a"]
    );
    assert_eq!(
        refused("push", "  - {name: a, value: x$(params.a)}\n"),
        ["parameters refer to each other in a circle: a -> a"]
    );
}

#[test]
fn unknown_references_are_refused_when_the_document_is_loaded() {
    for (value, message) in [
        ("$(event.head.shaa)", "events have no `head.shaa`; did you mean `event.head.sha`?"),
        (
            "$(evnt.head.sha)",
            "`$(evnt.head.sha)` refers to nothing that is known; did you mean `event`?; references begin with event, body, headers, repos, workflow, run, params",
        ),
        (
            "$(event.head)",
            "`event.head` is a mapping; name one of its fields: sha, ref, branch, tag",
        ),
        (
            "$(event.actions)",
            "`$(event.actions)` is a list; write `[*]` for its items, or an index",
        ),
        (
            "x$(event.actions[*])",
            "`$(event.actions[*])` is a list and cannot be part of a longer text",
        ),
        ("$(event.kind[*])", "`$(event.kind[*])`: `[*]` has a meaning only for a list"),
        ("$(params.nope)", "`$(params.nope)`: no parameter is named \"nope\""),
        (
            "$(repos.slf.url)",
            "`$(repos.slf.url)`: no repository is named \"slf\"; did you mean `self`?; known: self",
        ),
        (
            "$(repos.self.ur)",
            "`$(repos.self.ur)` refers to nothing that is known; did you mean `url`?; known: url, name, revision, connection",
        ),
        ("$(run.id)", "`$(run.id)` refers to nothing that is known; known: key, name, attempt"),
        ("$(event.kind", "\"$(event.kind\" has no closing `)`"),
    ] {
        let found = refused("push", &format!("  - {{name: a, value: '{value}'}}\n"));
        assert_eq!(found, [message], "{value}");
    }
    let shell = refused("push", "  - {name: a, value: $(date +%s)}\n");
    assert!(shell[0].contains("a `$(` that stands for itself is written `$$(`"), "{shell:?}");
}

/// The example of an earlier experiment bound the head of a pull request on a push.
#[test]
fn a_reference_that_no_event_of_the_trigger_can_have_is_refused_unless_there_is_a_default() {
    let value = "  - {name: a, value: $(event.pull_request.head.sha)";
    assert_eq!(
        refused("push", &format!("{value}}}\n")),
        ["events of the trigger \"t\" (on: push) never have $(event.pull_request.head.sha)"]
    );
    let values = rendered(&push_event(), &format!("{value}, default: none}}\n")).unwrap();
    assert_eq!(values["a"], "none");
}

#[test]
fn a_value_that_the_event_lacks_is_the_default_or_an_error_that_names_it() {
    let error = rendered(&push_event(), "  - {name: a, value: \"x-$(body.nope)\"}\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "render the run: the event has no value for $(body.nope) (field: params, param: a)"
    );
    let null = rendered(&push_event(), "  - {name: a, value: $(body.deep.x)}\n").unwrap_err();
    assert_eq!(null.message(), "the event has no value for $(body.deep.x)");
    let object = rendered(&push_event(), "  - {name: a, value: $(body.o)}\n").unwrap_err();
    assert_eq!(
        object.message(),
        "$(body.o) is a mapping, and only a string, a number or a boolean can be put here"
    );
}

#[test]
fn a_callers_parameter_replaces_a_default_and_keeps_its_kind() {
    let params = "  - {name: level, default: low}\n  - {name: list, default: [a]}\n  - {name: fixed, value: x}\n";
    let event =
        manual_event(&[("level", json!(3)), ("list", json!(["b", "c"])), ("fixed", json!("y"))]);
    let values = rendered(&event, params).unwrap();
    assert_eq!(values["level"], "3");
    assert_eq!(values["list"], json!(["b", "c"]));
    assert_eq!(values["fixed"], "x");

    let wrong = rendered(&manual_event(&[("list", json!("b"))]), params).unwrap_err();
    assert_eq!(
        wrong.message(),
        "the caller's parameter \"list\" is the string \"b\", which is not what its default is"
    );
    let mut push = push_event();
    push.data.insert("level".into(), json!("from elsewhere"));
    assert_eq!(rendered(&push, params).unwrap()["level"], "low");
}

#[test]
fn a_parameter_that_is_no_more_than_a_name_is_what_the_event_has_under_that() {
    let params = "  - {name: revision}\n  - {name: branch}\n  - {name: repo}\n  - {name: again, value: $(params.revision)}\n";
    let push = push_event();
    let values = rendered(&push, params).unwrap();
    let head = push.head.as_ref().unwrap();
    assert_eq!(values["revision"], head.sha.as_str());
    assert_eq!(values["again"], head.sha.as_str());
    assert_eq!(values["branch"], push.branch().unwrap());
    assert_eq!(values["repo"], &*push.repo.name);
    let given = manual_event(&[("revision", json!("v1"))]);
    assert_eq!(rendered(&given, params).unwrap()["revision"], "v1");
}

#[test]
fn teksons_variables_and_escapes_are_left_alone() {
    let values = rendered(
        &push_event(),
        "  - {name: a, value: \"$(context.pipelineRun.name)-$$(date)-$(params.b)\"}
  - {name: b, value: $(context.pipelineRun.uid)}
",
    )
    .unwrap();
    assert_eq!(values["a"], "$(context.pipelineRun.name)-$(date)-$(context.pipelineRun.uid)");
}

#[test]
fn text_of_an_event_never_becomes_a_variable_of_tektons() {
    let mut event = comment_event();
    let title = |event: &mut Event, title: &str| {
        event.pull_request.as_mut().unwrap().title = title.to_owned();
    };
    let params = "  - {name: a, value: \"t: $(event.pull_request.title)(params.token)\"}\n";
    for hostile in ["$(params.token)", "x$(context.pipelineRun.name)", "$$(date)", "$"] {
        title(&mut event, hostile);
        let error = rendered(&event, params).unwrap_err();
        assert_eq!(
            error.message(),
            "the value of $(event.pull_request.title) puts a `$(` into the run, which Tekton \
             would read as a variable",
            "{hostile}"
        );
    }
    title(&mut event, "costs $5 (or more)");
    assert_eq!(rendered(&event, params).unwrap()["a"], "t: costs $5 (or more)(params.token)");
    event.pull_request.as_mut().unwrap().labels = vec!["$(x)".into()];
    let list = rendered(&event, "  - {name: a, value: \"$(event.pull_request.labels[*])\"}\n");
    assert!(list.unwrap_err().message().contains("$(event.pull_request.labels[*]) puts a `$(`"));
    let given = manual_event(&[("a", json!("$(params.token)"))]);
    assert!(rendered(&given, "  - {name: a, default: x}\n").is_err());
}

proptest! {
    #[test]
    fn any_text_comes_out_as_it_is_or_not_at_all(
        text in r#"[\PC\n\r\t\x00"'\\]{0,40}|.*\$\(.*|[$(){}\[\]:,#&*!|>%@`"' a-z.-]{0,40}"#,
    ) {
        let mut event = comment_event();
        event.pull_request.as_mut().unwrap().title = text.clone();
        let params = "  - {name: before, value: x}
  - {name: whole, value: $(event.pull_request.title)}
  - {name: within, value: \"<$(event.pull_request.title)>\"}
  - {name: chained, value: $(params.whole)}
  - {name: list, value: [a, $(event.pull_request.title), b]}
  - {name: after, value: y}
";
        match rendered(&event, params) {
            Ok(values) => {
                prop_assert!(!text.contains("$("));
                prop_assert_eq!(&values["whole"], &json!(text));
                prop_assert_eq!(&values["within"], &json!(format!("<{text}>")));
                prop_assert_eq!(&values["chained"], &json!(text));
                prop_assert_eq!(&values["list"], &json!(["a", text, "b"]));
                prop_assert_eq!(values.len(), 6);
            }
            Err(error) => {
                prop_assert!(text.contains("$("), "{}", error);
            }
        }
    }

    #[test]
    fn no_text_of_a_template_is_read_without_end_or_panics(text in ".{0,60}|[$().\\[\\]*a-z\"']{0,40}") {
        let scope = Scope { repos: vec!["self"], params: BTreeMap::new() };
        let mut problems = Vec::new();
        let template = Template::compile_text("f", &text, &scope, &mut problems);
        if !text.contains("$(") {
            prop_assert!(problems.is_empty());
            let view = json!({});
            let values = Values::new(&view, "k", "n");
            let source = Source::new(&values, "w", "t");
            prop_assert_eq!(template.render(&source).unwrap(), json!(text));
        }
    }
}
