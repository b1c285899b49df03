//! How a connection is encrypted, and whom it trusts.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Whose certificates are good.
pub(super) enum Trust {
    /// Encrypted against those who listen, not against those who pretend: `prefer` and `require`.
    Anybody,
    /// Those of the web.
    WebRoots,
    /// Those in a file of PEM.
    Roots(PathBuf),
}

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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = match trust {
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                .with_no_client_auth(),
            Trust::WebRoots => {
                let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
                builder
                    .with_root_certificates(RootCertStore { roots })
                    .with_no_client_auth()
            }
            Trust::Roots(path) => builder
                .with_root_certificates(read(path)?)
                .with_no_client_auth(),
        };
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

fn read(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |error: String| format!("sslrootcert {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(wrong("there is no certificate in it".to_owned())),
        false => Ok(roots),
    }
}

/// Takes any certificate whose key the other side has.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
