//! Documents that are written to exhaust whoever reads them. Everything happens in a process of its
//! own with a small stack and little memory, so that an overflow or a bomb fails a test instead of
//! ending all of them.

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use workflows_core::workflow::{LoadContext, Values, load};

const CHILD: &str = "WORKFLOWS_TEST_HOSTILE_DOCUMENTS";
const HEAD: &str =
    "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata: { name: ci }\nspec:\n";
const TRIGGER: &str = "  triggers: [{ name: push, on: push }]\n";
const PIPELINE: &str = "  pipelineRef: { path: .tekton/build.yaml }\n";

/// How long the child may take in a debug build on a busy machine; it takes seconds.
const PATIENCE: Duration = Duration::from_secs(240);
/// The child's address space in KiB.
const MEMORY: u32 = 1_500_000;
/// What the problems of one document may come to, in bytes.
const MOST_SAID: usize = 400_000;

fn document(spec: &str) -> String {
    format!("{HEAD}{TRIGGER}{PIPELINE}{spec}")
}

fn lines(times: usize, line: impl Fn(usize) -> String) -> String {
    (0..times).map(line).collect()
}

fn nested(open: &str, inner: &str, close: &str, times: usize) -> String {
    open.repeat(times) + inner + &close.repeat(times)
}

/// Parameters each of which holds the one before twice.
fn doubling(times: usize) -> String {
    let rest = lines(times, |n| {
        format!("  - {{ name: p{}, value: $(params.p{n})$(params.p{n}) }}\n", n + 1)
    });
    format!("  params:\n  - {{ name: p0, value: 0123456789abcdef }}\n{rest}")
}

fn alias_bomb(levels: usize) -> String {
    let mut text =
        "  params:\n  - { name: a, value: &a0 [x, x, x, x, x, x, x, x, x] }\n".to_owned();
    for level in 1..levels {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        let _ = writeln!(text, "  - {{ name: b{level}, value: &a{level} [{aliases}] }}");
    }
    text
}

fn hostile() -> Vec<(&'static str, String)> {
    let deep_block = |times: usize| lines(times, |n| format!("{}a:\n", " ".repeat(n)));
    let ranges = vec!["1"; 40].join(",");
    vec![
        ("alias bomb", document(&alias_bomb(12))),
        ("alias of itself", document("  params: &a [*a]\n")),
        (
            "merge keys",
            document("  params:\n  - &m { <<: { <<: { name: a } } }\n  - <<: [*m, *m]\n"),
        ),
        ("doubling parameters", document(&doubling(40))),
        ("doubling parameters, few", document(&doubling(12))),
        (
            "parameters in a long chain, last first",
            document(&format!(
                "  params:\n{}  - {{ name: p250, value: x }}\n",
                lines(250, |n| format!("  - {{ name: p{n}, value: $(params.p{}) }}\n", n + 1))
            )),
        ),
        (
            "parameters in a circle",
            document(&format!(
                "  params:\n{}",
                lines(250, |n| format!(
                    "  - {{ name: p{n}, value: $(params.p{}) }}\n",
                    (n + 1) % 250
                ))
            )),
        ),
        (
            "many parameters",
            document(&format!(
                "  params:\n{}",
                lines(12_000, |n| format!("  - {{ name: p{n}, value: $(params.p{}) }}\n", n + 1))
            )),
        ),
        ("deep list", document(&format!("  params: {}\n", nested("[", "", "]", 200_000)))),
        ("deep list, unclosed", format!("{HEAD}  params: {}", "[".repeat(500_000))),
        ("deep mapping", document(&format!("  params: {}\n", nested("{a: ", "x", "}", 100_000)))),
        ("deep blocks", deep_block(1_200)),
        ("deep lists in lines", lines(1_000, |n| format!("{}-\n", " ".repeat(n)))),
        ("list of lists in a line", "- ".repeat(500_000)),
        ("complex keys", "? ".repeat(500_000)),
        ("tags", "!a ".repeat(300_000)),
        ("anchors", lines(60_000, |n| format!("&a{n} x{n}: *a{n}\n"))),
        ("quotes", "'".repeat(1_000_000)),
        ("escapes", document(&format!("  params: \"{}\"\n", "\\u0041".repeat(150_000)))),
        ("many documents", "---\n".repeat(260_000)),
        ("many workflows", lines(255, |_| format!("{}---\n", document("")))),
        ("too large", "#".repeat(30 << 20)),
        ("a number of a line", document(&format!("  params: {}\n", "9".repeat(900_000)))),
        ("a name of a line", document(&format!("  {}: 1\n", "n".repeat(900_000)))),
        (
            "a line that repeats its mistake",
            document(&format!("  params: [{}]\n", "{x: 1}, ".repeat(10_000))),
        ),
        ("control characters", document("  params: \"\\0\\x1b[2J\\u202e\"\n")),
        ("duplicate keys", document(&"  params: []\n".repeat(10_000))),
        (
            "many triggers",
            format!(
                "{HEAD}{PIPELINE}  triggers:\n{}",
                lines(9_000, |n| format!("  - {{ name: t{n}, on: push }}\n"))
            ),
        ),
        (
            "many wrong triggers",
            format!(
                "{HEAD}{PIPELINE}  triggers:\n{}",
                lines(250, |n| format!(
                    "  - {{ name: T_{n}, on: pushh, paths: [\"[\"], branches: [\"{{\"], when: 1, filter: \"(((\" }}\n"
                ))
            ),
        ),
        (
            "many expressions",
            format!(
                "{HEAD}{PIPELINE}  triggers:\n{}",
                lines(250, |n| format!(
                    "  - {{ name: t{n}, on: push, filter: \"{}\" }}\n",
                    vec![format!("event.head.branch == 'b{n}'"); 120].join(" || ")
                ))
            ),
        ),
        (
            "expressions inside expressions",
            format!(
                "{HEAD}{PIPELINE}  triggers:\n{}",
                lines(60, |n| format!(
                    "  - {{ name: t{n}, on: push, filter: \"{}\" }}\n",
                    nested(&format!("[{ranges}].all(x, "), "true", ")", 8)
                ))
            ),
        ),
        (
            "globs",
            format!(
                "{HEAD}{PIPELINE}  triggers:\n{}",
                lines(200, |n| format!(
                    "  - {{ name: t{n}, on: push, branches: [\"{}\"], paths: [\"{}\"] }}\n",
                    "{a,b,{c,d}}".repeat(200),
                    "**/".repeat(2_000)
                ))
            ),
        ),
        (
            "one glob in another",
            format!(
                "{HEAD}{PIPELINE}  triggers:\n  - {{ name: t, on: push, paths: [\"{}\"] }}\n",
                nested("{a,", "b", "}", 20_000)
            ),
        ),
        (
            "cron lines that never fire",
            format!(
                "{HEAD}{PIPELINE}  triggers:\n{}",
                lines(200, |n| format!(
                    "  - {{ name: t{n}, on: schedule, schedule: {{ cron: \"0 0 3{} 2 *\", ref: main }} }}\n",
                    n % 2
                ))
            ),
        ),
        (
            "long durations",
            document(
                "  timeouts: { pipeline: 99999999999999999999999h, tasks: 1e308h, finally: -1h }\n",
            ),
        ),
        (
            "references",
            document(&format!(
                "  params: [{{ name: a, value: \"{}\" }}]\n",
                "$(event.head.sha)".repeat(40_000)
            )),
        ),
        (
            "references that are open",
            document(&format!("  params: [{{ name: a, value: \"{}\" }}]\n", "$(".repeat(400_000))),
        ),
        (
            "a reference with a long path",
            document(&format!(
                "  params: [{{ name: a, value: \"$(body{})\" }}]\n",
                ".a".repeat(200_000)
            )),
        ),
        (
            "a pipeline that is deep",
            format!("{HEAD}{TRIGGER}  pipelineSpec: {{ tasks: {} }}\n", nested("[", "", "]", 58)),
        ),
        (
            "many tasks that wait for each other",
            format!(
                "{HEAD}{TRIGGER}  pipelineSpec:\n    tasks:\n{}",
                lines(5_000, |n| format!(
                    "    - {{ name: t{n}, runAfter: [t{}], taskRef: {{ name: x }} }}\n",
                    (n + 1) % 5_000
                ))
            ),
        ),
        (
            "many groups",
            document(&format!(
                "  concurrency:\n{}",
                lines(5_000, |n| format!(
                    "  - {{ group: \"{}{n}\", strategy: queue }}\n",
                    "$(event.head.sha)".repeat(8)
                ))
            )),
        ),
    ]
}

/// Loads each document, shows what is wrong with it, and renders what is right.
fn read_everything() {
    let event = json!({
        "kind": "push", "key": "k", "action": "updated",
        "head": { "sha": "a".repeat(40), "branch": "main", "ref": "refs/heads/main" },
    });
    let body = json!({ "list": vec!["x".repeat(200); 10_000] });
    let (mut right, mut wrong) = (0, 0);
    for (name, text) in hostile() {
        let started = Instant::now();
        for context in [LoadContext::in_repository(), LoadContext::registered()] {
            let loaded = load("ci.yaml", &text, &context);
            let said: usize = loaded
                .problems
                .iter()
                .map(|problem| problem.to_string().len() + problem.one_line().len())
                .sum();
            assert!(said < MOST_SAID, "{name}: {said} bytes of problems");
            wrong += usize::from(!loaded.problems.is_empty());
            for workflow in &loaded.workflows {
                right += 1;
                let values = Values::new(&event, "key", "name").with_payload(Some(&body), None);
                if let Err(error) = workflow.pipeline_run("push", &values, None) {
                    assert!(error.to_string().len() < 20_000, "{name}: a long error");
                }
            }
        }
        println!("{name}: {} ms", started.elapsed().as_millis());
    }
    println!("{right} documents were right, {wrong} wrong");
    assert!(right > 5 && wrong > 40);
}

#[test]
fn hostile_documents_neither_end_nor_stall_the_process() {
    if std::env::var_os(CHILD).is_some() {
        read_everything();
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"")])
        .arg(itself)
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("hostile_documents::hostile_documents_neither_end_nor_stall_the_process")
        .env(CHILD, "1")
        // Half of what a worker thread has: the rest is its caller's.
        .env("RUST_MIN_STACK", (1 << 20).to_string())
        .stdout(Stdio::inherit())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!(
                    "a document stalls whoever reads it; the last that is listed was the one before"
                );
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(ended.success(), "{ended}");
}

#[test]
fn parameters_that_double_are_refused_where_they_grow_too_large() {
    let loaded = load("ci.yaml", &document(&doubling(40)), &LoadContext::in_repository());
    let event = json!({ "kind": "push" });
    let refused = loaded.workflows[0].pipeline_run("push", &Values::new(&event, "k", "n"), None);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "render the run: with $(params.p15), more than 1048576 bytes would be put in for references \
         (field: params, param: p16)"
    );
}

#[test]
fn of_many_problems_the_first_are_told_and_how_many_there_are_besides() {
    let triggers = lines(250, |n| format!("  - {{ name: T_{n}, on: push }}\n"));
    let text = format!("{HEAD}{PIPELINE}  triggers:\n{triggers}");
    let problems = load("ci.yaml", &text, &LoadContext::in_repository()).problems;
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100].one_line(), "ci.yaml: 150 further problems are not listed");
    assert!(problems[0].one_line().starts_with("ci.yaml:7:"), "{}", problems[0].one_line());
}

#[test]
fn a_problem_as_large_as_its_document_is_cut() {
    let text = document(&format!("  params: {}\n", "9".repeat(900_000)));
    let problems = load("ci.yaml", &text, &LoadContext::in_repository()).problems;
    assert!(problems[0].to_string().len() < 5_000);
    assert_eq!(problems[0].snippet, None);
}
