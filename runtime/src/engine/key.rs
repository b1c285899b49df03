//! The key that signs compiled code, so that code from anywhere else is never run.
//!
//! Compiled code is trusted machine code: a file that merely looks right must not be enough. The key is 32 random bytes
//! in a file that only its owner can read.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A signing key.
pub struct Key([u8; 32]);

/// The length of a signature in bytes.
pub(crate) const SIGNATURE_LEN: usize = 32;

impl Key {
    /// Reads the key in `path`, or makes one there.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        match fs::read(path) {
            Ok(bytes) => {
                let key = bytes.try_into().map_err(|_| {
                    Failure::new(
                        ExitCode::Config,
                        format!("{shown} is not a key: it must have 32 bytes"),
                    )
                    .hint("remove it and wrun makes a new one, or name another with --key-file")
                })?;
                Ok(Self(key))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(Failure::new(
                ExitCode::NoPermission,
                format!("cannot read the key {shown}: {error}"),
            )
            .hint("name another with --key-file")),
        }
    }

    /// Reads the user's own key, or makes it: `wrun/key` in `$XDG_DATA_HOME` or `~/.local/share`.
    pub fn open_default(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = given {
            return Self::open(path);
        }
        let variable = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let data = variable("XDG_DATA_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        let data = data.ok_or_else(|| {
            Failure::new(
                ExitCode::Config,
                "no place for the key that signs compiled code: HOME is not set",
            )
            .hint("name a file with --key-file")
        })?;
        Self::open(&data.join("wrun/key"))
    }

    fn create(path: &Path) -> Result<Self, Failure> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).or_fail(ExitCode::System, || "no random numbers".to_owned())?;
        let create = || {
            if let Some(folder) = path.parent() {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)?;
            }
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?
                .write_all(&key)
        };
        match create() {
            Ok(()) => Ok(Self(key)),
            // Another wrun made it between our look and our attempt.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::open(path),
            Err(error) => Err(Failure::new(
                ExitCode::CannotCreate,
                format!("cannot create the key {}: {error}", path.display()),
            )
            .hint("name another place with --key-file")),
        }
    }

    /// Starts a signature over bytes to come.
    pub(crate) fn signer(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length")
    }

    /// Returns the signature of `bytes`.
    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut signer = self.signer();
        signer.update(bytes);
        signer.finalize().into_bytes().into()
    }
}
