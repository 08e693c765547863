//! What the manifests say, held against the program.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

/// All documents of the manifests.
fn documents() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        all.extend(documents.into_iter().map(|one| (name.clone(), one)));
    }
    all
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn what_a_controller_is_set_to_the_program_takes_and_it_ends_before_it_is_killed() {
    let help = Command::new(env!("CARGO_BIN_EXE_workflows-controller")).arg("--help").output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    // Wherever it breaks its lines.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let known: BTreeSet<&str> =
        help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap()).collect();
    let grace = help.split("[env: GRACE_SECONDS").nth(1).unwrap();
    let grace = grace.split("[default: ").nth(1).unwrap().split(']').next().unwrap();
    let grace: u64 = grace.parse().unwrap();
    let mut controllers = 0;
    for (file, document) in documents() {
        let Some(pod) = document.pointer("/spec/template/spec") else { continue };
        controllers += 1;
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > grace, "{file}");
        let container = &pod["containers"][0];
        let set: Vec<&str> = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        for name in &set {
            assert!(known.contains(name), "{file} sets {name}, which is none of {known:?}");
        }
        for needed in ["POD_NAME", "POD_NAMESPACE", "PLATFORM_NAMESPACE"] {
            assert!(set.contains(&needed), "{file} does not set {needed}");
        }
        let ports: BTreeSet<&str> = container["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["name"].as_str().unwrap())
            .collect();
        assert_eq!(ports, BTreeSet::from(["api", "hooks"]), "{file}");
        for probe in ["readinessProbe", "livenessProbe"] {
            assert_eq!(text(&container[probe], "/httpGet/port"), "api", "{file} {probe}");
        }
        assert_eq!(text(pod, "/serviceAccountName"), "workflows-controller", "{file}");
    }
    assert_eq!(controllers, 2);
}

#[test]
fn every_role_that_is_bound_is_there() {
    let documents = documents();
    let names = |kind: &str| -> BTreeSet<&str> {
        let of_kind = documents.iter().filter(|(_, one)| one["kind"] == kind);
        of_kind.map(|(_, one)| text(one, "/metadata/name")).collect()
    };
    let accounts = names("ServiceAccount");
    let mut bound = BTreeSet::new();
    for (file, binding) in &documents {
        if !text(binding, "/kind").ends_with("Binding") {
            continue;
        }
        let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
        assert!(names(kind).contains(name), "{file} binds {kind} {name}, which is not there");
        bound.insert(name);
        for subject in binding["subjects"].as_array().unwrap() {
            if subject["kind"] == "ServiceAccount" {
                assert!(accounts.contains(text(subject, "/name")), "{file}: {subject}");
            }
        }
    }
    // Roles for people are added to the cluster's own by their labels.
    for (file, role) in &documents {
        let is_role = ["Role", "ClusterRole"].contains(&text(role, "/kind"));
        let is_added = role.pointer("/metadata/labels").is_some();
        let name = text(role, "/metadata/name");
        assert!(!is_role || is_added || bound.contains(name), "{file}: nobody has {name}");
    }
}
