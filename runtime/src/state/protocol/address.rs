//! The state process's socket as an address: a socket's path may have 108 bytes, and nobody counts them for a folder.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// A path to a socket that is short, for as long as this exists.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    /// What the path begins with.
    _folder: File,
}

impl Address {
    /// Returns the address of the socket at `path`, whose folder must exist.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
        Ok(Self {
            path: path.join(name),
            _folder: folder,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn socket_in_a_folder_with_a_long_path_can_be_connected_to() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("x".repeat(200));
        std::fs::create_dir(&folder).unwrap();
        let socket = folder.join("socket");
        let _listener = UnixListener::bind(Address::of(&socket).unwrap().path()).unwrap();
        UnixStream::connect(Address::of(&socket).unwrap().path()).unwrap();
    }
}
