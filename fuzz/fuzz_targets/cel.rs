//! Whatever a filter says, compiling and evaluating it ends, and does not end the process.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use workflows_core::matching::{Expression, Variables};

fuzz_target!(|source: &str| {
    let run = json!({"state": "failed", "seconds": 7, "failed_step": "x"});
    let event = json!({
        "action": "opened", "actions": ["opened"], "base": {"branch": "main"},
        "pull_request": {"labels": ["a", "b"], "draft": false, "number": 7, "title": "x"},
    });
    let body = json!({"list": [{"a": 1}, [1, 2, [3]], "x", null, 1.5], "text": "some text"});
    let headers = json!({"x-github-event": "push"});
    let files = ["src/lib.rs".into(), "README.md".into()];
    let variables = Variables {
        event: &event,
        changed_files: Some(&files),
        body: Some(&body),
        headers: Some(&headers),
        run: Some(&run),
    };
    for compile in [Expression::compile, Expression::over_runs] {
        if let Ok(expression) = compile(source) {
            let _ = expression.evaluate(&variables);
            let _ = expression.saw(&variables);
        }
    }
});
