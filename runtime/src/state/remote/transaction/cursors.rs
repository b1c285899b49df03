//! The cursors of a transaction, read in portions that fit.

use super::course::Course;
use crate::state::db::{CURSORS_MAX, Column, DbError, RESULT_MAX, Row, Statement};
use crate::state::remote::{Connection as _, Engine, size};
use std::collections::{HashMap, VecDeque};

/// Rows of the first portion, when nobody knows how large they are.
const PORTION_MIN: usize = 8;

/// What a portion is to have in bytes, and at most in rows.
const PORTION_BYTES: usize = 1 << 20;
const PORTION_MAX: usize = 1000;

#[derive(Default)]
pub(super) struct Cursors(HashMap<u64, Cursor>);

struct Cursor {
    /// Rows that were read and had no room in the page before.
    ahead: VecDeque<Row>,
    /// Rows to read at a time.
    portion: usize,
    is_at_end: bool,
}

impl<E: Engine> Course<E> {
    pub(super) async fn open_cursor(
        &mut self,
        cursor: u64,
        statement: &Statement,
    ) -> Result<Vec<Column>, DbError> {
        if self.cursors.0.len() >= CURSORS_MAX {
            return Err(DbError::TooLarge(format!(
                "at most {CURSORS_MAX} cursors are open at a time"
            )));
        }
        if self.cursors.0.contains_key(&cursor) {
            return Err(DbError::Invalid(
                "the number of a cursor is taken".to_owned(),
            ));
        }
        let declare = async |on: &E::Connection| on.declare(cursor, statement).await;
        let columns = self.guarded(declare).await?;
        let opened = Cursor {
            ahead: VecDeque::new(),
            portion: PORTION_MIN,
            is_at_end: false,
        };
        self.cursors.0.insert(cursor, opened);
        Ok(columns)
    }

    pub(super) async fn next_page(
        &mut self,
        cursor: u64,
        max_rows: u32,
    ) -> Result<Vec<Row>, DbError> {
        let wanted = usize::try_from(max_rows).unwrap_or(usize::MAX);
        let (mut page, mut room) = (Vec::new(), RESULT_MAX);
        loop {
            let Some(open) = self.cursors.0.get_mut(&cursor) else {
                return Err(DbError::Closed);
            };
            let is_full = open.fill(&mut page, wanted, &mut room);
            if is_full || open.is_at_end {
                return Ok(page);
            }
            let portion = open.portion.min(wanted - page.len());
            let rows = self
                .guarded(async |on: &E::Connection| on.fetch(cursor, portion).await)
                .await?;
            if let Some(open) = self.cursors.0.get_mut(&cursor) {
                open.take(rows, portion);
            }
        }
    }

    pub(super) async fn close_cursor(&mut self, cursor: u64) {
        if self.cursors.0.remove(&cursor).is_some() {
            let closed = async |on: &E::Connection| on.close_cursor(cursor).await;
            // With its transaction, it is closed.
            let _ = self.guarded(closed).await;
        }
    }
}

impl Cursor {
    /// Moves rows to a page; returns whether it has no room for the next one.
    fn fill(&mut self, page: &mut Vec<Row>, wanted: usize, room: &mut usize) -> bool {
        while page.len() < wanted {
            let Some(row) = self.ahead.pop_front() else {
                return false;
            };
            match room.checked_sub(size(&row)) {
                Some(rest) => *room = rest,
                // A row that is larger than a page is not read in the first place.
                None => {
                    self.ahead.push_front(row);
                    return true;
                }
            }
            page.push(row);
        }
        true
    }

    fn take(&mut self, rows: Vec<Row>, portion: usize) {
        self.is_at_end = rows.len() < portion;
        let bytes: usize = rows.iter().map(size).sum();
        if let Some(each) = bytes.checked_div(rows.len()) {
            self.portion = (PORTION_BYTES / each.max(1)).clamp(1, PORTION_MAX);
        }
        self.ahead.extend(rows);
    }
}
