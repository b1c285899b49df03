//! A terminal of the kernel's own, so that wrun believes it talks to a person.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr;

/// The two ends of a pseudo terminal.
#[derive(Debug)]
pub struct Terminal {
    /// What the person sees.
    pub screen: File,
    /// What the program writes to.
    pub program: OwnedFd,
}

impl Terminal {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        let (mut screen, mut program) = (-1, -1);
        // SAFETY: both pointers are to live integers; null says no name, no settings and no size.
        let result = unsafe {
            libc::openpty(
                &mut screen,
                &mut program,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: openpty has just made this descriptor, and nothing else owns it.
        let screen = unsafe { File::from_raw_fd(screen) };
        // SAFETY: as above.
        let program = unsafe { OwnedFd::from_raw_fd(program) };
        Ok(Self { screen, program })
    }
}
