//! What speaks TLS for an engine that cannot: takes encrypted connections as `localhost`, and passes on what is in them. Ended,
//! with its connections, when it is dropped.

use crate::engine::certify;
use crate::guests::run;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// One that runs.
#[derive(Debug)]
pub struct TlsFront {
    port: u16,
    folder: TempDir,
    _runtime: Runtime,
}

impl TlsFront {
    /// Starts one to `port`.
    ///
    /// # Panics
    ///
    /// If there is no certificate or no port to be had.
    pub fn to(port: u16) -> Self {
        let folder = crate::folder();
        let key = folder.path().join("server.key");
        let certificate = folder.path().join("server.crt");
        run(&mut certify(&key, &certificate));
        let certificate = CertificateDer::from_pem_file(certificate).expect("openssl made one");
        let key = PrivateKeyDer::from_pem_file(key).expect("openssl made one");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("there are versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they go together");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        listener.set_nonblocking(true).expect("it is a socket");
        let mut threads = Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("there are event loops");
        runtime.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), port));
        Self {
            port: own,
            folder,
            _runtime: runtime,
        }
    }

    /// Returns the port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the file with its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.crt")
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, port: u16) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("it is a socket");
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Who breaks off notices it on the other side.
            let mut inside = acceptor.accept(stream).await?;
            let mut engine = TcpStream::connect(("127.0.0.1", port)).await?;
            copy_bidirectional(&mut inside, &mut engine).await
        });
    }
}
