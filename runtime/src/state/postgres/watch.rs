//! Looks whether the server is there, also when nobody asks for anything, and tidies up in it now and then.

use super::Postgres;
use super::connection::Connection;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);

/// A server that does not answer for so long is taken to be away.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Forgets work that was done long ago, and tokens that nobody can hold a lower one than: no lease is longer than a day.
/// Not serializable, so that it meets nobody.
const TIDY: &str = "DELETE FROM wrun.processed WHERE at < now() - interval '30 days'; \
    DELETE FROM wrun.fences WHERE at < now() - interval '7 days'";

/// How often that is done, and how long it may take.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
const TIDY_MAX: Duration = Duration::from_secs(600);

impl Postgres {
    /// Watches for as long as it is polled.
    pub async fn watch(self) {
        let mut tidy_at = Instant::now();
        let mut kept = None;
        loop {
            kept = match kept {
                Some(connection) => self.ask(connection).await,
                // If it fails, that was noted.
                None => self.pool.connect().await.ok(),
            };
            if let Some(connection) = &kept
                && Instant::now() >= tidy_at
            {
                // If it fails there is a next time.
                let _ = timeout(TIDY_MAX, connection.client.batch_execute(TIDY)).await;
                tidy_at = Instant::now() + TIDY_EVERY;
            }
            sleep(EVERY).await;
        }
    }

    /// Asks for a sign of life. A connection that is of no more use is not returned.
    async fn ask(&self, connection: Connection) -> Option<Connection> {
        match timeout(SILENCE_MAX, connection.client.batch_execute("")).await {
            Ok(Ok(())) => {
                self.pool.is_here();
                Some(connection)
            }
            // Another one tells why, or that it is only this one.
            Ok(Err(_)) => self.pool.connect().await.ok(),
            Err(_) => {
                self.pool.is_away("it does not answer".to_owned());
                None
            }
        }
    }
}
