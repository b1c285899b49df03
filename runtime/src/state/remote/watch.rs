//! Looks whether the server is there, also when nobody asks for anything, and tidies up in it now and then.

use super::pool::Pool;
use super::{Connection as _, Engine};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);

/// A server that does not answer for so long is taken to be away.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How often its tables are tidied, and how long that may take.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
const TIDY_MAX: Duration = Duration::from_secs(600);

impl<E: Engine> Pool<E> {
    /// Watches for as long as it is polled.
    pub(in crate::state) async fn watch(self) {
        let mut tidy_at = Instant::now();
        let mut kept = None;
        loop {
            kept = match kept {
                Some(connection) => self.ask(connection).await,
                // If it fails, that was noted.
                None => self.connect().await.ok(),
            };
            if let Some(connection) = &kept
                && Instant::now() >= tidy_at
                && !self.is_replica()
            {
                // If it fails there is a next time.
                let _ = timeout(TIDY_MAX, connection.tidy()).await;
                tidy_at = Instant::now() + TIDY_EVERY;
            }
            sleep(EVERY).await;
        }
    }

    /// Asks for a sign of life. A connection that is of no more use is not returned.
    async fn ask(&self, connection: E::Connection) -> Option<E::Connection> {
        match timeout(SILENCE_MAX, connection.ping()).await {
            Ok(true) => {
                self.is_here();
                Some(connection)
            }
            // Another one tells why, or that it is only this one.
            Ok(false) => self.connect().await.ok(),
            Err(_) => {
                self.is_away("it does not answer".to_owned());
                None
            }
        }
    }
}
