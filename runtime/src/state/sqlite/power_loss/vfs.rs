//! A VFS of SQLite's that does what the default one does, but for syncs, and records it.
//!
//! A file keeps the default VFS's structure. Only its table of functions is replaced, by one that stands at the head of
//! [`Recorded`]: so a pointer to the table is one to all that belongs to the file.

use super::tape::{Event, File, Tape};
use rusqlite::ffi::{
    self, SQLITE_CANTOPEN, SQLITE_IOERR, SQLITE_OK, SQLITE_OPEN_CREATE, sqlite3_file,
    sqlite3_filename, sqlite3_io_methods, sqlite3_vfs,
};
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::{ptr, slice};

/// The name that SQLite knows it by.
pub(super) const NAME: &str = "power-loss";

/// The tapes by the folders whose files they are about.
static TAPES: Mutex<BTreeMap<PathBuf, Arc<Tape>>> = Mutex::new(BTreeMap::new());

/// While this exists, what happens to the database in a folder is recorded.
pub(super) struct Recording {
    folder: PathBuf,
}

impl Recording {
    /// Begins to record. The folder's path has no symbolic links.
    pub(super) fn new(folder: &Path, tape: Arc<Tape>) -> Self {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(register);
        tapes().insert(folder.to_owned(), tape);
        Self {
            folder: folder.to_owned(),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        tapes().remove(&self.folder);
    }
}

/// An open file.
#[repr(C)]
struct Recorded {
    /// What SQLite calls.
    table: sqlite3_io_methods,
    /// What does the work.
    default: sqlite3_io_methods,
    tape: Arc<Tape>,
    file: File,
    /// The next sync is one of the folder, too, as the default VFS does it for logs and journals.
    with_folder: AtomicBool,
}

impl Recorded {
    /// Returns what belongs to a file.
    ///
    /// # Safety
    ///
    /// The file was opened by `open`, is recorded, and stays open for as long as the result is used.
    unsafe fn of<'f>(file: *mut sqlite3_file) -> &'f Self {
        // SAFETY: the caller passes an open file.
        let table = unsafe { (*file).pMethods };
        // SAFETY: `open` has put the table of a `Recorded` there, which `close` frees.
        unsafe { &*table.cast() }
    }
}

fn register() {
    let default = default_vfs();
    // SAFETY: it is there for as long as the process, and nobody changes it but SQLite its list, in `pNext`.
    let copy = unsafe { *default };
    let vfs = Box::leak(Box::new(sqlite3_vfs {
        pNext: ptr::null_mut(),
        zName: c"power-loss".as_ptr(),
        xOpen: Some(open),
        xDelete: Some(delete),
        ..copy
    }));
    // SAFETY: it is there for as long as the process. The default VFS's functions use none of what differs in it.
    let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(code, SQLITE_OK);
}

fn default_vfs() -> *mut sqlite3_vfs {
    // SAFETY: no name asks for the default VFS, which there always is.
    unsafe { ffi::sqlite3_vfs_find(ptr::null()) }
}

fn tapes() -> MutexGuard<'static, BTreeMap<PathBuf, Arc<Tape>>> {
    TAPES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns where to record what happens to the file of this name, if it is to be recorded.
///
/// # Safety
///
/// The name is null or ends with NUL, and stays as it is for as long as the result is used.
unsafe fn find<'n>(name: *const c_char) -> Option<(&'n Path, Arc<Tape>, File)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's word, and it is not null.
    let name = unsafe { CStr::from_ptr(name) };
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let tape = tapes().get(path.parent()?).cloned()?;
    let named = |file: &File| path.file_name() == Some(OsStr::new(file.name()));
    Some((path, tape, File::ALL.into_iter().find(named)?))
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let vfs = default_vfs();
    // SAFETY: the default VFS is there for as long as the process.
    let Some(default) = (unsafe { (*vfs).xOpen }) else {
        return SQLITE_CANTOPEN;
    };
    // SAFETY: these are SQLite's own arguments, and a file is as large as the default VFS wants it.
    let opening = || unsafe { default(vfs, name, file, flags, flags_out) };
    // SAFETY: the name of a file is null or ends with NUL, and outlives the call.
    let Some((path, tape, which)) = (unsafe { find(name) }) else {
        return opening();
    };
    let code = tape.open(which, path, opening);
    if code != SQLITE_OK {
        return code;
    }
    // SAFETY: the default VFS has filled it in.
    let table = unsafe { (*file).pMethods };
    // SAFETY: the file is open, so this is the table of its functions.
    let default = unsafe { *table };
    let recorded = Box::new(Recorded {
        table: sqlite3_io_methods {
            xClose: Some(close),
            xWrite: Some(write),
            xTruncate: Some(truncate),
            xSync: Some(sync),
            ..default
        },
        default,
        tape,
        file: which,
        with_folder: AtomicBool::new(which != File::Database && flags & SQLITE_OPEN_CREATE != 0),
    });
    // SAFETY: nobody else uses the file yet.
    unsafe { (*file).pMethods = Box::into_raw(recorded).cast() };
    code
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let vfs = default_vfs();
    // SAFETY: the default VFS is there for as long as the process.
    let Some(default) = (unsafe { (*vfs).xDelete }) else {
        return SQLITE_IOERR;
    };
    // SAFETY: these are SQLite's own arguments, but that nothing is synced.
    let deleting = || unsafe { default(vfs, name, 0) };
    // SAFETY: the name of a file ends with NUL, and outlives the call.
    let Some((_, tape, file)) = (unsafe { find(name) }) else {
        return deleting();
    };
    let durable = sync != 0;
    tape.change(Event::Deleted { file, durable }, deleting)
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the file is open.
    let table = unsafe { (*file).pMethods };
    // SAFETY: `open` made it with `Box::into_raw`, and after this call nobody uses it.
    let recorded = unsafe { Box::from_raw(table.cast_mut().cast::<Recorded>()) };
    let Some(default) = recorded.default.xClose else {
        return SQLITE_IOERR;
    };
    // SAFETY: the default VFS has opened this file.
    unsafe { default(file) }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite calls this function for files that are open and recorded.
    let recorded = unsafe { Recorded::of(file) };
    let (Some(default), Ok(length), Ok(at)) = (
        recorded.default.xWrite,
        usize::try_from(count),
        usize::try_from(offset),
    ) else {
        return SQLITE_IOERR;
    };
    // SAFETY: SQLite passes that many bytes.
    let written = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), length) };
    let event = Event::Wrote {
        file: recorded.file,
        offset: at,
        bytes: written.into(),
    };
    recorded.tape.change(event, || {
        // SAFETY: the default VFS has opened this file, and these are SQLite's own arguments.
        unsafe { default(file, bytes, count, offset) }
    })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite calls this function for files that are open and recorded.
    let recorded = unsafe { Recorded::of(file) };
    let (Some(default), Ok(to)) = (recorded.default.xTruncate, usize::try_from(size)) else {
        return SQLITE_IOERR;
    };
    let event = Event::Truncated {
        file: recorded.file,
        size: to,
    };
    recorded.tape.change(event, || {
        // SAFETY: the default VFS has opened this file, and these are SQLite's own arguments.
        unsafe { default(file, size) }
    })
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls this function for files that are open and recorded.
    let recorded = unsafe { Recorded::of(file) };
    let names = recorded.with_folder.swap(false, Ordering::Relaxed);
    recorded.tape.sync(recorded.file, names);
    SQLITE_OK
}
