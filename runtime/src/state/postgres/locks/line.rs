//! The connection on which locks are asked for, and on which it is heard that some were released, for as long as there is a
//! PostgreSQL; and while there is none, the tries to make it anew.

use super::statements::Statements;
use super::{SILENT, Space};
use crate::state::db::DbError;
use crate::state::postgres::Address;
use crate::state::postgres::connection::Connection;
use crate::state::postgres::error::{to_db_error, whole};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Notification;

/// The channel of the locks of a database.
pub(super) const CHANNEL: &str = "wrun_lock";

/// How often the server is asked for a sign of life, and how long that may take.
const PING: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// The pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// How often keys are forgotten that nobody has wanted for long.
const TIDY: Duration = Duration::from_secs(3600);

const FORGET: &str = "DELETE FROM wrun.locks WHERE until < clock_timestamp() - interval '2 days'";

/// A connection. With it ends what was asked on it.
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) statements: Statements,
}

/// One that is open, and what is heard on it.
pub(super) type Opened = (Rc<Live>, UnboundedReceiver<String>);

impl Space {
    /// Connects, and makes the connection ready.
    pub(super) async fn open(&self) -> Result<Opened, DbError> {
        let (heard, releases) = mpsc::unbounded_channel();
        let hear = move |notification: &Notification| {
            // Nobody listens to the end of a connection that was given up.
            let _ = heard.send(notification.payload().to_owned());
        };
        let listening = async |address: &Address| address.connect_and_hear(hear).await;
        let connection = self.pool.connect_by(listening).await?;
        let client = &connection.client;
        let opened = async {
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
            Statements::prepare(client).await
        };
        let opened = timeout(SILENCE_MAX, opened).await;
        let opened = opened.map_err(|_| self.pool.is_away(SILENT.to_owned()))?;
        let statements = opened.map_err(|error| to_db_error(&error))?;
        let live = Live {
            connection,
            statements,
        };
        Ok((Rc::new(live), releases))
    }

    /// Takes in what is heard on a connection until it is of no more use, and returns why.
    async fn watch(&self, (live, mut releases): Opened) -> String {
        let hear = async {
            while let Some(release) = releases.recv().await {
                if let Some((space, key)) = release.split_once(' ')
                    && space == self.label
                {
                    self.waiting.wake(key);
                }
            }
            "the connection ended".to_owned()
        };
        let client = &live.connection.client;
        let ask = async {
            self.release_again().await;
            let mut tidy_at = Instant::now();
            loop {
                sleep(PING).await;
                let is_due = Instant::now() >= tidy_at;
                let statement = if is_due { FORGET } else { "" };
                match timeout(SILENCE_MAX, client.batch_execute(statement)).await {
                    Ok(Ok(())) => {}
                    // It could not be tidied, which can wait.
                    Ok(Err(error)) if is_due && error.as_db_error().is_some() => {}
                    Ok(Err(error)) => return whole(&error),
                    Err(_) => return SILENT.to_owned(),
                }
                if is_due {
                    tidy_at = Instant::now() + TIDY;
                }
            }
        };
        tokio::select! {
            why = hear => why,
            why = ask => why,
        }
    }
}

/// Keeps a connection up for as long as it is polled; `opened` is the one that there is.
pub(super) async fn keep(space: Rc<Space>, mut opened: Option<Opened>) {
    loop {
        let connected = match opened.take() {
            Some(opened) => Ok(opened),
            None => space.open().await,
        };
        match connected {
            Ok(opened) => {
                space.presence.is_here(opened.0.clone());
                let why = space.watch(opened).await;
                space.pool.is_away(why.clone());
                space.presence.is_away(why);
            }
            Err(error) => {
                let why = space.pool.why_away();
                let why = why.unwrap_or_else(|| error.to_string());
                space.presence.is_away(why);
            }
        }
        sleep(PAUSE).await;
    }
}
