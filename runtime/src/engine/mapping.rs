//! A range of addresses that is mapped for one purpose and unmapped in the end.
//!
//! All that concerns the kernel's view of instances' memories and stacks; what lies in them is for `memory` and `stack`.

use nix::libc::{self, off_t};
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// The range, and guards around it. Offsets and lengths are multiples of the page size.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Bytes on either side that can be neither read nor written.
    guard: usize,
}

// SAFETY: addresses of the process, which belong to no thread.
unsafe impl Send for Mapping {}
// SAFETY: nothing is read or written through a shared reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes of addresses that can be neither read nor written yet, with a guard on either side.
    pub(super) fn reserve(len: usize, guard: usize) -> io::Result<Self> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let all = length(len.saturating_add(guard).saturating_add(guard))?;
        // SAFETY: at an address that the kernel chooses, hence where nothing is.
        let first = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, flags) }?;
        // SAFETY: within what was just mapped.
        let base = unsafe { first.cast().add(guard) };
        Ok(Self { base, len, guard })
    }

    /// Maps `len` bytes of `file` at `at`, to be read. The file does not change.
    pub(super) fn of_file(file: &File, at: u64, len: usize) -> io::Result<Self> {
        let (read, private) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
        // SAFETY: at an address that the kernel chooses, hence where nothing is.
        let base = unsafe { mmap(None, length(len)?, read, private, file, offset(at)?) }?;
        let (base, guard) = (base.cast(), 0);
        Ok(Self { base, len, guard })
    }

    /// Lays what `file` has at `at` over part of the range, to be read and written without changing the file.
    pub(super) fn lay(&mut self, over: &Range<usize>, file: &File, at: u64) -> io::Result<()> {
        let (prot, flags) = (READ_WRITE, MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED);
        let address = NonZero::new(self.at(over).as_ptr().expose_provenance());
        // SAFETY: over addresses that are this mapping's.
        unsafe { mmap(address, length(over.len())?, prot, flags, file, offset(at)?) }?;
        Ok(())
    }

    /// Lets part of the range be read and written, or not.
    pub(super) fn open(&mut self, part: &Range<usize>, open: bool) -> io::Result<()> {
        let prot = if open {
            READ_WRITE
        } else {
            ProtFlags::PROT_NONE
        };
        // SAFETY: addresses that are this mapping's.
        unsafe { mprotect(self.at(part), part.len(), prot) }?;
        Ok(())
    }

    /// Gives the pages of several parts of the range back: they are then as they were mapped.
    pub(super) fn give_back(&mut self, parts: &[Range<usize>]) -> io::Result<()> {
        if parts.len() > 1 && self.give_back_at_once(parts) {
            return Ok(());
        }
        for part in parts {
            // SAFETY: addresses that are this mapping's.
            unsafe { madvise(self.at(part), part.len(), MmapAdvise::MADV_DONTNEED) }?;
        }
        Ok(())
    }

    /// The same in one call, where the kernel can: it then flushes its cache of addresses once, and not for each part.
    /// Returns whether it did.
    fn give_back_at_once(&mut self, parts: &[Range<usize>]) -> bool {
        static KNOWN: AtomicBool = AtomicBool::new(true);
        let vector = |part: &Range<usize>| libc::iovec {
            iov_base: self.at(part).as_ptr(),
            iov_len: part.len(),
        };
        let all: usize = parts.iter().map(Range::len).sum();
        let parts: Vec<_> = parts.iter().map(vector).collect();
        if !KNOWN.load(Ordering::Relaxed) || parts.len() > VECTORS_MAX {
            return false;
        }
        // SAFETY: addresses that are this mapping's, in a vector of the length that is given.
        let given = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                PIDFD_SELF,
                parts.as_ptr(),
                parts.len(),
                libc::MADV_DONTNEED,
                0,
            )
        };
        if given < 0 {
            // Linux before 6.14, or something that stands between.
            KNOWN.store(false, Ordering::Relaxed);
        }
        usize::try_from(given).is_ok_and(|given| given == all)
    }

    /// Has the kernel use small pages: in a large one, a single byte that is written costs the whole.
    pub(super) fn small_pages(&mut self) {
        // Where large ones are unknown, there is nothing to forbid.
        // SAFETY: addresses that are this mapping's.
        let _ = unsafe { madvise(self.base.cast(), self.len, MmapAdvise::MADV_NOHUGEPAGE) };
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the first address behind the guard.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns part of the range, to be read.
    ///
    /// # Safety
    ///
    /// It can be read, and nobody writes to it.
    pub(super) unsafe fn bytes(&self, part: &Range<usize>) -> &[u8] {
        // SAFETY: addresses that are this mapping's; the rest is up to the caller.
        unsafe { std::slice::from_raw_parts(self.at(part).as_ptr().cast(), part.len()) }
    }

    /// Returns part of the range, to be written.
    ///
    /// # Safety
    ///
    /// It can be written, and nobody else reads or writes it.
    pub(super) unsafe fn bytes_mut(&mut self, part: &Range<usize>) -> &mut [u8] {
        // SAFETY: addresses that are this mapping's; the rest is up to the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(part).as_ptr().cast(), part.len()) }
    }

    fn at(&self, part: &Range<usize>) -> NonNull<c_void> {
        assert!(
            part.start <= part.end && part.end <= self.len,
            "within the mapping"
        );
        // SAFETY: within the mapping, as was just said.
        unsafe { self.base.add(part.start) }.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (first, all) = (
            self.base.as_ptr().wrapping_sub(self.guard),
            self.len + 2 * self.guard,
        );
        if let Some(first) = NonNull::new(first) {
            // SAFETY: all that was mapped, to which nothing refers any more.
            let _ = unsafe { munmap(first.cast(), all) };
        }
    }
}

/// The calling process, where a pidfd is asked for.
const PIDFD_SELF: libc::c_int = -10_000;

/// Parts that one call takes.
const VECTORS_MAX: usize = 1024;

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

fn length(len: usize) -> io::Result<NonZero<usize>> {
    NonZero::new(len).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn offset(at: u64) -> io::Result<off_t> {
    off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput.into())
}
