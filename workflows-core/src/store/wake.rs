//! Telling workers that work may have come.

use tokio::sync::Notify;

use super::Stage;

/// One bell for each stage, which remembers that it rang.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    bells: [Notify; Stage::ALL.len()],
}

impl Wakers {
    pub(super) fn wake(&self, stage: Stage) {
        if let Some(bell) = self.bells.get(stage as usize) {
            bell.notify_one();
        }
    }

    /// Work of any stage may have come.
    #[cfg(feature = "postgres")]
    pub(super) fn wake_all(&self) {
        for stage in Stage::ALL {
            self.wake(stage);
        }
    }

    pub(super) async fn woken(&self, stage: Stage) {
        if let Some(bell) = self.bells.get(stage as usize) {
            bell.notified().await;
        }
    }
}
