//! A bound on bytes per second, shared by all transfers of a client.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Spreads bytes over time. Transfers that share one get the rate together.
#[derive(Debug)]
pub(crate) struct Limiter {
    bytes_per_second: f64,
    free_at: Mutex<Option<Instant>>,
}

impl Limiter {
    /// At most `bytes_per_second`, which is at least 1.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Limiter { bytes_per_second: bytes_per_second.max(1) as f64, free_at: Mutex::new(None) }
    }

    /// Waits until `bytes` more may pass.
    pub(crate) async fn take(&self, bytes: usize) {
        let start = {
            let mut free_at = self.free_at.lock().await;
            let now = Instant::now();
            let start = free_at.map_or(now, |at| at.max(now));
            *free_at = Some(start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second));
            start
        };
        sleep_until(start).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_take_their_time() {
        let limiter = Limiter::new(1_000_000);
        let start = Instant::now();
        for _ in 0..6 {
            limiter.take(50_000).await;
        }
        // The first passes at once, each other waits for the one before.
        let took = start.elapsed();
        assert!((Duration::from_millis(240)..Duration::from_secs(5)).contains(&took), "{took:?}");
    }
}
