//! How far a partition is handled: the offset below which all is done, and a note of what is done or was tried above it.
//!
//! Pure. The note is committed with the offset, as its metadata, so that one is never there without the other: whoever has the
//! partition next handles nothing again that was done, and goes on counting tries. It is short, because no message is handled
//! that is [`WINDOW`] or more behind the first that is not done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Offsets of one partition among which messages are handled.
pub(super) const WINDOW: i64 = 256;

/// What a note begins with. Others may have been there before.
const VERSION: &str = "wrun1";

/// Bits of one digit.
const BITS: i64 = 4;

/// What is known of a message that was tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tried {
    pub(super) attempts: u32,
    /// Milliseconds since 1970.
    pub(super) ready_at_ms: u64,
    pub(super) alone: bool,
}

/// What is to be done with a message that was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    /// It was done, or is here.
    Before,
    /// It waits for those before it.
    TooFar,
    /// It is to be handled.
    New(Option<Tried>),
}

/// One partition's.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Mark {
    /// The one behind the last that was read.
    next: i64,
    /// Those that were read and are not done.
    open: BTreeSet<i64>,
    /// Those that were not read and are done.
    done: BTreeSet<i64>,
    tried: BTreeMap<i64, Tried>,
}

impl Mark {
    /// Returns that of a partition of which the group has committed this offset and this note. A note that nobody can read says
    /// nothing.
    pub(super) fn read(begin: i64, note: &str) -> Self {
        let mut mark = Self {
            next: begin,
            ..Self::default()
        };
        if parse(begin, note, &mut mark).is_none() {
            (mark.done, mark.tried) = Default::default();
        }
        mark
    }

    /// Returns the first offset that is not done: what is committed.
    pub(super) fn low(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    /// Returns how many of the offsets up to `end` are not done.
    pub(super) fn left(&self, end: i64) -> u64 {
        let unread =
            (end - self.next).max(0) - self.done.range(..end.max(self.next)).count() as i64;
        self.open.len() as u64 + u64::try_from(unread).unwrap_or(0)
    }

    /// Returns how many of the offsets up to `end` are not read and not done.
    pub(super) fn unread(&self, end: i64) -> u64 {
        self.left(end) - self.open.len() as u64
    }

    /// A message was read. Offsets grow; some may be missing.
    pub(super) fn see(&mut self, offset: i64) -> Seen {
        if offset < self.next {
            return Seen::Before;
        }
        // With none open, what is missing before it will never come.
        if let Some(first) = self.open.first()
            && offset - first >= WINDOW
        {
            return Seen::TooFar;
        }
        self.next = offset + 1;
        let is_done = self.done.contains(&offset);
        self.done.retain(|done| *done > offset);
        if is_done {
            return Seen::Before;
        }
        self.open.insert(offset);
        Seen::New(self.tried.get(&offset).copied())
    }

    /// One is done.
    pub(super) fn finish(&mut self, offset: i64) {
        self.open.remove(&offset);
        self.tried.remove(&offset);
    }

    /// One is to be handled again.
    pub(super) fn retry(&mut self, offset: i64, tried: Tried) {
        if self.open.contains(&offset) {
            self.tried.insert(offset, tried);
        }
    }

    /// All that is not read up to `end` is done.
    pub(super) fn skip(&mut self, end: i64) {
        let from = self.next;
        if end <= from {
            return;
        }
        if self.open.is_empty() {
            self.next = end;
            self.done.clear();
        } else {
            let low = self.low();
            self.done.extend(from..end.min(low + WINDOW));
        }
        self.tried.retain(|offset, _| *offset < from);
    }

    /// Returns what is committed with the offset.
    pub(super) fn note(&self) -> String {
        let low = self.low();
        let is_done = |offset: &i64| match *offset < self.next {
            true => !self.open.contains(offset),
            false => self.done.contains(offset),
        };
        let last = self.done.last().map_or(self.next, |last| last + 1);
        let bits = (last - low).clamp(0, WINDOW);
        let mut note = format!("{VERSION} ");
        for digit in 0..bits.div_euclid(BITS) + i64::from(bits % BITS > 0) {
            let offsets = (0..BITS).map(|bit| low + digit * BITS + bit);
            let is_done = offsets.map(|offset| offset < last && is_done(&offset));
            let value = is_done.fold(0, |value, is_done| value << 1 | u8::from(is_done));
            let _ = write!(note, "{value:x}");
        }
        let base = self.tried.values().map(|it| it.ready_at_ms).min();
        let base = base.unwrap_or(0);
        let _ = write!(note, " {base:x} ");
        for (offset, tried) in self.tried.range(low..low + WINDOW) {
            let attempts = tried.attempts.min(0xfff);
            let ready_in = u32::try_from(tried.ready_at_ms - base).unwrap_or(u32::MAX);
            let (at, alone) = (offset - low, u8::from(tried.alone));
            let _ = write!(note, "{at:02x}{attempts:03x}{alone}{ready_in:08x}");
        }
        note
    }
}

/// Returns how many are done above the offset that a note was committed with.
pub(super) fn done_in(note: &str) -> u64 {
    Mark::read(0, note).done.len() as u64
}

fn parse(low: i64, note: &str, mark: &mut Mark) -> Option<()> {
    let mut parts = note.strip_prefix(VERSION)?.strip_prefix(' ')?.split(' ');
    let digits = parts.next()?.as_bytes();
    for (at, digit) in (0..).zip(digits) {
        let value = char::from(*digit).to_digit(16)?;
        for bit in (0..BITS).filter(|bit| value >> (BITS - 1 - bit) & 1 == 1) {
            mark.done.insert(low + at * BITS + bit);
        }
    }
    let base = u64::from_str_radix(parts.next()?, 16).ok()?;
    let mut tried = parts.next()?;
    while !tried.is_empty() {
        let mut take = |count: usize| {
            let (field, rest) = tried.split_at_checked(count)?;
            tried = rest;
            u64::from_str_radix(field, 16).ok()
        };
        let (at, attempts, alone, ready_in) = (take(2)?, take(3)?, take(1)?, take(8)?);
        let one = Tried {
            attempts: u32::try_from(attempts).ok()?,
            ready_at_ms: base.checked_add(ready_in)?,
            alone: alone == 1,
        };
        mark.tried.insert(low + i64::try_from(at).ok()?, one);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(attempts: u32) -> Tried {
        Tried {
            attempts,
            ready_at_ms: 1_700_000_000_000 + u64::from(attempts),
            alone: attempts.is_multiple_of(2),
        }
    }

    /// Returns what whoever comes next knows.
    fn next(mark: &Mark) -> Mark {
        Mark::read(mark.low(), &mark.note())
    }

    #[test]
    fn all_below_the_first_that_is_not_done_is_committed() {
        let mut mark = Mark::read(10, "");
        for offset in [10, 11, 14] {
            assert_eq!(mark.see(offset), Seen::New(None));
        }
        mark.finish(11);
        assert_eq!((mark.low(), mark.left(20)), (10, 7));
        mark.finish(10);
        // What is missing between them is no message.
        assert_eq!(mark.low(), 14);
        mark.finish(14);
        assert_eq!((mark.low(), mark.left(15)), (15, 0));
    }

    #[test]
    fn whoever_comes_next_handles_nothing_again_and_goes_on_counting() {
        let mut mark = Mark::read(1_000_000_000_000, "");
        let offsets: Vec<i64> = (0..100).map(|at| 1_000_000_000_000 + at).collect();
        for &offset in &offsets {
            mark.see(offset);
            match offset % 3 {
                0 => mark.finish(offset),
                1 => mark.retry(offset, tried(3)),
                _ => {}
            }
        }
        let end = offsets[99] + 1;
        let mut after = next(&next(&mark));
        assert_eq!(
            (after.left(end), done_in(&mark.note())),
            (mark.left(end), 33)
        );
        for offset in offsets.into_iter().filter(|offset| *offset >= mark.low()) {
            let expected = match offset % 3 {
                0 => Seen::Before,
                1 => Seen::New(Some(tried(3))),
                _ => Seen::New(None),
            };
            assert_eq!(after.see(offset), expected, "{offset}");
        }
        assert_eq!(after.note(), mark.note());
    }

    #[test]
    fn message_that_is_too_far_from_the_first_waits_and_so_no_note_is_too_long() {
        let mut mark = Mark::read(0, "");
        for offset in 0..WINDOW {
            assert_eq!(mark.see(offset), Seen::New(None));
            let long = Tried {
                attempts: 1000,
                ready_at_ms: u64::from(u32::MAX) * (1 + offset.cast_unsigned() % 2),
                alone: true,
            };
            mark.retry(offset, long);
        }
        assert_eq!(mark.see(WINDOW), Seen::TooFar);
        // A broker takes 4096 bytes unless it is told otherwise.
        assert!(mark.note().len() < 4000, "{}", mark.note().len());
        assert_eq!(next(&mark).tried, mark.tried);
        mark.finish(0);
        assert_eq!(mark.see(WINDOW), Seen::New(None));
    }

    #[test]
    fn what_is_skipped_is_done_and_what_is_here_is_not() {
        let mut mark = Mark::read(0, "");
        mark.see(0);
        mark.see(1);
        mark.finish(1);
        mark.skip(5);
        assert_eq!((mark.left(5), mark.unread(5), mark.left(6)), (1, 0, 2));
        assert_eq!(next(&mark).left(5), 1);
        assert_eq!(mark.see(4), Seen::Before);
        mark.finish(0);
        assert_eq!(mark.low(), 5);
        let mut mark = Mark::read(3, "");
        mark.skip(7);
        assert_eq!((mark.low(), mark.left(7)), (7, 0));
    }

    #[test]
    fn note_of_another_program_says_nothing() {
        for note in [
            "",
            "x",
            "wrun1",
            "wrun1 zz 0 ",
            "wrun1 f 0 1",
            "wrun2 f 0 ",
            "wrun1 f 0 ü2345678901234",
        ] {
            assert_eq!(Mark::read(7, note), Mark::read(7, ""), "{note}");
        }
    }
}
