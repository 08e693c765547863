//! Asking a PipelineRun to end.

use serde_json::{Value, json};
use workflows_core::CancelMode;

/// The value of `spec.status`
/// (<https://tekton.dev/docs/pipelines/pipelineruns/#cancelling-a-pipelinerun>).
pub(super) fn spec_status(mode: CancelMode) -> &'static str {
    match mode {
        CancelMode::AfterRunningTasks => "StoppedRunFinally",
        CancelMode::RunFinally => "CancelledRunFinally",
        CancelMode::AtOnce => "Cancelled",
    }
}

/// Whether a run was asked to end in this way, or in a stronger one, before.
pub(super) fn is_asked(present: Option<&str>, mode: CancelMode) -> bool {
    let strength = |status: &str| match status {
        "StoppedRunFinally" => 1,
        "CancelledRunFinally" => 2,
        "Cancelled" => 3,
        _ => 0,
    };
    present.is_some_and(|present| strength(present) >= strength(spec_status(mode)))
}

/// The merge patch that asks. It holds the version that was read, so that a run which somebody
/// else asked to end at once is not asked for less, and so that it cannot meet another run of the
/// same name.
pub(super) fn patch(mode: CancelMode, uid: &str, resource_version: &str) -> Value {
    json!({
        "metadata": {"uid": uid, "resourceVersion": resource_version},
        "spec": {"status": spec_status(mode)},
    })
}

/// Whether a refused patch says that the run has ended meanwhile. Tekton's admission answers 400
/// with this text, which its own error package looks for too
/// (`pkg/apis/pipeline/errors` in <https://github.com/tektoncd/pipeline>).
pub(super) fn is_over(status: &kube::core::Status) -> bool {
    status.code == 400 && status.message.contains("no updates are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stronger_way_may_follow_a_weaker_one_and_not_the_other_way_round() {
        use CancelMode::{AfterRunningTasks, AtOnce, RunFinally};
        assert!(!is_asked(None, AfterRunningTasks));
        assert!(!is_asked(Some("PipelineRunPending"), AfterRunningTasks));
        assert!(!is_asked(Some("StoppedRunFinally"), RunFinally));
        assert!(is_asked(Some("CancelledRunFinally"), AfterRunningTasks));
        assert!(is_asked(Some("Cancelled"), AtOnce));
        assert!(!is_asked(Some("CancelledRunFinally"), AtOnce));
    }
}
