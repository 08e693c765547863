//! What expressions mean, what is refused, and that none of them stalls or ends the process.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::matching::expression::view::{EVENT, Shape};

fn event() -> Value {
    json!({
        "kind": "pull_request",
        "action": "opened",
        "actions": ["opened", "ready"],
        "repo": {"connection": "acme", "id": "1", "name": "acme/api", "owner": "acme"},
        "head": {"sha": "3f2a", "ref": "refs/heads/x", "branch": "x", "tag": null},
        "base": {"sha": "4f2a", "ref": "refs/heads/main", "branch": "main", "tag": null},
        "pull_request": {
            "number": 7, "title": "Add [skip ci] flag", "author": "ada", "draft": false,
            "state": "open", "labels": ["bug", "size/L"], "fork": true, "url": null,
            "head": {"sha": "3f2a", "ref": "refs/heads/x", "branch": "x", "tag": null},
            "base": {"sha": "4f2a", "ref": "refs/heads/main", "branch": "main", "tag": null},
        },
        "label": null,
        "comment": null,
        "sender": "ada",
        "data": {"slot": "x", "n": 3},
        "key": "k",
        "time": "2026-03-01T12:00:00Z",
    })
}

fn evaluate(source: &str) -> Result<bool, String> {
    let files = ["src/lib.rs".into(), "docs/a.md".into()];
    let body = json!({
        "action": "opened",
        "n": 2, "big": 9007199254740993u64, "f": 1.5,
        "list": [{"name": "a", "tags": ["x"]}, {"name": "b", "tags": ["y", "z"]}],
        "matrix": [[1, 2], [3]],
        "deep": {"a": {"b": "c"}},
    });
    let headers = json!({"x-github-event": "pull_request"});
    let event = event();
    let variables = Variables {
        event: &event,
        changed_files: Some(&files),
        body: Some(&body),
        run: None,
        headers: Some(&headers),
    };
    Expression::compile(source)?.evaluate(&variables)
}

fn holds(source: &str) {
    assert_eq!(evaluate(source), Ok(true), "{source}");
}

fn fails(source: &str) {
    assert_eq!(evaluate(source), Ok(false), "{source}");
}

fn refusal(source: &str) -> String {
    Expression::compile(source).expect_err(source)
}

#[test]
fn the_usual_filters_mean_what_they_say() {
    holds("event.action in ['opened', 'updated'] && event.base.branch == 'main'");
    holds("!event.pull_request.draft");
    fails("event.pull_request.draft");
    holds("event.pull_request.fork && event.sender != 'bot'");
    holds("event.pull_request.labels.exists(l, l.startsWith('size/'))");
    holds("'bug' in event.pull_request.labels");
    holds("event.changed_files.exists(f, f.endsWith('.rs'))");
    fails("event.changed_files.all(f, f.endsWith('.md'))");
    holds("size(event.changed_files.filter(f, f.startsWith('docs/'))) == 1");
    holds("event.pull_request.title.contains('[skip ci]')");
    holds("event.pull_request.title.matches('(?i)SKIP')");
    holds("matches(event.head.sha, '^[0-9a-f]{4}$')");
    holds("event.pull_request.number % 2 == 1 ? true : false");
    holds("timestamp(event.time) > timestamp('2026-01-01T00:00:00Z')");
    holds("timestamp(event.time).getHours() == 12");
    holds("event.data.n == 3 && event.data.slot == 'x'");
    holds("event.pull_request.labels == ['bug', 'size/L']");
    holds("event.pull_request.labels[0] == 'bug'");
    holds("event.actions.map(a, size(a) + 1) == [7, 6]");
}

#[test]
fn what_an_event_does_not_have_is_null_and_has_says_so() {
    holds("event.label == null");
    holds("event.comment.body == null");
    holds("event.data.missing == null");
    fails("event.label == 'x'");
    fails("has(event.label)");
    holds("has(event.sender) && !has(event.comment.body)");
    fails("event.comment.body == 'x' || event.label in ['a']");
    holds("event.?label.orValue('none') == null || true");
}

#[test]
fn the_payload_is_the_escape_hatch() {
    holds("body.action == 'opened'");
    holds("body.n == 2 && body.n + 1 == 3 && body.f == 1.5");
    holds("body.big == 9007199254740993");
    holds("body.list.exists(x, x.name == 'b' && x.tags.exists(t, t == 'z'))");
    holds("body.matrix.exists(row, row.exists(c, c == 3))");
    holds("'deep' in body && body.deep.all(k, k == 'a')");
    holds("has(body.deep.a) && !has(body.deep.b)");
    holds("body.?nope.?deeper.orValue('x') == 'x'");
    holds("headers['x-github-event'] == 'pull_request'");
    assert_eq!(evaluate("body.nope == 'x'"), Err("the payload has no `body.nope`".to_owned()));
    assert_eq!(evaluate("body.nope > 1"), Err("No such key: nope".to_owned()));
    fails("body.action == 'closed' && body.nope == 'x'");
    fails("body.nope == 'x' && body.action == 'closed'");
}

#[test]
fn without_a_payload_or_files_the_expression_fails_and_does_not_match() {
    let event = event();
    let variables = Variables::of_event(&event);
    let evaluate = |source: &str| Expression::compile(source).unwrap().evaluate(&variables);
    assert_eq!(
        evaluate("body.x == 'y'"),
        Err("there is no payload, so `body` has no value".to_owned())
    );
    assert_eq!(
        evaluate("headers['a'] == 'y'"),
        Err("there is no payload, so `headers` has no value".to_owned())
    );
    assert_eq!(
        evaluate("event.changed_files.exists(f, f == 'a')"),
        Err("the changed files are not known".to_owned())
    );
}

#[test]
fn what_is_no_boolean_is_an_error_and_never_a_match() {
    assert_eq!(evaluate("event.data.slot"), Err("it gave a string, and not true or false".into()));
    assert_eq!(evaluate("body.n"), Err("it gave a int, and not true or false".into()));
    for (source, is) in [
        ("'a'", "a string"),
        ("1", "a number"),
        ("[true]", "a list"),
        ("null", "null"),
        ("event.sender", "a string"),
        ("event.pull_request.labels", "a list"),
        ("event.head", "an object"),
        ("size(event.actions)", "a number"),
        ("event.actions.map(a, a == 'x')", "a list"),
        ("1 + 2", "a number, a string or a list"),
    ] {
        assert_eq!(refusal(source), format!("it gives {is}, and a filter gives true or false"));
    }
}

#[test]
fn objects_are_not_compared_in_silence() {
    let error = Err("it compares whole objects; compare their fields".to_owned());
    assert_eq!(evaluate("body.deep == body.deep"), error);
    assert_eq!(evaluate("event.head != event.base"), error);
    assert_eq!(evaluate("body.list[0] in body.list"), error);
    fails("body.deep == 'x'");
    fails("'x' in body.list");
    holds("event.head != null");
}

#[test]
fn names_that_do_not_exist_are_refused_with_the_nearest_that_does() {
    for (source, message) in [
        (
            "evnt.action == 'x'",
            "`evnt` is unknown; there are `event`, `body` and `headers`; is `event` meant?",
        ),
        ("event.aktion == 'x'", "`event.aktion` does not exist; is `event.action` meant?"),
        (
            "event.pull_request.labls == []",
            "`event.pull_request.labls` does not exist; is `event.pull_request.labels` meant?",
        ),
        (
            "event.label.name == 'x'",
            "`event.label.name` does not exist: `event.label` has no fields",
        ),
        ("event.?lable.hasValue()", "`event.lable` does not exist; is `event.label` meant?"),
        (
            "event['action'] == 'x'",
            "`event` cannot be indexed; write the path out, such as `event.head.sha`",
        ),
        (
            "event == null",
            "`event` alone is no value; name what of it is meant, such as `event.action`",
        ),
        (
            "event.sender.startWith('a')",
            "the function `startWith` is unknown; is `startsWith` meant?",
        ),
        ("type(event.sender) == 'x'", "the function `type` is unknown"),
        ("optional.of(1).hasValue()", "the function `of` is unknown; is `or` meant?"),
        ("all(event.actions)", "`all` is not called in this way"),
        (
            "body.x.map({'a': 1}, y) == []",
            "it is not CEL at line 1, column 12: argument must be a simple name",
        ),
    ] {
        assert_eq!(refusal(source), message, "{source}");
    }
}

#[test]
fn each_fence_refuses_with_what_is_allowed() {
    let long_list = vec!["1"; 33].join(",");
    let additions = format!("size({}) > 0", vec!["'a'"; 18].join("+"));
    let deep = format!("{}true", "!(".repeat(25)) + &")".repeat(25);
    let parts = format!("event.sender in [{}]", vec!["'a'"; 500].join(","));
    assert!(Expression::compile(&parts[..]).is_err() == (parts.len() > 2048));
    for (source, message) in [
        ("", "it is empty; leave the filter out".to_owned()),
        (&"a".repeat(2049), "it has 2049 bytes, and a filter has at most 2048".to_owned()),
        (&deep, "more than 24 brackets stand within each other".to_owned()),
        (&"true ? ".repeat(25), "there are more than 24 `?`".to_owned()),
        (&format!("{}.b == 1", "body.a".to_owned() + &".a".repeat(60)),
            "its parts stand more than 48 deep within each other".to_owned()),
        (&format!("{}1", "1==".repeat(640)), "its parts stand more than 48 deep within each other".to_owned()),
        (&format!("[{}1] == []", "1,".repeat(620)), "it has more than 600 parts".to_owned()),
        ("body.a.all(x, x.a.all(y, y.a.all(z, true)))",
            "more than 2 comprehensions (`all`, `exists`, `map`, ...) stand within each other".to_owned()),
        (&format!("[{long_list}].all(x, x == 1)"),
            "a comprehension goes through a path of the event, or a list of at most 32 literals".to_owned()),
        ("[event.sender].all(x, x == 'a')",
            "a comprehension goes through a path of the event, or a list of at most 32 literals".to_owned()),
        ("event.actions.map(x, x).all(x, x == 'a')",
            "a comprehension goes through a path of the event, or a list of at most 32 literals".to_owned()),
        ("event.actions.all(x, x + x == 'a')",
            "within a comprehension `+` is for numbers, and neither side of this one is a number for certain; write `int(...)` around one".to_owned()),
        ("event.actions.all(event, true)", "`event` is taken; name the element otherwise".to_owned()),
        ("event.actions.all(x, event.actions.all(x, true))", "`x` is taken; name the element otherwise".to_owned()),
        (&additions, "there are more than 16 `+`".to_owned()),
        ("{'a': 1} == body", "maps and messages cannot be built in a filter".to_owned()),
        ("event.sender.matches(event.label)", "the pattern of `matches` must be a string in quotes".to_owned()),
        ("event.sender.matches('(')", "the pattern \"(\" of `matches` is not a regular expression: unclosed group".to_owned()),
        ("event.sender.matches('(a{1,500}){1,500}')",
            "the pattern \"(a{1,500}){1,500}\" of `matches` becomes too large; use fewer repetitions or classes".to_owned()),
        (&format!("event.sender.matches('{}')", "a".repeat(257)),
            "a pattern of `matches` has at most 256 bytes, and this one 257".to_owned()),
        ("event.sender.matches('a', 'b')", "`matches` takes a string and a pattern".to_owned()),
    ] {
        assert_eq!(refusal(source), message, "{source}");
    }
    assert_eq!(
        refusal("event.sender == "),
        "it is not CEL at line 1, column 17: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
            .chars().take(refusal("event.sender == ").chars().count()).collect::<String>()
    );
    assert!(
        refusal("event.sender == ").starts_with("it is not CEL at line 1, column 17: Syntax error")
    );
}

#[test]
fn common_patterns_of_matches_are_small_enough() {
    for pattern in [
        r"^v\\d+\\.\\d+\\.\\d+$",
        r"^[\\w.-]+/[\\w.-]+$",
        "(?i)wip|draft",
        r"^(feat|fix)(\\([\\w-]+\\))?: .{1,72}$",
    ] {
        Expression::compile(&format!("event.sender.matches('{pattern}')")).unwrap();
    }
}

#[test]
fn an_evaluation_that_looks_at_too_much_fails() {
    let large = json!({"list": vec!["some text"; 60_000], "text": "x".repeat(20 << 20)});
    let event = event();
    let mut variables = Variables::of_event(&event);
    variables.body = Some(&large);
    let evaluate = |source: &str| Expression::compile(source).unwrap().evaluate(&variables);
    let too_much = Err("it looked at too much of the event: more than 1000000 steps".to_owned());
    assert_eq!(evaluate("body.list.all(x, body.list.all(y, x == y))"), too_much);
    assert_eq!(evaluate("has(body.text) || true"), too_much, "though the rest would be true");
    assert_eq!(evaluate("body.?text.hasValue()"), too_much);
    assert_eq!(evaluate("body.list.exists(x, x == 'other')"), Ok(false));
}

#[test]
fn guards_are_the_conditions_that_everything_hangs_on() {
    let guards = |source: &str| -> Vec<String> {
        let expression = Expression::compile(source).unwrap();
        expression.guards().iter().map(|g| format!("{} {}", g.path, g.wanted.join("|"))).collect()
    };
    assert_eq!(
        guards(
            "event.action in ['updated', 'opened'] && ('main' == event.base.branch && !event.pull_request.draft)"
        ),
        ["event.action opened|updated", "event.base.branch main"]
    );
    assert_eq!(guards("body.a.b == 'x'"), ["body.a.b x"]);
    assert!(guards("event.action == 'a' || event.base.branch == 'b'").is_empty());
    assert!(guards("!(event.action == 'a')").is_empty());
    assert!(guards("event.pull_request.number == 7").is_empty());
    assert!(guards("event.action in [event.label]").is_empty());
}

#[test]
fn an_expression_of_guards_alone_keeps_no_tree() {
    let of = |source: &str| Expression::compile(source).unwrap().program.is_none();
    assert!(of("event.action in ['opened'] && event.base.branch == 'main'"));
    assert!(!of("event.action in ['opened'] && !event.pull_request.draft"));
}

#[test]
fn what_was_seen_is_told_by_path() {
    let event = event();
    let expression =
        Expression::compile("event.base.branch == 'x' && size(event.pull_request.labels) > 3")
            .unwrap();
    assert_eq!(
        expression.saw(&Variables::of_event(&event)),
        json!({"event.base.branch": "main", "event.pull_request.labels": ["bug", "size/L"]})
    );
}

#[test]
fn the_table_of_paths_is_that_of_the_view() {
    fn collect(path: &str, value: &Value, found: &mut Vec<String>) {
        if !path.is_empty() {
            found.push(path.to_owned());
        }
        if let (Value::Object(fields), true) = (value, path != "data") {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(&path, value, found);
            }
        }
    }
    let event = crate::matching::testing::comment_event("/x");
    let mut found = vec!["changed_files".to_owned()];
    collect("", &event.view(), &mut found);
    found.sort();
    let table: Vec<_> = EVENT.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(found, table);
    for (path, shape) in EVENT {
        let value = event.view().pointer(&format!("/{}", path.replace('.', "/"))).cloned();
        match value.unwrap_or_default() {
            Value::Object(_) => assert!(matches!(shape, Shape::Object | Shape::Open), "{path}"),
            Value::Array(_) => assert_eq!(*shape, Shape::List, "{path}"),
            Value::Bool(_) => assert_eq!(*shape, Shape::Bool, "{path}"),
            Value::Number(_) => assert_eq!(*shape, Shape::Number, "{path}"),
            _ => {}
        }
    }
}

/// Texts that would overflow a stack, fill the memory or never end without the fence.
fn hostile() -> Vec<String> {
    let repeat = |text: &str, times: usize| text.repeat(times);
    let within = |open: &str, core: &str, close: &str, times: usize| {
        format!("{}{core}{}", open.repeat(times), close.repeat(times))
    };
    let numbers = (0..32).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let ranges = format!("[{numbers}]");
    let mut texts = Vec::new();
    for times in [12, 20, 24, 45, 60, 250, 500, 1000] {
        texts.extend([
            format!("{}1 == 1", repeat("1+", times)),
            format!("{}true", repeat("true && ", times)),
            format!("{}true", repeat("true || ", times)),
            format!("{}1", repeat("1 == ", times)),
            format!("{}1", repeat("1 < ", times)),
            format!("{}true", repeat("!", times)),
            format!("{}1 == 1", repeat("-", times)),
            format!("{}1 == 1", repeat("- ", times)),
            format!("body{} == 1", repeat(".a", times)),
            format!("body{} == 1", repeat("[0]", times)),
            format!("body{} == 1", repeat(".a()", times)),
            format!("body{} == 1", repeat(".?a", times)),
            within("(", "true", ")", times),
            within("[", "1", "]", times),
            within("{1:", "1", "}", times),
            within("size(", "'a'", ")", times),
            within("!(", "true", ")", times),
            within("true?(", "true", "):false", times),
            format!("{}true", repeat("true?true:", times)),
            repeat("(", times),
            repeat(")", times),
            repeat("[(", times),
            repeat("a b ", times),
            repeat("'", times),
            repeat("\"\"\"", times),
            repeat("r'", times),
            repeat("\\", times),
            repeat("?:", times),
            repeat("`", times),
            repeat("\u{0}", times),
            repeat("é", times),
            repeat("0x", times),
            repeat("1e9", times),
            format!("'{}'.matches('{}')", repeat("a", times), repeat("a?", times / 4)),
            format!("size('{}') > 0", repeat("\\u0041", times / 4)),
        ]);
    }
    texts.extend([
        within(&format!("{ranges}.all(x, "), "true", ")", 6),
        within(&format!("{ranges}.map(x, "), "x", ")", 2) + " == []",
        format!("{ranges}.all(x, {ranges}.all(y, x + y < 1000))"),
        "body.list.all(x, body.list.all(y, x == y))".to_owned(),
        "body.list.map(x, body.list.map(y, y)) == []".to_owned(),
        "body.list.map(x, body.list) == []".to_owned(),
        "body.matrix.all(a, body.matrix.all(b, a == b))".to_owned(),
        format!("body.list.all(x, {ranges}.all(y, x.contains('aaaaaaaaaaaab')))"),
        "body.list.all(x, x.matches('(a|aa|aaa)*b'))".to_owned(),
        r"body.text.matches('(\\w+\\s?)*$') || body.text.matches('(a?){30}a{30}')".to_owned(),
        format!("size({}) > 0", vec!["body.half"; 16].join("+")),
        "timestamp('9999-12-31T23:59:59Z') + duration('999999h') > timestamp('0001-01-01T00:00:00Z')".to_owned(),
        "duration('9223372036854775807s') > duration('1s')".to_owned(),
        "9223372036854775807 + 1 == 1 || -9223372036854775808 / -1 == 1".to_owned(),
        "int(1e300) == 1 || int('x') == 1 || uint(-1) == 1u".to_owned(),
        "body.list[9223372036854775807] == 'x' || body.list[-1] == 'x'".to_owned(),
        "timestamp(event.time).getHours('No/Where') == 1".to_owned(),
    ]);
    texts
}

/// Compiles and evaluates everything hostile on half the stack that a worker thread has.
fn evaluate_everything_hostile() {
    let body = json!({
        "list": vec!["aaaaaaaaaaaaaaaaaaaa"; 20_000],
        "matrix": vec![vec![1; 300]; 300],
        "text": "a ".repeat(30_000),
        "half": "x".repeat(400_000),
        "a": {"a": {"a": 1}},
    });
    let event = event();
    let mut variables = Variables::of_event(&event);
    variables.body = Some(&body);
    let (mut compiled, mut refused) = (0, 0);
    for source in hostile() {
        match Expression::compile(&source) {
            Ok(expression) => {
                compiled += 1;
                let _ = expression.evaluate(&variables);
                let _ = expression.saw(&variables);
            }
            Err(_) => refused += 1,
        }
    }
    println!("compiled {compiled}, refused {refused}");
    assert!(compiled > 20 && refused > 100);
}

/// It happens in a child, which ends when the fence has a hole.
#[test]
fn hostile_expressions_neither_end_nor_stall_the_process() {
    const CHILD: &str = "WORKFLOWS_TEST_HOSTILE_EXPRESSIONS";
    if std::env::var_os(CHILD).is_some() {
        return evaluate_everything_hostile();
    }
    let name = "matching::expression::tests::hostile_expressions_neither_end_nor_stall_the_process";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--test-threads=1", name])
        .env(CHILD, "1")
        // Half of what a worker thread has: the rest is its caller's.
        .env("RUST_MIN_STACK", (1 << 20).to_string())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("some expression does not come to an end");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the text, compiling it and evaluating it comes to an end.
    #[test]
    fn no_text_makes_an_expression_panic(
        text in "\\PC{0,60}|(event\\.action|body|body\\.list|x|'a'|1|\\[1,2\\]|\\.all\\(x,|\\.map\\(x,|\\(|\\)|\\+|==|&&|\\|\\||!|\\?|:|,|in|size\\(){0,24}",
    ) {
        let _ = evaluate(&text);
    }

    /// A guard says of an event what the expression says.
    #[test]
    fn guards_agree_with_the_evaluator(
        branch in "main|dev|x",
        wanted in prop::collection::vec("main|dev|y", 0..3),
        swap in any::<bool>(),
    ) {
        let list = wanted.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(",");
        let event = json!({"base": {"branch": branch}, "action": "opened"});
        let variables = Variables::of_event(&event);
        let quick = format!("event.base.branch in [{list}] && event.action == 'opened'");
        // `true ==` keeps the evaluator from seeing guards.
        let slow = format!("true == (event.base.branch in [{list}]) && true == (event.action == 'opened')");
        let (first, second) = if swap { (slow, quick) } else { (quick, slow) };
        prop_assert_eq!(
            Expression::compile(&first).unwrap().evaluate(&variables),
            Expression::compile(&second).unwrap().evaluate(&variables)
        );
    }
}

fn evaluate_over_run(source: &str) -> Result<bool, String> {
    let mut run = crate::RunView::new(
        "k",
        "acme/api",
        "ci",
        crate::RunState::Failed,
        jiff::Timestamp::UNIX_EPOCH,
    );
    run.started_at = Some(jiff::Timestamp::UNIX_EPOCH);
    run.previous = Some(crate::RunState::Succeeded);
    let now = jiff::Timestamp::from_second(90).unwrap();
    let run = run.view(crate::Transition::Failed, now);
    let event = event();
    Expression::over_runs(source)?.evaluate(&Variables::of_run(&event, &run))
}

#[test]
fn the_filter_of_a_notification_sees_the_run_and_its_event() {
    let answers = [
        ("run.state == 'failed' && event.base.branch == 'main'", true),
        ("run.transition in ['failed', 'timed_out'] && run.seconds >= 90", true),
        ("run.previous == 'failed'", false),
        ("has(run.previous) && !has(run.failed_step)", true),
        ("run.exit_code == 1", false),
        ("event.pull_request.labels.exists(l, l == 'bug') && run.workflow == 'ci'", true),
    ];
    for (source, answer) in answers {
        assert_eq!(evaluate_over_run(source), Ok(answer), "{source}");
    }
    let refused = [
        ("run.sate == 'failed'", "`run.sate` does not exist; is `run.state` meant?"),
        (
            "run == 'failed'",
            "`run` alone is no value; name what of it is meant, such as `run.state`",
        ),
        ("body.x == 1", "`body` is unknown; there are `event` and `run`"),
        ("'x' in event.changed_files", "a notification does not know `event.changed_files`"),
        ("run.state", "it gives a string, and a filter gives true or false"),
    ];
    for (source, error) in refused {
        assert_eq!(evaluate_over_run(source), Err(error.to_owned()), "{source}");
    }
    let error = Expression::compile("run.state == 'failed'").unwrap_err();
    assert_eq!(error, "`run` is unknown; there are `event`, `body` and `headers`");
}

#[test]
fn the_table_of_a_run_holds_what_there_is() {
    let state = crate::RunState::Failed;
    let run = crate::RunView::new("k", "acme/api", "ci", state, jiff::Timestamp::UNIX_EPOCH);
    let view = run.view(crate::Transition::Failed, jiff::Timestamp::UNIX_EPOCH);
    let fields: Vec<&str> = view.as_object().unwrap().keys().map(String::as_str).collect();
    let mut known: Vec<&str> = super::view::RUN.iter().map(|(path, _)| *path).collect();
    let mut there = fields;
    known.sort_unstable();
    there.sort_unstable();
    assert_eq!(known, there);
}
