use proptest::prelude::*;

use super::*;

#[test]
fn all_problems_of_a_file_come_together() {
    let loaded = load(
        "ci.yaml",
        "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata: { name: ci }\n\
         spec:\n  triggers:\n  - name: a\n    on: push\n    path: [x]\n  pipelineRef: { path: 5 }\n\
         ---\napiVersion: v1\nkind: ConfigMap\n---\napiVersion: tekton.dev/v1beta1\nkind: Task\n",
        &LoadContext::in_repository(),
    );
    let lines: Vec<String> = loaded.problems.iter().map(Problem::one_line).collect();
    assert_eq!(
        lines,
        [
            "ci.yaml:8:5: spec.triggers[0].path: unknown field `path`; did you mean `paths`? \
             (known fields: name, on, actions, branches, tags, paths, labels, command, schedule, \
             filter, customFilter, whenSkipped, params)",
            "ci.yaml:9:24: spec.pipelineRef.path: expected a string, found the number 5 (write it \
             in quotes: \"5\")",
            "ci.yaml:14:13: apiVersion: Tasks of \"tekton.dev/v1beta1\" are not used (convert it \
             to tekton.dev/v1)",
        ]
    );
    assert_eq!(loaded.ignored, [Ignored { what: "v1 ConfigMap".into(), line: 11 }]);
}

/// Pieces of which YAML, workflows and what looks like them are made.
const PIECES: [&str; 40] = [
    "apiVersion: workflows.tekton.dev/v1alpha1\n",
    "kind: Workflow\n",
    "metadata: { name: ci }\n",
    "spec:\n",
    "  triggers:\n",
    "  - { name: a, on: push }\n",
    "  - { name: b, on: pull_request, filter: event.sender == 'x' }\n",
    "  params: [ { name: p, value: $(event.head.sha) } ]\n",
    "  pipelineRef: { path: ci.yaml }\n",
    "  concurrency: [ { group: $(params.p) } ]\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "- ",
    "? ",
    ": ",
    "  ",
    "\t",
    "\n",
    "&x ",
    "*x",
    "<<: *x\n",
    "!!binary ",
    "!local ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "#",
    "0x1F",
    "1e999",
    "~",
    "\u{0}",
    "\u{85}",
    "é",
];

proptest! {
    #[test]
    fn whatever_a_text_is_loading_it_ends_and_its_problems_can_be_shown(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40),
        text in r"[\PC\n\t]{0,60}",
        at in 0_usize..40,
    ) {
        let mut pieces = pieces;
        pieces.insert(at.min(pieces.len()), &text);
        for context in [LoadContext::in_repository(), LoadContext::registered()] {
            let loaded = load("any.yaml", &pieces.concat(), &context);
            for problem in &loaded.problems {
                prop_assert!(!problem.to_string().is_empty());
                prop_assert!(!problem.one_line().contains('\n'));
            }
        }
    }
}
