//! Documents as their authors write them: what is accepted, what is refused, and in which words.

use std::path::PathBuf;

use serde_json::{Value, json};
use workflows_core::workflow::{LoadContext, Loaded, json_schema, load, load_object};

const HEAD: &str =
    "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata: { name: ci }\nspec:\n";

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Loads a document whose `spec` has these lines, and what is needed besides.
fn load_spec(spec: &str, context: &LoadContext) -> Loaded {
    let mut text = HEAD.to_owned();
    for line in spec.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    if !spec.contains("triggers:") {
        text.push_str("  triggers: [{ name: push, on: push }]\n");
    }
    if !spec.contains("pipelineRef:") && !spec.contains("pipelineSpec:") {
        text.push_str("  pipelineRef: { path: .tekton/build.yaml }\n");
    }
    load("ci.yaml", &text, context)
}

#[test]
fn each_rule_is_told_with_its_field_and_what_is_allowed() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "triggers: []",
            "spec.triggers",
            "nothing would ever start it (name at least one trigger, such as { name: push, on: push })",
        ),
        (
            "triggers: [{ name: A b, on: push }]",
            "spec.triggers[0].name",
            "\"A b\" cannot be a trigger's name (at most 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit)",
        ),
        (
            "triggers: [{ name: a, on: push }, { name: a, on: tag }]",
            "spec.triggers[1].name",
            "another trigger is named \"a\" (rename one of them)",
        ),
        (
            "triggers: [{ name: a, on: pullrequest }]",
            "spec.triggers[0].on",
            "there are no events of the kind \"pullrequest\"; did you mean `pull_request`? (known kinds: push, tag, pull_request, label, comment, schedule, manual)",
        ),
        (
            "triggers: [{ name: a, on: command }]",
            "spec.triggers[0].on",
            "there are no events of the kind \"command\"; did you mean `comment`? (known kinds: push, tag, pull_request, label, comment, schedule, manual)",
        ),
        (
            "triggers: [{ name: a, on: push, actions: [deleted] }]",
            "spec.triggers[0].actions[0]",
            "events of the kind push have no action \"deleted\" (nothing can run for a ref that is gone; known actions: created, updated, forced)",
        ),
        (
            "triggers: [{ name: a, on: manual, actions: [x] }]",
            "spec.triggers[0].actions[0]",
            "events of the kind manual have no action \"x\" (leave `actions` out)",
        ),
        (
            "triggers: [{ name: a, on: push, tags: [v1] }]",
            "spec.triggers[0].tags",
            "`tags` has no meaning for events of the kind push (use `on: tag`)",
        ),
        (
            "triggers: [{ name: a, on: tag, branches: [x] }]",
            "spec.triggers[0].branches",
            "`branches` has no meaning for events of the kind tag (use `tags`)",
        ),
        (
            "triggers: [{ name: a, on: manual, paths: { include: [x] } }]",
            "spec.triggers[0].paths",
            "`paths` has no meaning for events of the kind manual (it has a meaning with on: push, pull_request, label, comment)",
        ),
        (
            "triggers: [{ name: a, on: schedule, branches: [x], schedule: { cron: '@daily' } }]",
            "spec.triggers[0].branches",
            "`branches` has no meaning for events of the kind schedule (use `schedule.ref`)",
        ),
        (
            "triggers: [{ name: a, on: push, command: /x }]",
            "spec.triggers[0].command",
            "`command` has no meaning for events of the kind push (it has a meaning with on: comment)",
        ),
        (
            "triggers: [{ name: a, on: push, labels: [x] }]",
            "spec.triggers[0].labels",
            "`labels` has no meaning for events of the kind push (it has a meaning with on: label, pull_request, comment)",
        ),
        (
            "triggers: [{ name: a, on: push, schedule: { cron: '@daily' } }]",
            "spec.triggers[0].schedule",
            "`schedule` has no meaning for events of the kind push (it has a meaning with on: schedule)",
        ),
        (
            "triggers: [{ name: a, on: schedule }]",
            "spec.triggers[0]",
            "a trigger with `on: schedule` says when (add `schedule: { cron: \"0 3 * * *\" }`)",
        ),
        (
            "triggers: [{ name: a, on: schedule, schedule: { cron: '0 0 30 2 *' } }]",
            "spec.triggers[0].schedule.cron",
            "\"0 0 30 2 *\": this cron line never fires (five fields: minute, hour, day of month, month, day of week, such as \"0 3 * * 1-5\"; or @hourly, @daily, @weekly, @monthly, @yearly)",
        ),
        (
            "triggers: [{ name: a, on: schedule, schedule: { cron: '@daily' }, filter: \
             'event.pull_request.draft' }]",
            "spec.triggers[0].filter",
            "the filter names `event.pull_request.draft`, which events of the kind schedule never have",
        ),
        (
            "triggers: [{ name: a, on: schedule, schedule: { cron: '@daily' }, filter: \
             'body.size > 3' }]",
            "spec.triggers[0].filter",
            "the filter names `body`, which events of the kind schedule never have",
        ),
        (
            "triggers: [{ name: a, on: push, filter: 'event.pull_request.draft' }]",
            "spec.triggers[0].filter",
            "the filter names `event.pull_request.draft`, which events of the kind push never have",
        ),
        (
            "triggers: [{ name: a, on: pull_request, filter: 'event.comment.body == \"x\"' }]",
            "spec.triggers[0].filter",
            "the filter names `event.comment.body`, which events of the kind pull_request never have",
        ),
        (
            "triggers: [{ name: a, on: deployment, command: /bench }]",
            "spec.triggers[0].command",
            "`command` has no meaning for events of the kind deployment (it has a meaning with on: comment)",
        ),
        (
            "triggers: [{ name: a, on: deployment, schedule: { cron: '@daily' } }]",
            "spec.triggers[0].schedule",
            "`schedule` has no meaning for events of the kind deployment (it has a meaning with on: schedule)",
        ),
        (
            "triggers: [{ name: a, on: comment, command: /retest }]",
            "spec.triggers[0].command",
            "the command `/retest` belongs to the platform; choose another name",
        ),
        (
            "triggers: [{ name: a, on: push, branches: [] }]",
            "spec.triggers[0].branches",
            "it includes and excludes nothing (name patterns, or leave the field out)",
        ),
        (
            "triggers: [{ name: a, on: push, paths: {} }]",
            "spec.triggers[0].paths",
            "it includes and excludes nothing (name patterns in include or exclude, or leave `paths` out)",
        ),
        (
            "triggers: [{ name: a, on: push, branches: main }]",
            "spec.triggers[0].branches",
            "expected a list of patterns, or a mapping with the lists include and exclude, found string \"main\"",
        ),
        ("triggers: [{ on: push }]", "spec.triggers[0]", "the field `name` is missing"),
        (
            "triggers: [{ name: a, on: push, whenSkipped: grey }]",
            "spec.triggers[0].whenSkipped",
            "unknown value \"grey\" (known values: silent, neutral)",
        ),
        (
            "triggers: [{ name: a, on: schedule, schedule: { cron: 0 3 * * } }]",
            "spec.triggers[0].schedule.cron",
            "\"0 3 * *\": this is no cron line: Invalid pattern: Pattern must have 5 fields when seconds are disallowed. (five fields: minute, hour, day of month, month, day of week, such as \"0 3 * * 1-5\"; or @hourly, @daily, @weekly, @monthly, @yearly)",
        ),
        (
            "params: [{ name: 1a, value: x }]",
            "spec.params[0].name",
            "\"1a\" cannot be a parameter's name (letters, digits, '-', '_' and '.', beginning with a letter or '_')",
        ),
        (
            "params: [{ name: a, value: x }, { name: a, value: y }]",
            "spec.params[1].name",
            "another parameter is named \"a\" (rename one of them)",
        ),
        (
            "params: [{ name: a, value: [x, true] }]",
            "spec.params[0].value[1]",
            "a parameter's value is made of strings, and this is the boolean true (write it in quotes: \"true\")",
        ),
        (
            "params: [{ name: a, value: x, default: [y] }]",
            "spec.params[0].default",
            "the value is a string, and the default an array",
        ),
        (
            "pipelineRef: {}",
            "spec.pipelineRef",
            "it names no pipeline (give one of path (a file in the repository), name (a Pipeline of the cluster) or resolver)",
        ),
        (
            "pipelineRef: { path: a.yaml, name: b }",
            "spec.pipelineRef",
            "path and name exclude each other (keep one of them)",
        ),
        (
            "pipelineRef: { path: /etc/x.yaml }",
            "spec.pipelineRef.path",
            "\"/etc/x.yaml\" is no path of a YAML file in the repository (from the repository's root, without `.` and `..`, such as .tekton/ci.yaml)",
        ),
        (
            "pipelineRef: { path: a.yaml, repo: confg }\nrepos: [{ name: config, connection: c, repo: a/b }]",
            "spec.pipelineRef.repo",
            "no repository is named \"confg\"; did you mean `config`? (known repositories: config)",
        ),
        (
            "pipelineRef: { name: a, params: [{ name: x, value: y }] }",
            "spec.pipelineRef.params",
            "these are the parameters of a resolver, and there is none (parameters of the pipeline stand in spec.params)",
        ),
        (
            "pipelineRef: { name: $(event.kind) }",
            "spec.pipelineRef.name",
            "references are not substituted here (references have a meaning in params, concurrency groups, workspaces and the params of a resolver)",
        ),
        (
            "pipelineRef: { name: a }\npipelineSpec: { tasks: [{ name: t }] }",
            "spec.pipelineSpec",
            "`pipelineRef` and `pipelineSpec` exclude each other (keep one of them)",
        ),
        (
            "pipelineSpec: { tasks: [] }",
            "spec.pipelineSpec",
            "the pipeline has no tasks (a Tekton PipelineSpec with a list `tasks`)",
        ),
        (
            "serviceAccountName: $(event.sender)",
            "spec.serviceAccountName",
            "references are not substituted here (references have a meaning in params, concurrency groups, workspaces and the params of a resolver)",
        ),
        (
            "workspaces: [{ name: a }]",
            "spec.workspaces[0]",
            "the workspace \"a\" has 0 volumes (exactly one of volumeClaimTemplate, persistentVolumeClaim, emptyDir, configMap, secret, projected, csi)",
        ),
        (
            "workspaces: [{ name: a, emptydir: {} , secret: {} }]",
            "spec.workspaces[0].emptydir",
            "unknown field \"emptydir\"; did you mean `emptyDir`? (known fields: name, subPath, volumeClaimTemplate, persistentVolumeClaim, emptyDir, configMap, secret, projected, csi)",
        ),
        (
            "taskRunSpecs: [{ pipelineTaskName: a }, { pipelineTaskName: a }]",
            "spec.taskRunSpecs[1].pipelineTaskName",
            "another entry is for the task \"a\"",
        ),
        (
            "timeouts: { pipeline: 1h, tasks: 50m, finally: 20m }",
            "spec.timeouts.pipeline",
            "the timeouts of tasks and finally together are longer than the pipeline's (make `pipeline` at least their sum)",
        ),
        (
            "timeouts: { pipeline: 1d }",
            "spec.timeouts.pipeline",
            "\"1d\": Tekton's durations have no days (write hours, such as 24h)",
        ),
        (
            "concurrency: [{ group: a, strategy: queue, maxRunning: 0 }]",
            "spec.concurrency[0].maxRunning",
            "nothing would ever run (at least 1)",
        ),
        (
            "concurrency: [{ group: a, strategy: allow, cancel: atOnce }]",
            "spec.concurrency[0]",
            "`cancel` has a meaning only with `strategy: replace`",
        ),
        (
            "concurrency: [{ group: a, strategy: queue, maxQueue: 3 }]",
            "spec.concurrency[0].maxQueue",
            "unknown field `maxQueue`; did you mean `maxQueued`? (known fields: group, shared, strategy, cancel, maxRunning, maxQueued, maxWait)",
        ),
        (
            "notify: [{ notifier: slack, on: [] }]",
            "spec.notify[0].on",
            "nobody would ever be told anything (name transitions, or leave the field out for failed, timed_out and recovered)",
        ),
        (
            "notify: [{ notifier: slack, on: [failure] }]",
            "spec.notify[0].on[0]",
            "unknown value \"failure\" (known values: waiting_for_approval, queued, started, progress, running_long, succeeded, failed, cancelled, timed_out, superseded, expired, refused, recovered, still_failing)",
        ),
        ("retention: { runs: 0 }", "spec.retention.runs", "no run would be kept (at least 1)"),
        (
            "retention: { runs: -1 }",
            "spec.retention.runs",
            "expected a whole number from 0 to 4294967295, found the number -1",
        ),
        (
            "params: [{ name: revision }, { name: url }, { name: level }]",
            "spec.params[2]",
            "the parameter \"level\" has neither a value nor a default (add `value`, such as $(event.head.sha); or `default`, which a caller's parameter of that name replaces; without either, only revision, ref, branch, tag, pull-request, repo, sender, url are known)",
        ),
        (
            "params: [{ name: pull-request }]",
            "spec.params[0].value",
            "events of the trigger \"push\" (on: push) never have $(event.pull_request.number) (give the parameter a default, or the trigger params of its own)",
        ),
        (
            "retention: { age: soon }",
            "spec.retention.age",
            "\"soon\" is no duration (write it as 90s, 30m, 1h30m or 7d)",
        ),
        (
            "repos: [{ name: a, connection: c, repo: acme/* }]",
            "spec.repos[0].repo",
            "\"acme/*\" is a pattern, which is not allowed here (a document in a repository names each further repository in full)",
        ),
        (
            "repos: [{ name: self, connection: c, repo: acme/x }]",
            "spec.repos[0].name",
            "`self` means the repository that a document stands in (choose another name)",
        ),
    ];
    for (spec, field, message) in cases {
        let loaded = load_spec(spec, &LoadContext::in_repository());
        let lines: Vec<String> = loaded.problems.iter().map(|problem| problem.one_line()).collect();
        let wanted = format!(": {field}: {message}");
        assert!(
            lines.iter().any(|line| line.ends_with(&wanted)),
            "{spec}\nwanted ...{wanted}\nfound  {lines:#?}"
        );
    }
}

#[test]
fn what_cannot_be_read_hides_no_error_elsewhere_and_moves_none() {
    let spec = "triggers:
- { on: push }
- { name: b, on: push, branches: ['{a'] }
- { name: b, on: pussh }
notify:
- { notifier: slack, on: [failure, failed], filter: 'nonsense(' }
retention: { age: soon }";
    let loaded = load_spec(spec, &LoadContext::in_repository());
    let fields: Vec<&str> = loaded.problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(
        fields,
        [
            "spec.triggers[0]",
            "spec.triggers[1].branches[0]",
            "spec.triggers[2].name",
            "spec.triggers[2].on",
            "spec.notify[0].on[0]",
            "spec.notify[0].filter",
            "spec.retention.age",
        ],
        "{:#?}",
        loaded.problems
    );
}

#[test]
fn a_registered_document_names_its_repository_and_may_use_a_pattern() {
    let context = LoadContext::registered();
    let found = load_spec("", &context).problems;
    assert_eq!(found[0].message, "a registered workflow names the repository that it is about");
    let fine = "repos: [{ name: code, connection: acme, repo: acme/* }, { name: config, connection: \
                acme, repo: acme/release, ref: main }]\nparams: [{ name: url, value: \
                $(repos.config.url) }]";
    assert!(load_spec(fine, &context).problems.is_empty());
    let second = "repos: [{ name: code, connection: acme, repo: acme/api }, { name: config, \
                  connection: acme, repo: acme/* }]";
    assert_eq!(
        load_spec(second, &context).problems[0].remedy.as_deref(),
        Some("only the first repository can be a pattern")
    );
}

#[test]
fn only_the_repository_that_a_document_is_about_is_called_self() {
    let context = LoadContext::registered();
    let first = "repos: [{ name: self, connection: acme, repo: acme/api }]\nparams: [{ name: url, \
                 value: $(repos.self.url) }]";
    assert_eq!(load_spec(first, &context).problems, []);
    let second = "repos: [{ name: code, connection: acme, repo: acme/api }, { name: self, \
                  connection: acme, repo: acme/other }]";
    assert_eq!(
        load_spec(second, &context).problems[0].message,
        "`self` means the repository that a document stands in"
    );
}

#[test]
fn names_that_the_platform_does_not_offer_are_refused_when_it_said_what_it_offers() {
    let set = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
    let mut context = LoadContext::in_repository();
    context.notifiers = set(&["team-slack"]);
    context.sinks = set(&["cluster"]);
    context.custom_filters = set(&[]);
    context.connections = set(&["acme"]);
    context.custom_kinds = set(&["deployment"]);
    let spec = "notify: [{ notifier: team-slak }]\nsink: local\nrepos: [{ name: a, connection: \
                acm, repo: x/y }]\ntriggers: [{ name: a, on: push, customFilter: mine }, { name: b, \
                on: deployment }, { name: c, on: release }]";
    let found = load_spec(spec, &context).problems;
    let mut messages: Vec<&str> = found.iter().map(|problem| &*problem.message).collect();
    messages.sort_unstable();
    assert_eq!(
        messages,
        [
            "there are no events of the kind \"release\"",
            "there is no connection named \"acm\"; did you mean `acme`?",
            "there is no filter named \"mine\"",
            "there is no notifier named \"team-slak\"; did you mean `team-slack`?",
            "there is no sink named \"local\"",
        ]
    );
}

#[test]
fn an_object_of_a_cluster_and_a_file_that_say_the_same_are_the_same() {
    let text = format!(
        "{HEAD}  params: [{{ name: a, value: x }}]\n  repos: [{{ name: code, connection: c, repo: \
         a/b }}]\n  triggers: [{{ name: push, on: push }}]\n  pipelineRef: {{ name: p }}\n"
    );
    let context = LoadContext::registered();
    let file = load("ci.yaml", &text, &context);
    let object = json!({
        "kind": "Workflow",
        "apiVersion": "workflows.tekton.dev/v1alpha1",
        "metadata": {
            "name": "ci",
            "uid": "1",
            "resourceVersion": "5",
            "managedFields": [],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        },
        "spec": {
            "pipelineRef": {"name": "p"},
            "triggers": [{"on": "push", "name": "push", "actions": [], "paths": null}],
            "repos": [{"repo": "a/b", "connection": "c", "name": "code"}],
            "params": [{"value": "x", "name": "a"}],
        },
        "status": {"anything": 1},
    });
    let object = load_object("namespaces/a/workflows/ci", &object, &context).unwrap();
    assert_eq!(object.workflow(), file.workflows[0].workflow());
    assert_eq!(object.digest(), file.workflows[0].digest());
    let other = load("ci.yaml", &text.replace("value: x", "value: y"), &context);
    assert_ne!(other.workflows[0].digest(), object.digest());
}

#[test]
fn a_document_survives_the_way_through_its_json_form() {
    let spec = "concurrency: [{ group: a, strategy: queue, maxRunning: 2 }, { group: b, strategy: \
                replace, cancel: atOnce }, { group: c, strategy: replace }]\ntriggers: [{ name: a, \
                on: push, branches: { include: [main], exclude: [x] }, filter: [a, b] }]";
    let spec = spec.replace("filter: [a, b]", "filter: [\"event.kind == 'push'\"]");
    let loaded = load_spec(&spec, &LoadContext::in_repository());
    assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
    let workflow = loaded.workflows[0].workflow();
    let json = serde_json::to_value(&**workflow).unwrap();
    assert_eq!(serde_json::from_value::<workflows_core::Workflow>(json).unwrap(), **workflow);
}

/// The fewest words: what a listener, a binding and a template of Tekton Triggers say for a pull
/// request and a push, a Workflow says in a third of the lines, and a new parameter is one line in
/// one list.
#[test]
fn a_workflow_is_a_third_of_what_triggers_need_for_the_same() {
    let triggers = include_str!("documents/triggers.yaml");
    let workflow = include_str!("documents/workflow.yaml");
    let loaded = load("workflow.yaml", workflow, &LoadContext::in_repository());
    assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    let (theirs, ours) = (lines(triggers), lines(workflow));
    assert!(ours * 3 <= theirs, "{ours} lines, and {theirs} for Triggers");
    let mentions = |text: &str, word: &str| text.matches(word).count();
    assert_eq!(mentions(workflow, "name: revision"), 1);
    assert_eq!(mentions(triggers, "name: revision"), 4);
}

#[test]
fn the_schema_in_the_documentation_is_current() {
    let file = docs("workflow.schema.json");
    let current = json_schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        let text = serde_json::to_string_pretty(&current).unwrap();
        std::fs::write(&file, format!("{text}\n")).unwrap();
    }
    // Compared as values: the order of the fields depends on what else is in the build.
    let stored: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let current = serde_json::to_value(current).unwrap();
    assert!(stored == current, "run this test with UPDATE_SCHEMA=1 and look at the difference");
}

/// A block of the guide: the words behind its fence, and its text.
fn blocks(guide: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in guide.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(words), None) => open = Some((words.to_owned(), String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn every_example_of_the_guide_loads_and_fits_the_schema() {
    let guide = std::fs::read_to_string(docs("workflow-author.md")).unwrap();
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let mut examples = 0;
    for (words, text) in blocks(&guide) {
        let context = match &*words {
            "yaml" => LoadContext::in_repository(),
            "yaml registered" => LoadContext::registered(),
            _ => continue,
        };
        let loaded = if text.contains("apiVersion:") {
            load("guide.yaml", &text, &context)
        } else {
            load_spec(&text, &context)
        };
        assert!(loaded.problems.is_empty(), "{text}\n{}", loaded.problems[0]);
        for workflow in &loaded.workflows {
            let json = serde_json::to_value(&**workflow.workflow()).unwrap();
            let errors: Vec<String> =
                schema.iter_errors(&json).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{text}\n{errors:?}");
        }
        examples += 1;
    }
    assert!(examples >= 14, "only {examples} examples were found");
}

#[test]
fn every_error_of_the_guide_is_what_its_example_gives() {
    let guide = std::fs::read_to_string(docs("workflow-author.md")).unwrap();
    let blocks = blocks(&guide);
    let mut errors = 0;
    for pair in blocks.windows(2) {
        let [(words, text), (_, wanted)] = pair else { continue };
        if words != "yaml wrong" {
            continue;
        }
        let loaded = load(".tekton/ci.yaml", text, &LoadContext::in_repository());
        let found: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(found.join("\n\n"), wanted.trim_end(), "{text}");
        errors += 1;
    }
    assert!(errors >= 2, "only {errors} errors were found");
}

#[test]
fn the_schema_refuses_what_the_loader_refuses_by_type() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let document = |spec: Value| {
        json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": "a"},
            "spec": spec,
        })
    };
    assert!(schema.is_valid(&document(json!({"triggers": [{"name": "a", "on": "push"}]}))));
    for wrong in [
        json!({}),
        json!({"triggers": [{"name": "a"}]}),
        json!({"triggers": [], "tirggers": []}),
        json!({"triggers": [], "concurrency": [{"group": "a", "strategy": "none"}]}),
        json!({"triggers": [], "concurrency": [{"group": "a", "strategy": "allow", "x": 1}]}),
        json!({"triggers": [{"name": "a", "on": "push", "branches": "main"}]}),
    ] {
        assert!(!schema.is_valid(&document(wrong.clone())), "{wrong}");
    }
}
