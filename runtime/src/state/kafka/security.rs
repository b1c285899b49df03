//! How connections to a cluster are protected, and as whom it is asked, as its library is told.

use crate::state::tls;
use pem::Pem;
use percent_encoding::percent_decode_str;
use rdkafka::ClientConfig;
use std::path::Path;
use url::form_urlencoded;

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Both.
#[derive(Clone, Default)]
pub(super) struct Security {
    /// The certificates that are trusted, as PEM, if it is encrypted.
    roots: Option<String>,
    login: Option<Login>,
}

#[derive(Clone)]
struct Login {
    mechanism: &'static str,
    user: String,
    password: String,
}

impl Security {
    /// Takes what a URL says: who stands before the `@`, and what behind the `?`. Certificates are read now.
    pub(super) fn new(
        is_encrypted: bool,
        who: Option<&str>,
        parameters: &str,
    ) -> Result<Self, String> {
        let (mut roots, mut mechanism) = (None, None);
        for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
            match &*name {
                "sslrootcert" => roots = Some(value.into_owned()),
                "sasl" => {
                    let known = MECHANISMS.into_iter();
                    let named = known.clone().find(|it| it.eq_ignore_ascii_case(&value));
                    let wrong =
                        || format!("sasl is one of {}", known.collect::<Vec<_>>().join(", "));
                    mechanism = Some(named.ok_or_else(wrong)?);
                }
                _ => return Err(format!("the parameter {name} is not known")),
            }
        }
        let login = who.map(|who| login(who, mechanism.unwrap_or(MECHANISMS[0])));
        if login.is_none() && mechanism.is_some() {
            return Err("sasl goes with a user".to_owned());
        }
        Ok(Self {
            roots: match (is_encrypted, roots) {
                (true, path) => Some(trusted(path.as_deref())?),
                (false, None) => None,
                (false, Some(_)) => return Err("sslrootcert goes with kafkas://".to_owned()),
            },
            login: login.transpose()?,
        })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.roots.is_some()
    }

    pub(super) fn tell(&self, config: &mut ClientConfig) {
        let protocol = match (&self.roots, &self.login) {
            (None, None) => "plaintext",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), None) => "ssl",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(roots) = &self.roots {
            config.set("ssl.ca.pem", roots);
        }
        if let Some(login) = &self.login {
            config
                .set("sasl.mechanism", login.mechanism)
                .set("sasl.username", &login.user)
                .set("sasl.password", &login.password);
        }
    }
}

fn login(who: &str, mechanism: &'static str) -> Result<Login, String> {
    let plain = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        let wrong = |_| "its user or password is not UTF-8".to_owned();
        decoded.map(|it| it.into_owned()).map_err(wrong)
    };
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    Ok(Login {
        mechanism,
        user: plain(user)?,
        password: plain(password)?,
    })
}

/// Returns those of a file, or those of public authorities.
fn trusted(path: Option<&str>) -> Result<String, String> {
    let certificates = match path {
        Some(path) => tls::certificates(Path::new(path))?,
        None => webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec(),
    };
    let certificates = certificates.iter();
    let all: Vec<Pem> = certificates
        .map(|it| Pem::new("CERTIFICATE", it.to_vec()))
        .collect();
    Ok(pem::encode_many(&all))
}
