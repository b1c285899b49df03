//! The folder that belongs to one running server: its lock, its sockets, its compiled code, its data.
//!
//! Only its owner may write there, because what is in it is run: compiled code as machine code, messages on the sockets
//! as commands. What goes over the sockets, and what the data is, is not for here.

use crate::config;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::Channel;
use crate::sandbox::Identity;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::unistd::{Uid, fchownat, getpid};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The control socket's name.
const CONTROL: &str = "control.sock";

/// The name of the state process's socket.
const STATE: &str = "state.sock";

/// The name of the folder for data.
const DATA: &str = "data";

/// Connections to the control socket that may wait.
const BACKLOG: i32 = 16;

/// A state folder that this process, and no other, uses. Dropped, it is free again.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    /// Whose code and data are in it, if it is not this process's user.
    owner: Option<Identity>,
    /// The folder itself, whatever happens to its path.
    folder: File,
    /// Holds the flock(2).
    _lock: File,
    /// Whether it was made for this run only.
    temporary: bool,
}

impl StateFolder {
    /// Takes the folder in `wanted` for this process, creating it if need be. If another server has it and nobody named
    /// it, a temporary folder takes its place. What is kept in it is `owner`'s, if that is another user.
    pub fn open(wanted: &config::StateFolder, owner: Option<&Identity>) -> Result<Self, Failure> {
        let path = std::path::absolute(&wanted.path).or_fail(ExitCode::System, || {
            format!("cannot find {}", wanted.path.display())
        })?;
        match Self::take(path, false, owner) {
            Err(Taken::By(_)) if !wanted.named => {
                let folder = Self::temporary(owner)?;
                tracing::info!(
                    taken = %wanted.path.display(),
                    folder = %folder.path.display(),
                    "another server uses the state folder, `wrun ps --state` finds this one by its own"
                );
                Ok(folder)
            }
            Err(Taken::By(pid)) => {
                let shown = wanted.path.display();
                let by = pid.map_or("another wrun".to_owned(), |pid| format!("wrun (pid {pid})"));
                Err(Failure::new(
                    ExitCode::Unavailable,
                    format!("state folder {shown} is used by {by}"),
                )
                .hint("stop that server with `wrun stop`, or choose another folder with --state"))
            }
            Err(Taken::Unusable(failure)) => Err(failure),
            Ok(folder) => Ok(folder),
        }
    }

    /// Makes a fresh folder that goes away with this server.
    fn temporary(owner: Option<&Identity>) -> Result<Self, Failure> {
        let token = getrandom::u64().or_fail(ExitCode::System, || "no randomness".to_owned())?;
        let path = std::env::temp_dir().join(format!("wrun-{}-{token:016x}", getpid()));
        // Not recursive, so it fails if somebody else made it first.
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| cannot_create(&path, &error))?;
        match Self::take(path, true, owner) {
            Ok(folder) => Ok(folder),
            Err(Taken::Unusable(failure)) => Err(failure),
            Err(Taken::By(_)) => Err(Failure::new(
                ExitCode::Unavailable,
                "the temporary state folder was taken at once",
            )),
        }
    }

    fn take(path: PathBuf, temporary: bool, owner: Option<&Identity>) -> Result<Self, Taken> {
        let folder = private_folder(&path, None)?;
        if owner.is_some() {
            let_through(&folder).map_err(|error| cannot_create(&path, &error))?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(inside(&folder, "lock"))
            .map_err(|error| cannot_create(&path.join("lock"), &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Between its flock and its write the other server's file is empty or old; it is for a message only.
                let _ = lock.read_to_string(&mut pid);
                return Err(Taken::By(pid.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => {
                return Err(cannot_create(&path.join("lock"), &error).into());
            }
        }
        // For people and for the message above: what locks is the flock, which ends with this process.
        let _ = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", getpid()));
        private_folder(&path.join("cache"), owner)?;
        Ok(Self {
            path,
            owner: owner.copied(),
            folder,
            _lock: lock,
            temporary,
        })
    }

    /// Returns the folder for compiled code.
    pub fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// Returns the folder for data.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Returns the path of the state process's socket, for a [`Way`].
    pub fn state_socket(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Binds the control socket; it does not block.
    pub fn listen(&self) -> Result<OwnedFd, Failure> {
        let backlog = Backlog::new(BACKLOG).expect("a constant");
        self.bind(CONTROL, SockType::SeqPacket, backlog)
            .or_fail(ExitCode::CannotCreate, || self.no_socket(CONTROL))
    }

    /// Binds the state process's socket, which does not block, and makes the folder for data.
    pub fn listen_for_state(&self) -> Result<UnixListener, Failure> {
        private_folder(&self.data(), self.owner.as_ref())?;
        // As many connections may wait as the system permits: those of all workers, while the state process is restarted.
        self.bind(STATE, SockType::Stream, Backlog::MAXCONN)
            .and_then(|socket| self.give(STATE).map(|()| UnixListener::from(socket)))
            .or_fail(ExitCode::CannotCreate, || self.no_socket(STATE))
    }

    /// Gives a socket to whose it is: only its owner may connect.
    fn give(&self, name: &str) -> io::Result<()> {
        match &self.owner {
            Some(owner) => give(&inside(&self.folder, name), owner),
            None => Ok(()),
        }
    }

    /// Binds a socket that does not block.
    fn bind(&self, name: &str, kind: SockType, backlog: Backlog) -> io::Result<OwnedFd> {
        self.remove_socket(name);
        let socket = unix_socket(kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
        let path = inside(&self.folder, name);
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
        // Before anybody can connect.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        socket::listen(&socket, backlog)?;
        Ok(socket)
    }

    fn no_socket(&self, name: &str) -> String {
        format!("cannot create socket {}", self.path.join(name).display())
    }

    fn remove_socket(&self, name: &str) {
        // Left behind by a server that was killed, or not there at all.
        let _ = fs::remove_file(inside(&self.folder, name));
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        // Before the lock goes: the sockets of a server that takes the folder next are not ours to remove.
        self.remove_socket(CONTROL);
        self.remove_socket(STATE);
        if self.temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Connects to the server whose state folder is `path`; the channel blocks.
pub fn connect(path: &Path) -> Result<Channel, Failure> {
    connect_socket(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            ExitCode::NoPermission,
            format!("state folder {} belongs to another user", path.display()),
        )
        .hint("run this as the user who runs the server"),
        _ => Failure::new(
            ExitCode::Unavailable,
            format!("no server is running with state folder {}", path.display()),
        )
        .hint("name the server's state folder with --state"),
    })
}

fn connect_socket(path: &Path) -> io::Result<Channel> {
    let folder = File::open(path)?;
    let socket = unix_socket(SockType::SeqPacket, SockFlag::SOCK_CLOEXEC)?;
    socket::connect(
        socket.as_raw_fd(),
        &UnixAddr::new(&inside(&folder, CONTROL))?,
    )?;
    Ok(Channel::from(socket))
}

/// Returns the path of the state process's socket in the state folder `path`, if the server there has one.
pub fn state_socket(path: &Path) -> Result<PathBuf, Failure> {
    // Whether a server runs is for the control socket to say: a killed one leaves both behind.
    connect(path)?;
    let socket = path.join(STATE);
    match socket.try_exists() {
        Ok(true) => Ok(socket),
        _ => Err(Failure::new(
            ExitCode::Unavailable,
            format!(
                "the server with state folder {} shares nothing",
                path.display()
            ),
        )
        .hint("grant its guests locks, databases or queues in wrun.toml")),
    }
}

/// A short way to a socket, for whose path a socket's address may have no room. It stays open to a process that may not
/// open a folder any more.
#[derive(Debug)]
pub struct Way {
    path: PathBuf,
    /// Where the path begins.
    _folder: File,
}

impl Way {
    /// Finds the way to the socket `path`, which need not be there yet.
    pub fn to(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        // Only as a place to begin from, not to be read.
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(folder.unwrap_or(Path::new(".")))?;
        Ok(Self {
            path: inside(&folder, name),
            _folder: folder,
        })
    }

    /// Returns the path of the socket, good for as long as this lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn unix_socket(kind: SockType, flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, kind, flags, None)?)
}

/// Returns a short path to `name` in `folder`: a socket's path may have 108 bytes, and nobody counts them for a folder.
fn inside(folder: &File, name: impl AsRef<Path>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name)
}

/// Lets other users go through a folder to what is theirs in it, but not look into it.
fn let_through(folder: &File) -> io::Result<()> {
    let mode = folder.metadata()?.mode() & 0o777;
    folder.set_permissions(Permissions::from_mode(mode | 0o011))
}

/// Gives a file to `owner`; a link is not followed.
fn give(path: &Path, owner: &Identity) -> io::Result<()> {
    let (uid, gid) = (Some(owner.uid()), Some(owner.gid()));
    Ok(fchownat(
        AT_FDCWD,
        path,
        uid,
        gid,
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?)
}

/// Gives a folder, and the files in it, to `owner`. Only for one that nobody else could write to until now: a link that
/// `owner` put there could lead anywhere.
fn give_folder(path: &Path, owner: &Identity) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        give(&entry?.path(), owner)?;
    }
    give(path, owner)
}

/// Creates the folder `path` with mode 0700 if it is not there, and makes sure that nobody else can write to it. It
/// becomes `owner`'s, if that is another user.
fn private_folder(path: &Path, owner: Option<&Identity>) -> Result<File, Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| cannot_create(path, &error))?;
    let shown = path.display();
    let cannot_open = || format!("cannot open state folder {shown}");
    let folder = File::open(path).or_fail(ExitCode::NoPermission, cannot_open)?;
    // Asked of the open folder, so that what is checked is what is used.
    let metadata = folder
        .metadata()
        .or_fail(ExitCode::NoPermission, cannot_open)?;
    let ours = Uid::effective().as_raw();
    let theirs = owner.map_or(ours, |owner| owner.uid().as_raw());
    if ![ours, theirs].contains(&metadata.uid()) {
        return Err(Failure::new(
            ExitCode::NoPermission,
            format!(
                "state folder {shown} belongs to another user (uid {})",
                metadata.uid()
            ),
        )
        .hint("choose another folder with --state, or name that user with --user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Failure::new(
            ExitCode::NoPermission,
            format!("state folder {shown} can be written by others"),
        )
        .hint(format!(
            "run `chmod go-w {shown}`, or choose another folder with --state"
        )));
    }
    if let Some(owner) = owner
        && metadata.uid() != theirs
    {
        give_folder(path, owner).or_fail(ExitCode::NoPermission, || {
            format!("cannot give {shown} to its user")
        })?;
    }
    Ok(folder)
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => ExitCode::NoPermission,
        _ => ExitCode::CannotCreate,
    };
    Failure::new(code, format!("cannot create {}: {error}", path.display()))
        .hint("choose another state folder with --state")
}

/// Why a folder could not be taken.
#[derive(Debug)]
enum Taken {
    /// Another server has it: its process id, if it could be read.
    By(Option<i32>),
    Unusable(Failure),
}

impl From<Failure> for Taken {
    fn from(failure: Failure) -> Self {
        Self::Unusable(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn wanted(path: &Path, named: bool) -> config::StateFolder {
        config::StateFolder {
            path: path.to_path_buf(),
            named,
        }
    }

    #[test]
    fn folder_is_created_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new");
        let folder = StateFolder::open(&wanted(&path, true), None).unwrap();
        let _sockets = (folder.listen().unwrap(), folder.listen_for_state().unwrap());
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(path.clone()), 0o700);
        assert_eq!(mode(folder.cache()), 0o700);
        assert_eq!(mode(folder.data()), 0o700);
        assert_eq!(mode(path.join(CONTROL)), 0o600);
        assert_eq!(mode(folder.state_socket()), 0o600);
    }

    #[test]
    fn named_folder_in_use_is_a_failure_that_names_its_server() {
        let parent = tempfile::tempdir().unwrap();
        let _first = StateFolder::open(&wanted(parent.path(), true), None).unwrap();
        let failure = StateFolder::open(&wanted(parent.path(), true), None).unwrap_err();
        assert_eq!(failure.code, ExitCode::Unavailable);
        assert!(
            failure
                .message
                .ends_with(&format!("is used by wrun (pid {})", getpid())),
            "{failure}"
        );
        assert!(failure.hint.unwrap().contains("--state"));
    }

    #[test]
    fn unnamed_folder_in_use_gives_way_to_a_temporary_one_that_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let _first = StateFolder::open(&wanted(parent.path(), false), None).unwrap();
        let second = StateFolder::open(&wanted(parent.path(), false), None).unwrap();
        let path = second.path.clone();
        assert!(path.starts_with(std::env::temp_dir()));
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn folder_is_free_again_and_its_sockets_gone_once_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(&wanted(parent.path(), true), None).unwrap();
        let sockets = (folder.listen(), folder.listen_for_state());
        drop((folder, sockets));
        assert!(!parent.path().join(CONTROL).exists());
        assert!(!parent.path().join(STATE).exists());
        StateFolder::open(&wanted(parent.path(), true), None).unwrap();
    }

    #[test]
    fn folder_that_others_can_write_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o770)).unwrap();
        let failure = StateFolder::open(&wanted(parent.path(), true), None).unwrap_err();
        assert_eq!(failure.code, ExitCode::NoPermission);
        assert!(failure.hint.unwrap().contains("chmod"));
    }

    #[test]
    fn path_longer_than_a_socket_address_works() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("x".repeat(200));
        let folder = StateFolder::open(&wanted(&path, true), None).unwrap();
        let _sockets = (folder.listen().unwrap(), folder.listen_for_state().unwrap());
        connect(&path).unwrap();
        let way = Way::to(&state_socket(&path).unwrap()).unwrap();
        UnixStream::connect(way.path()).unwrap();
    }

    #[test]
    fn server_that_shares_nothing_says_so() {
        let parent = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(&wanted(parent.path(), true), None).unwrap();
        let _socket = folder.listen().unwrap();
        let failure = state_socket(parent.path()).unwrap_err();
        assert!(failure.message.ends_with("shares nothing"), "{failure}");
    }

    #[test]
    fn folder_without_a_server_says_so() {
        let parent = tempfile::tempdir().unwrap();
        let failure = connect(parent.path()).unwrap_err();
        assert_eq!(failure.code, ExitCode::Unavailable);
        assert!(
            failure
                .message
                .starts_with("no server is running with state folder"),
            "{failure}"
        );
    }

    #[test]
    fn socket_of_a_killed_server_is_taken_over() {
        let parent = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(&wanted(parent.path(), true), None).unwrap();
        let stale = folder.listen().unwrap();
        let fresh = folder.listen().unwrap();
        drop(stale);
        connect(parent.path()).unwrap();
        drop(fresh);
    }
}
