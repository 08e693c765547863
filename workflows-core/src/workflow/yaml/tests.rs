use super::*;

fn one(text: &str) -> Document {
    let (mut documents, problems) = read(text, YamlLimits::default());
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

fn refused(text: &str) -> Problem {
    let (documents, mut problems) = read(text, YamlLimits::default());
    assert!(documents.is_empty(), "{documents:?}");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn on_is_a_plain_key_and_only_true_and_false_are_booleans() {
    let document = one("on: push\nyes: no\nall: [yes, no, on, off, y, True, false, ~]\n");
    assert_eq!(
        document.value,
        serde_json::json!({
            "on": "push",
            "yes": "no",
            "all": ["yes", "no", "on", "off", "y", true, false, null],
        })
    );
}

#[test]
fn numbers_that_would_lose_their_spelling_stay_text() {
    let document = one("a: [010, 1_000, 7, -1, 1.5, '5']");
    assert_eq!(document.value["a"], serde_json::json!(["010", "1_000", 7, -1, 1.5, "5"]));
}

#[test]
fn every_value_knows_its_line_and_column() {
    let document = one("# head\nspec:\n  triggers:\n  - name: a\n  - {name: b, on: push}\n");
    let find = |field: &str, name: bool| {
        let Position { line, column } = document.places.find(field, name);
        (line, column)
    };
    assert_eq!(find("spec.triggers[1].on", false), (5, 19));
    assert_eq!(find("spec.triggers[1].on", true), (5, 15));
    assert_eq!(find("spec.triggers", false), (3, 3));
    assert_eq!(find("spec.triggers[0].schedule.cron", false), (4, 5));
    assert_eq!(find("", false), (2, 1));
}

#[test]
fn a_broken_document_does_not_hide_the_others_of_its_file() {
    let text = "%YAML 1.2\n---\na: 1\n---\nb: [\n---\n# nothing\n---\nc: 1\n...\n---\nd: {e: 2}\n";
    let (documents, problems) = read(text, YamlLimits::default());
    let values: Vec<_> = documents.iter().map(|document| document.value.to_string()).collect();
    assert_eq!(values, [r#"{"a":1}"#, r#"{"c":1}"#, r#"{"d":{"e":2}}"#]);
    assert_eq!(documents[2].places.find("d.e", false), Position { line: 12, column: 8 });
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].message, "this is not readable YAML: unclosed bracket '['");
    assert_eq!((problems[0].line, problems[0].column), (Some(5), Some(4)));
}

#[test]
fn a_key_stands_once_in_a_mapping() {
    let problem = refused("a: {b: 1, c: 2, b: 3}");
    assert_eq!(problem.message, "the key \"b\" stands twice in one mapping");
    assert_eq!((problem.line, problem.column), (Some(1), Some(17)));
}

#[test]
fn malformed_and_truncated_text_is_refused_at_its_place() {
    for (text, message, place) in [
        ("a: [1, 2", "unclosed bracket '['", (1, 4)),
        ("a: \"x", "unclosed quote", (1, 4)),
        ("a:\n\tb: 1", "tabs disallowed within this context (block indentation)", (2, 2)),
        ("a: b: c", "mapping values are not allowed in this context", (1, 5)),
        ("a: !foo x", "unsupported tag `!foo`", (1, 9)),
        ("a: .inf", "value `.inf` is not a finite number", (1, 4)),
        ("a: *nope", "reference to unknown value", (1, 4)),
        ("a: &x [*x]", "Recursive reference not allowed here", (1, 8)),
    ] {
        let problem = refused(text);
        assert_eq!(problem.message, format!("this is not readable YAML: {message}"));
        assert_eq!((problem.line, problem.column), (Some(place.0), Some(place.1)), "{text}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let flow = refused(&"[".repeat(100_000));
    assert_eq!(flow.message, "this is not readable YAML: recursion limit exceeded");
    let block = refused(&"- ".repeat(1_000));
    assert_eq!(block.message, TOO_MUCH);
    assert_eq!(block.remedy.as_deref(), Some(MOST));
}

const TOO_MUCH: &str =
    "the document is too large, too deeply nested, or its aliases stand for too much";
const MOST: &str =
    "a document has at most 64 levels and 50000 values, with what its aliases stand for";

#[test]
fn alias_bombs_are_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let items = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let problem = refused(&bomb);
    assert_eq!(problem.message, TOO_MUCH);
    assert_eq!(problem.remedy.as_deref(), Some(MOST));
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let problem = refused(&" ".repeat(2 << 20));
    assert_eq!(problem.message, "the file has 2097152 bytes; at most 1048576 are read");
    let many = refused(&"---\na: 1\n".repeat(300));
    assert_eq!(many.message, "the file has more than 256 documents");
}

#[test]
fn merge_keys_and_anchors_are_resolved() {
    let document = one("base: &base {a: 1}\nuse: {<<: *base, b: 2}\n");
    assert_eq!(document.value["use"], serde_json::json!({"a": 1, "b": 2}));
}
