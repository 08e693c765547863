//! Whatever the text of a file is, loading it ends, and every problem can be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use workflows_core::workflow::{LoadContext, load};

fuzz_target!(|text: &str| {
    for context in [LoadContext::in_repository(), LoadContext::registered()] {
        let loaded = load("fuzz.yaml", text, &context);
        for problem in &loaded.problems {
            assert!(!problem.to_string().is_empty());
            assert!(!problem.one_line().contains('\n'));
        }
    }
});
