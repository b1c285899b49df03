//! How a connection is encrypted.

use crate::state::tls::Trust;
use futures_util::StreamExt as _;
use futures_util::stream::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls, Notification};
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

    /// Connects, and has the connection driven. What others tell by NOTIFY goes to `hear`.
    pub(super) async fn connect(
        &self,
        config: &Config,
        hear: impl Fn(&Notification) + Send + 'static,
    ) -> Result<(Client, Driver), Error> {
        Ok(match &self.0 {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, drive(connection, hear))
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                (client, drive(connection, hear))
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

fn drive<S, T>(
    mut connection: Connection<S, T>,
    hear: impl Fn(&Notification) + Send + 'static,
) -> Driver
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Driver(tokio::spawn(async move {
        let mut messages = poll_fn(|context| connection.poll_message(context));
        // Its end is known to the client, so how it came is of no interest.
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                hear(&notification);
            }
        }
    }))
}
