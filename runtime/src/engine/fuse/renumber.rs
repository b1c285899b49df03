//! Where the items of one module are in the fused one, and the module's code and data written with those numbers.

use super::NotPlain;
use super::item::Kind;
use std::collections::{BTreeSet, HashMap};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{ConstExpr as Encoded, Instruction};
use wasmparser::{ConstExpr, GlobalSectionReader, Operator, ValType};

/// How many items of each kind the fused module has so far, and where a part's own begin.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) types: u32,
    pub(super) funcs: u32,
    pub(super) tables: u32,
    pub(super) memories: u32,
    pub(super) globals: u32,
    pub(super) elements: u32,
    pub(super) data: u32,
}

/// Where the items of one part are in the fused module, by their old numbers.
#[derive(Default)]
pub(super) struct Places {
    pub(super) first: Counts,
    pub(super) funcs: Vec<u32>,
    pub(super) tables: Vec<u32>,
    pub(super) memories: Vec<u32>,
    pub(super) globals: Vec<u32>,
}

impl Places {
    pub(super) fn find(&self, kind: Kind, old: u32) -> Result<u32, NotPlain> {
        let places = match kind {
            Kind::Func => &self.funcs,
            Kind::Table => &self.tables,
            Kind::Memory => &self.memories,
            Kind::Global => &self.globals,
        };
        places.get(old as usize).copied().ok_or(NotPlain)
    }
}

/// Writes a part's numbers as those of the fused module.
pub(super) struct Renumber<'a> {
    pub(super) places: &'a Places,
    pub(super) constants: &'a mut HashMap<u32, i32>,
    pub(super) referred: &'a mut BTreeSet<u32>,
}

impl Renumber<'_> {
    fn find(&self, kind: Kind, old: u32) -> Result<u32, Error<NotPlain>> {
        self.places.find(kind, old).map_err(Error::UserError)
    }

    /// Learns the values of globals that are known and stay: memories and tables are filled from there.
    pub(super) fn keep_constants(
        &mut self,
        globals: GlobalSectionReader<'_>,
    ) -> Result<(), NotPlain> {
        for (number, global) in (self.places.first.globals..).zip(globals) {
            let global = global?;
            if !global.ty.mutable
                && global.ty.content_type == ValType::I32
                && let Some(value) = self.value(&global.init_expr)?
            {
                self.constants.insert(number, value);
            }
        }
        Ok(())
    }

    /// Returns the value of an expression that is known.
    fn value(&self, expression: &ConstExpr<'_>) -> Result<Option<i32>, NotPlain> {
        let mut stack = Vec::new();
        for operator in expression.get_operators_reader() {
            let pushed = match operator? {
                Operator::I32Const { value } => value,
                Operator::GlobalGet { global_index } => {
                    let global = self.places.find(Kind::Global, global_index)?;
                    match self.constants.get(&global) {
                        Some(value) => *value,
                        None => return Ok(None),
                    }
                }
                Operator::I32Add => {
                    let (b, a): (i32, i32) = (pop(&mut stack)?, pop(&mut stack)?);
                    a.wrapping_add(b)
                }
                Operator::I32Sub => {
                    let (b, a): (i32, i32) = (pop(&mut stack)?, pop(&mut stack)?);
                    a.wrapping_sub(b)
                }
                Operator::End => break,
                _ => return Ok(None),
            };
            stack.push(pushed);
        }
        pop(&mut stack).map(Some)
    }
}

fn pop(stack: &mut Vec<i32>) -> Result<i32, NotPlain> {
    stack.pop().ok_or(NotPlain)
}

impl Reencode for Renumber<'_> {
    type Error = NotPlain;

    fn type_index(&mut self, old: u32) -> Result<u32, Error<NotPlain>> {
        Ok(self.places.first.types + old)
    }

    fn function_index(&mut self, old: u32) -> Result<u32, Error<NotPlain>> {
        self.find(Kind::Func, old)
    }

    fn table_index(&mut self, old: u32) -> Result<u32, Error<NotPlain>> {
        self.find(Kind::Table, old)
    }

    fn memory_index(&mut self, old: u32) -> Result<u32, Error<NotPlain>> {
        self.find(Kind::Memory, old)
    }

    fn global_index(&mut self, old: u32) -> Result<u32, Error<NotPlain>> {
        self.find(Kind::Global, old)
    }

    fn element_index(&mut self, old: u32) -> Result<u32, Error<NotPlain>> {
        Ok(self.places.first.elements + old)
    }

    fn data_index(&mut self, old: u32) -> Result<u32, Error<NotPlain>> {
        Ok(self.places.first.data + old)
    }

    fn instruction<'a>(
        &mut self,
        operator: Operator<'a>,
    ) -> Result<Instruction<'a>, Error<NotPlain>> {
        let instruction = utils::instruction(self, operator)?;
        if let Instruction::RefFunc(function) = instruction {
            self.referred.insert(function);
        }
        Ok(instruction)
    }

    fn const_expr(&mut self, expression: ConstExpr<'_>) -> Result<Encoded, Error<NotPlain>> {
        match self.value(&expression).map_err(Error::UserError)? {
            Some(value) => Ok(Encoded::i32_const(value)),
            None => utils::const_expr(self, expression),
        }
    }
}
