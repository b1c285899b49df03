//! The stacks that guests and their host calls run on, used again and again.
//!
//! They are not cleared: a guest cannot look at the stack that it runs on, its own is part of its memory.

use super::contents::PAGE;
use super::mapping::Mapping;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::{Result, StackCreator, StackMemory};

/// Hands out stacks. The one that came back last is the first to go: its pages are there.
#[derive(Default)]
pub(super) struct Stacks(Arc<Mutex<Vec<Mapping>>>);

/// A stack in use.
struct Stack {
    base: NonNull<u8>,
    size: usize,
    /// `None` once it is dropped.
    mapping: Option<Mapping>,
    free: Arc<Mutex<Vec<Mapping>>>,
}

// SAFETY: as for `Mapping`, whose address `base` is.
unsafe impl Send for Stack {}
// SAFETY: as for `Mapping`, whose address `base` is.
unsafe impl Sync for Stack {}

// SAFETY: a stack is memory that nothing else uses until it is dropped, with a page below it that cannot be touched.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> Result<Box<dyn StackMemory>> {
        let size = size.next_multiple_of(PAGE);
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mapping = match free {
            Some(mapping) if mapping.len() == size => mapping,
            Some(_) => return Err(wasmtime::Error::msg("stacks differ")),
            None => {
                let mut mapping = Mapping::reserve(size, PAGE)?;
                mapping.open(&(0..size), true)?;
                mapping.small_pages();
                mapping
            }
        };
        Ok(Box::new(Stack {
            base: mapping.base(),
            size,
            mapping: Some(mapping),
            free: self.0.clone(),
        }))
    }
}

// SAFETY: as above.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.base.as_ptr().wrapping_add(self.size)
    }

    fn range(&self) -> Range<usize> {
        let base = self.base.addr().get();
        base..base + self.size
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let base = self.base.as_ptr();
        base.wrapping_sub(PAGE)..base
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.mapping.take());
    }
}
