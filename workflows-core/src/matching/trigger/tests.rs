//! What is refused in a trigger, and how it is told.

use serde_json::{Value, json};

use super::*;

fn compile(trigger: Value) -> Result<CompiledTrigger, Vec<String>> {
    let trigger: Trigger = serde_json::from_value(trigger).unwrap();
    CompiledTrigger::compile(&trigger)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_field() {
    let problems = compile(json!({
        "name": "t", "on": "push",
        "branches": ["main", "release**"],
        "tags": {"exclude": ["refs/heads/x"]},
        "paths": {"include": ["/src"]},
        "command": "bench",
        "filter": ["event.acton == 'x'", "event.action == 'x'", "'yes'"],
    }))
    .unwrap_err();
    assert_eq!(
        problems,
        [
            "branches.include[1]: the pattern \"release**\" is refused: `**` must stand alone \
             between `/`, and stands in `release**`; write `*` for characters within a part",
            "tags.exclude[0]: the pattern \"refs/heads/x\" is refused: `tags` are names below \
             `refs/tags/`, and this is not one of them",
            "paths.include[0]: the pattern \"/src\" is refused: names have no leading `/` or `./`; \
             write `src`",
            "command: the command \"bench\" is refused: a command is `/` and a word of letters, \
             digits, `-` and `_` that begins with a letter, such as `/bench`",
            "filter[0]: the filter \"event.acton == 'x'\" is refused: `event.acton` does not exist; \
             is `event.action` meant?",
            "filter[2]: the filter \"'yes'\" is refused: it gives a string, and a filter gives true \
             or false",
        ]
    );
}

#[test]
fn commands_of_the_platform_cannot_be_taken() {
    for command in PlatformCommand::NAMES {
        assert_eq!(
            compile(json!({"name": "t", "on": "comment", "command": command})).unwrap_err(),
            [format!(
                "command: the command `{command}` belongs to the platform; choose another name"
            )]
        );
    }
}

#[test]
fn a_trigger_has_a_limited_number_of_expressions_and_patterns() {
    assert_eq!(
        compile(json!({"name": "t", "on": "push", "filter": vec!["true"; 17]})).unwrap_err(),
        ["filter: a trigger has at most 16 expressions, and this one 17"]
    );
    assert_eq!(
        compile(json!({"name": "t", "on": "push", "branches": vec!["a"; 257]})).unwrap_err(),
        ["branches.include: a list has at most 256 patterns, and this one 257"]
    );
}

#[test]
fn the_guards_of_a_trigger_are_those_of_its_branches_and_expressions() {
    let trigger = compile(json!({"name": "t", "on": "push", "branches": ["main", "dev"],
        "filter": ["event.sender == 'ada'", "true"]}))
    .unwrap();
    let guards: Vec<_> = trigger
        .guards()
        .into_iter()
        .map(|g| format!("{} {} {}", g.filter, g.guard.path, g.guard.wanted.join("|")))
        .collect();
    assert_eq!(guards, ["branches branch dev|main", "filter event.sender ada"]);
    let wild = compile(json!({"name": "t", "on": "push", "branches": ["main", "d*"]})).unwrap();
    assert!(wild.guards().is_empty());
}
