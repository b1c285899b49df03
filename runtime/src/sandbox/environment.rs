//! The environment of a process that needs none: gone, from its memory, too.
//!
//! What a shell or a service manager put there for the supervisor, a password for one, is nobody else's business.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

unsafe extern "C" {
    /// The C library's list of variables, which ends with a null pointer; itself null if it was cleared.
    static mut environ: *mut *mut c_char;
}

/// Overwrites every variable and leaves only `kept`. For a process with one thread.
pub(super) fn replace(kept: &[(CString, CString)]) {
    // SAFETY: there is one thread, so nobody changes the pointer while it is read.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: `entry` is in the list, at most at the null pointer that ends it.
        let text = unsafe { *entry };
        if text.is_null() {
            break;
        }
        // SAFETY: each entry is a C string.
        let len = unsafe { CStr::from_ptr(text) }.count_bytes();
        // SAFETY: the process owns the bytes of its environment, and nobody else looks at them: there is one thread, and
        // Rust's standard library hands out copies.
        unsafe { ptr::write_bytes(text, 0, len) };
        // SAFETY: what was read was not the end of the list, so one entry more is still in it.
        entry = unsafe { entry.add(1) };
    }
    // SAFETY: there is one thread.
    unsafe { libc::clearenv() };
    for (name, value) in kept {
        // SAFETY: there is one thread; the C library copies both strings.
        unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
    }
}
