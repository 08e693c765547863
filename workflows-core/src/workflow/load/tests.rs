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
