//! A `.cwasm` file: machine code and, behind it, what it is and who made it.
//!
//! ```text
//! wasmtime's ELF image | first contents of memory | description (JSON) | length of the description, u32 LE | HMAC-SHA256 of all before | magic
//! ```
//!
//! The image comes first so that wasmtime maps the file as it is; the contents begin with a page, so that `memory` can map
//! them. Nothing is deserialised before the signature holds.

use super::contents::{Contents, PAGE};
use super::key::{Key, SIGNATURE_LEN};
use super::profile::Profile;
use hmac::Mac as _;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The last bytes of every file.
const MAGIC: &[u8; 8] = b"wruncwa3";

/// Length of the description, signature and magic.
const FOOTER: usize = 4 + SIGNATURE_LEN + MAGIC.len();

/// A description is short; more is not one.
const DESCRIPTION_MAX: u64 = 64 * 1024;

/// What a worker has to know of the code before it runs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    /// How it was compiled.
    pub(crate) profile: Profile,
    /// Linear memories that one instance has.
    pub(crate) memories: u32,
    /// Tables that one instance has.
    pub(crate) tables: u32,
    /// Core instances that one instance is made of, at most.
    pub(crate) core_instances: u32,
    /// The first size of its largest memory, in bytes.
    pub(crate) initial_memory: u64,
    /// Where the file has what its memory begins with; `None` if wasmtime fills it.
    pub(crate) contents: Option<Place>,
}

/// Where contents lie.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    /// In the file.
    pub(crate) at: u64,
    pub(crate) len: usize,
    /// In the memory.
    pub(crate) start: usize,
}

/// Why a file is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It does not end like a `.cwasm` of this wrun.
    #[error("it was not made by this version of wrun, or it is truncated")]
    Foreign,
    /// Its signature does not hold.
    #[error("it is damaged, or it was made with another key")]
    BadSignature,
}

/// Tells whether a file ends like compiled code, be it valid or not.
pub(crate) fn looks_compiled(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF") || bytes.ends_with(MAGIC)
}

/// Returns the file that holds `image` and `contents`, signed with `key`.
pub(crate) fn seal(
    image: Vec<u8>,
    contents: Option<&Contents>,
    description: &Description,
    key: &Key,
) -> Vec<u8> {
    let mut file = image;
    let contents = contents.map(|contents| {
        file.resize(file.len().next_multiple_of(PAGE), 0);
        let at = file.len() as u64;
        file.extend_from_slice(&contents.bytes);
        Place {
            at,
            len: contents.bytes.len(),
            start: contents.start,
        }
    });
    let description = Description {
        contents,
        ..description.clone()
    };
    let description = serde_json::to_vec(&description).expect("plain data");
    file.extend_from_slice(&description);
    file.extend_from_slice(
        &u32::try_from(description.len())
            .expect("short")
            .to_le_bytes(),
    );
    let signature = key.sign(&file);
    file.extend_from_slice(&signature);
    file.extend_from_slice(MAGIC);
    file
}

/// Opens `path`, checks its signature and returns its description with the file that was checked.
pub(crate) fn open(path: &Path, key: &Key) -> Result<(Signed, Description), Refusal> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let signed_len = len
        .checked_sub((SIGNATURE_LEN + MAGIC.len()) as u64)
        .ok_or(Refusal::Foreign)?;
    let footer_at = len.checked_sub(FOOTER as u64).ok_or(Refusal::Foreign)?;
    file.seek(SeekFrom::Start(footer_at))?;
    let mut footer = [0; FOOTER];
    file.read_exact(&mut footer)?;
    let (description_len, rest) = footer.split_at(4);
    let (signature, magic) = rest.split_at(SIGNATURE_LEN);
    if magic != MAGIC {
        return Err(Refusal::Foreign);
    }
    let mut signer = key.signer();
    file.rewind()?;
    let mut block = vec![0; 256 * 1024];
    let mut left = file.by_ref().take(signed_len);
    loop {
        match left.read(&mut block)? {
            0 => break,
            read => signer.update(&block[..read]),
        }
    }
    signer
        .verify_slice(signature)
        .map_err(|_| Refusal::BadSignature)?;
    let description_len = u64::from(u32::from_le_bytes(
        description_len.try_into().expect("four bytes"),
    ));
    let description_at = footer_at
        .checked_sub(description_len)
        .ok_or(Refusal::Foreign)?;
    if description_len > DESCRIPTION_MAX {
        return Err(Refusal::Foreign);
    }
    file.seek(SeekFrom::Start(description_at))?;
    let description = serde_json::from_reader(file.by_ref().take(description_len))
        .map_err(|_| Refusal::Foreign)?;
    Ok((Signed(file), description))
}

/// A file whose signature holds.
#[derive(Debug)]
pub(crate) struct Signed(File);

impl Signed {
    /// Maps the machine code in it.
    pub(crate) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // The very file that was checked, not whatever has its name by now.
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        // SAFETY: only `open` makes this type, after the signature said that wrun wrote the file, as an image of
        // wasmtime's; and wrun never changes a file that it has written.
        unsafe { Component::deserialize_file(engine, path) }
    }

    /// Reads the contents that lie at `place`.
    pub(crate) fn contents(&self, place: Place) -> io::Result<Contents> {
        let mut bytes = vec![0; place.len];
        self.0.read_exact_at(&mut bytes, place.at)?;
        Ok(Contents {
            start: place.start,
            bytes,
        })
    }

    /// Returns the file, which never changes.
    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::Kind;
    use super::*;

    fn description() -> Description {
        let profile = Profile {
            kind: Some(Kind::IncomingHandler),
            consumer: false,
            concurrency: false,
        };
        Description {
            profile,
            memories: 1,
            tables: 2,
            core_instances: 3,
            initial_memory: 65536,
            contents: None,
        }
    }

    fn key(folder: &Path, name: &str) -> Key {
        Key::open(&folder.join(name)).unwrap()
    }

    #[test]
    fn sealed_file_opens_with_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        std::fs::write(
            &path,
            seal(
                b"\x7fELF image".to_vec(),
                None,
                &description(),
                &key(folder.path(), "a"),
            ),
        )
        .unwrap();
        assert_eq!(open(&path, &key(folder.path(), "a")).unwrap().1.tables, 2);
        let error = open(&path, &key(folder.path(), "b")).unwrap_err();
        assert!(matches!(error, Refusal::BadSignature));
    }

    #[test]
    fn any_changed_byte_and_any_missing_tail_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let key = key(folder.path(), "key");
        let path = folder.path().join("code");
        let good = seal(b"\x7fELF image".to_vec(), None, &description(), &key);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(open(&path, &key).is_err(), "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(open(&path, &key).is_err(), "length {at}");
        }
    }
}
