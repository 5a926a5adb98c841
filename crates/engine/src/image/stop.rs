//! Being asked to stop, on threads and in asynchronous calls alike.

use std::sync::Arc;

use tokio::sync::watch;

/// Raised once, seen everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    pub(crate) fn new() -> Self {
        Stop(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn raise(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it is raised.
    pub(crate) async fn wait(&self) {
        let mut seen = self.0.subscribe();
        // The sender lives as long as we do.
        let _ = seen.wait_for(|raised| *raised).await;
    }
}
