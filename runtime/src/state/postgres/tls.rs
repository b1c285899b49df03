//! How a connection is encrypted.

use crate::state::tls::Trust;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How to connect. `None` is in the clear.
#[derive(Clone)]
pub(super) struct Tls(Option<MakeRustlsConnect>);

/// The task that moves a connection's bytes. Dropped, it ends, and with it the connection.
pub(super) struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tls {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(trust: &Trust) -> Result<Self, String> {
        let config = trust.client()?;
        Ok(Self(Some(MakeRustlsConnect::new(config))))
    }

    /// Connects, and has the connection driven.
    pub(super) async fn connect(&self, config: &Config) -> Result<(Client, Driver), Error> {
        // Its end is known to the client, so how it came is of no interest.
        Ok(match &self.0 {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (
                    client,
                    Driver(tokio::spawn(async { drop(connection.await) })),
                )
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                (
                    client,
                    Driver(tokio::spawn(async { drop(connection.await) })),
                )
            }
        })
    }

    /// Asks the server, on a connection of its own, to stop what a client has it do.
    pub(super) async fn cancel(&self, client: &Client) -> Result<(), Error> {
        let token = client.cancel_token();
        match &self.0 {
            None => token.cancel_query(NoTls).await,
            Some(tls) => token.cancel_query(tls.clone()).await,
        }
    }
}
