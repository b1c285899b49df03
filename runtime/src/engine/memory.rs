//! The memories of instances, and how one is made as new for the next.
//!
//! wasmtime's own pool gives all pages of a memory back to the kernel after each instance, and the next one gets each page
//! that it writes to by a page fault: for a guest of many megabytes that is most of what a request costs. Here the pages
//! that nearly every instance writes to stay, and their first contents are copied over them; all others go back to the
//! kernel. What is not overwritten is given back: that holds for each byte, whichever pages are kept. Which ones are is
//! guessed from samples, so a wrong guess costs time and nothing else.

use super::contents::PAGE;
use super::mapping::Mapping;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

/// Instances whose pages are looked at before it is decided which to keep. A look takes milliseconds.
const SAMPLES: u32 = 16;

/// Instances after which it is decided anew: what requests ask for changes.
const SAMPLE_AGAIN: u32 = 20_000;

/// The most that is kept of one memory, in bytes.
const KEEP_MAX: usize = 4 << 20;

/// Pages between two that are kept, up to which they are kept as well: a copy is cheaper than one more call of the kernel.
const GAP_MAX: usize = 7;

/// What the memories of a component begin with, as a file has it.
pub(super) struct First<'a> {
    pub(super) file: &'a File,
    /// Where it lies in the file.
    pub(super) at: u64,
    pub(super) len: usize,
    /// Where it begins in a memory.
    pub(super) start: usize,
}

/// Hands out memories, all of the same component.
pub(super) struct Memories(Arc<Pool>);

struct Pool {
    file: File,
    at: u64,
    image: Mapping,
    /// The part of a memory that the image fills.
    filled: Range<usize>,
    max: usize,
    slots_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<Slot>,
    slots: usize,
    kept: Kept,
}

impl Memories {
    /// Returns what hands out up to `slots_max` memories at a time, none larger than `max`.
    pub(super) fn new(first: &First<'_>, max: usize, slots_max: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Pool {
            file: first.file.try_clone()?,
            at: first.at,
            image: Mapping::of_file(first.file, first.at, first.len)?,
            filled: first.start..first.start + first.len,
            max,
            slots_max,
            state: Mutex::default(),
        })))
    }
}

// SAFETY: a memory is a mapping of its own, which nothing else uses until it is dropped. Up to its size it can be read and
// written, beyond it cannot. It is not filled with zeros, as wasmtime would have it, but with what the component has it
// filled with, which `contents` took out of the code.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let reserved = reserved.ok_or("memories are reserved in full")?;
        let pool = &self.0;
        let mut state = pool.state();
        let slot = match state.free.pop() {
            Some(slot) if slot.size == minimum && slot.reserved == reserved => slot,
            // All memories of a component are alike.
            Some(_) => return Err("memories differ".to_owned()),
            None if state.slots == pool.slots_max => {
                return Err("there are too many memories".to_owned());
            }
            None => {
                let slot = Slot::new(pool, minimum, reserved, guard)
                    .map_err(|error| format!("cannot map a memory: {error}"))?;
                state.slots += 1;
                slot
            }
        };
        drop(state);
        Ok(Box::new(Memory {
            pool: pool.clone(),
            slot: Some(slot),
        }))
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a memory back.
    fn take_back(&self, mut slot: Slot) {
        let mut state = self.state();
        state.kept.look(self, &slot);
        match slot.renew(self, &state.kept.pages) {
            Ok(()) => state.free.push(slot),
            // What cannot be made as new is not used again.
            Err(error) => {
                tracing::error!(%error, "a memory was lost");
                state.slots -= 1;
            }
        }
    }
}

/// The memory of one instance.
struct Memory {
    pool: Arc<Pool>,
    /// `None` once it is dropped.
    slot: Option<Slot>,
}

// SAFETY: as above: the mapping begins at `as_ptr`, never moves, and `byte_size` bytes of it are open.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.slot.as_ref().map_or(0, |slot| slot.grown)
    }

    fn byte_capacity(&self) -> usize {
        self.slot.as_ref().map_or(0, |slot| slot.reserved)
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        match &mut self.slot {
            Some(slot) if size <= self.pool.max.min(slot.reserved) => Ok(slot.grow(size)?),
            _ => Err(wasmtime::Error::msg("over the limit on memory")),
        }
    }

    fn as_ptr(&self) -> *mut u8 {
        let base = self.slot.as_ref().map(|slot| slot.mapping.base().as_ptr());
        base.unwrap_or(std::ptr::null_mut())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.pool.take_back(slot);
        }
    }
}

/// A place for a memory.
struct Slot {
    mapping: Mapping,
    /// The first size of the memory, in bytes.
    size: usize,
    /// The size that it has now.
    grown: usize,
    /// How much of it can be read and written.
    open: usize,
    reserved: usize,
}

impl Slot {
    fn new(pool: &Pool, size: usize, reserved: usize, guard: usize) -> io::Result<Self> {
        if pool.filled.end > size || size > reserved {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut mapping = Mapping::reserve(reserved, guard)?;
        mapping.small_pages();
        mapping.open(&(0..size), true)?;
        mapping.lay(&pool.filled, &pool.file, pool.at)?;
        Ok(Self {
            mapping,
            size,
            grown: size,
            open: size,
            reserved,
        })
    }

    fn grow(&mut self, size: usize) -> io::Result<()> {
        let open = size.next_multiple_of(PAGE);
        if open > self.open {
            self.mapping.open(&(self.open..open), true)?;
            self.open = open;
        }
        self.grown = size;
        Ok(())
    }

    /// Makes the memory what it was at first: each byte is overwritten, if it is in `kept`, or given back.
    fn renew(&mut self, pool: &Pool, kept: &[Range<usize>]) -> io::Result<()> {
        let ends = kept.iter().map(|part| part.start).chain([self.open]);
        let starts = [0].into_iter().chain(kept.iter().map(|part| part.end));
        let others: Vec<_> = starts
            .zip(ends)
            .map(|(start, end)| start..end)
            .filter(|part| !part.is_empty())
            .collect();
        self.mapping.give_back(&others)?;
        for part in kept {
            self.overwrite(pool, part);
        }
        if self.open > self.size {
            self.mapping.open(&(self.size..self.open), false)?;
        }
        (self.grown, self.open) = (self.size, self.size);
        Ok(())
    }

    fn overwrite(&mut self, pool: &Pool, part: &Range<usize>) {
        let filled = &pool.filled;
        let (from, to) = (
            filled.start.clamp(part.start, part.end),
            filled.end.clamp(part.start, part.end),
        );
        // SAFETY: within the first size of the memory, which is open, and its instance is gone.
        let bytes = unsafe { self.mapping.bytes_mut(part) };
        let (before, bytes) = bytes.split_at_mut(from - part.start);
        let (within, after) = bytes.split_at_mut(to - from);
        before.fill(0);
        after.fill(0);
        if !within.is_empty() {
            // SAFETY: mapped to be read, and nobody writes to a mapping of the file.
            let image = unsafe { pool.image.bytes(&(from - filled.start..to - filled.start)) };
            within.copy_from_slice(image);
        }
    }
}

/// Which pages are kept.
#[derive(Default)]
struct Kept {
    /// Parts of the memories' first size, of whole pages, in order and apart.
    pages: Vec<Range<usize>>,
    /// How many of the instances that were looked at wrote to each page.
    written: Vec<u32>,
    looks: u32,
}

impl Kept {
    /// Looks at what an instance did to its memory; decides when it has seen enough.
    fn look(&mut self, pool: &Pool, slot: &Slot) {
        self.looks += 1;
        match self.looks {
            ..=SAMPLES => {
                let written = written(pool, slot);
                self.written.resize(written.len(), 0);
                for (count, written) in self.written.iter_mut().zip(written) {
                    *count += u32::from(written);
                }
                if self.looks == SAMPLES {
                    self.pages = choose(&self.written);
                }
            }
            SAMPLE_AGAIN => *self = Self::default(),
            _ => {}
        }
    }
}

/// Returns the pages to be kept, given how many of [`SAMPLES`] instances wrote to each.
fn choose(written: &[u32]) -> Vec<Range<usize>> {
    let mut kept: Vec<Range<usize>> = Vec::new();
    let often = |(page, count): (usize, &u32)| (*count > SAMPLES / 2).then_some(page * PAGE);
    let mut left = KEEP_MAX;
    for at in written.iter().enumerate().filter_map(often) {
        let (start, end) = match kept.last_mut() {
            Some(last) if at - last.end <= GAP_MAX * PAGE => (last.end, at + PAGE),
            _ => (at, at + PAGE),
        };
        let Some(rest) = left.checked_sub(end - start) else {
            break;
        };
        left = rest;
        match kept.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => kept.push(start..end),
        }
    }
    kept
}

/// Tells of each page of a memory's first size whether it differs from what it was at first.
fn written(pool: &Pool, slot: &Slot) -> Vec<bool> {
    let differs = |at: usize| {
        // SAFETY: within the first size of the memory, which is open, and its instance is gone.
        let bytes = unsafe { slot.mapping.bytes(&(at..at + PAGE)) };
        let from = at.checked_sub(pool.filled.start);
        let Some(from) = from.filter(|_| at < pool.filled.end) else {
            return bytes.iter().any(|byte| *byte != 0);
        };
        // SAFETY: mapped to be read, and nobody writes to a mapping of the file.
        let first = unsafe { pool.image.bytes(&(from..from + PAGE)) };
        bytes != first
    };
    (0..slot.size).step_by(PAGE).map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// Two pages of WebAssembly, of which the contents fill the third to the fifth of the host's.
    const SIZE: usize = 2 * 16 * PAGE;
    const START: usize = 2 * PAGE;
    const LEN: usize = 3 * PAGE;

    fn memories(slots: usize) -> Memories {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; PAGE]).unwrap();
        file.write_all(&first()[START..START + LEN]).unwrap();
        let first = First {
            file: &file,
            at: PAGE as u64,
            len: LEN,
            start: START,
        };
        Memories::new(&first, 4 * SIZE, slots).unwrap()
    }

    fn memory(memories: &Memories) -> Box<dyn LinearMemory> {
        let ty = MemoryType::new(2, None);
        let (reserved, guard) = (Some(8 * SIZE), PAGE);
        memories
            .new_memory(ty, SIZE, None, reserved, guard)
            .unwrap()
    }

    /// What a memory is to begin with.
    fn first() -> Vec<u8> {
        let filled = START..START + LEN;
        let byte = |at: usize| {
            if filled.contains(&at) {
                at as u8 | 1
            } else {
                0
            }
        };
        (0..SIZE).map(byte).collect()
    }

    fn bytes(memory: &mut dyn LinearMemory) -> &mut [u8] {
        // SAFETY: a memory is open up to its size, and this test has it alone.
        unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.byte_size()) }
    }

    #[test]
    fn memory_is_as_new_for_the_next_whichever_pages_are_kept() {
        let memories = memories(1);
        let mut random = 1_u64;
        for round in 0..4 * SAMPLES {
            let mut memory = memory(&memories);
            assert_eq!(bytes(&mut *memory), first(), "round {round}");
            memory.grow_to(2 * SIZE).unwrap();
            assert!(bytes(&mut *memory)[SIZE..].iter().all(|byte| *byte == 0));
            let bytes = bytes(&mut *memory);
            // Some pages each time, others now and then, so that some are kept.
            for page in [0, 2, 4, 9, 15, 30] {
                bytes[page * PAGE..(page + 1) * PAGE].fill(0xaa);
            }
            for _ in 0..20 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = usize::try_from(random >> 33).unwrap() % bytes.len();
                bytes[at] = 0xbb;
            }
        }
        assert!(!memories.0.state().kept.pages.is_empty());
    }

    #[test]
    fn memory_that_is_not_made_as_new_is_noticed() {
        let memories = memories(1);
        let mut slot = Slot::new(&memories.0, SIZE, 8 * SIZE, PAGE).unwrap();
        // SAFETY: open, and this test has it alone.
        unsafe { slot.mapping.bytes_mut(&(0..PAGE)) }.fill(0xaa);
        memories.0.state().free.push(slot);
        assert_ne!(bytes(&mut *memory(&memories)), first());
    }

    #[test]
    fn memories_are_limited_in_number_and_size() {
        let memories = memories(1);
        let mut only = memory(&memories);
        let ty = MemoryType::new(2, None);
        let second = memories.new_memory(ty, SIZE, None, Some(8 * SIZE), PAGE);
        assert!(second.is_err());
        assert!(only.grow_to(4 * SIZE + 1).is_err());
        assert!(only.grow_to(4 * SIZE).is_ok());
        drop(only);
        memory(&memories);
    }

    #[test]
    fn pages_that_lie_close_are_kept_in_one_piece() {
        let mut written = vec![0; 4096];
        for page in [1, 2, 9, 20] {
            written[page] = SAMPLES;
        }
        written[40] = SAMPLES / 2;
        assert_eq!(choose(&written), [PAGE..10 * PAGE, 20 * PAGE..21 * PAGE]);
        let all = Range {
            start: 0,
            end: KEEP_MAX,
        };
        assert_eq!(choose(&vec![SAMPLES; 4096]), [all]);
    }
}
