//! Calls through a table, made direct: a program calls so what it only knows by a number.
//!
//! wasmtime makes a record of a function when it is first called through a table, in each instance anew, which takes a
//! thousand instructions. Where a table never changes it is known beforehand which functions a call can mean: those of its
//! type. They are called by a function of ours that tells them apart by their number. A number that is none of theirs goes
//! to the table as before, which knows what is wrong with it.

use super::NotPlain;
use crate::engine::sections::sections;
use std::collections::{BTreeMap, HashMap, HashSet};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, Function, FunctionSection, Instruction, Module, TypeSection, ValType,
};
use wasmparser::{
    CodeSectionReader, ElementItems, ElementKind, ExternalKind, FuncType, FunctionSectionReader,
    Operator, Parser, Payload, TableInit, TypeRef, TypeSectionReader,
};

/// The longest list of numbers that is told apart, in entries of four bytes.
const NUMBERS_MAX: u32 = 1 << 16;

/// Returns `module` with its calls made direct; `None` if there are none, or not of the plain kind.
pub(super) fn direct(module: &[u8]) -> Option<Vec<u8>> {
    let known = Known::read(module).ok()?;
    let mut direct = Direct::new(&known);
    if direct.callers.is_empty() {
        return None;
    }
    let mut out = Module::new();
    direct
        .parse_core_module(&mut out, Parser::new(0), module)
        .ok()?;
    Some(out.finish())
}

/// What a table has by each number: which function.
type Table = BTreeMap<u32, u32>;

/// What is known of a module.
#[derive(Default)]
struct Known {
    types: Vec<FuncType>,
    /// The type of each function.
    functions: Vec<u32>,
    /// The tables that never change.
    tables: HashMap<u32, Table>,
    /// Through which tables and by which types functions are called, in order.
    calls: Vec<(u32, u32)>,
    /// How many tables there are so far.
    counted: u32,
}

impl Known {
    fn read(module: &[u8]) -> Result<Self, NotPlain> {
        let mut known = Self::default();
        for section in sections(module).ok_or(NotPlain)? {
            if let Some(code) = section.code() {
                known.code(code?)?;
                continue;
            }
            known.section(section.payload)?;
        }
        let tables = &known.tables;
        known.calls.retain(|(table, _)| tables.contains_key(table));
        Ok(known)
    }

    fn section(&mut self, section: Payload<'_>) -> Result<(), NotPlain> {
        match section {
            Payload::TypeSection(types) => {
                for ty in types.into_iter_err_on_gc_types() {
                    self.types.push(ty?);
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    match import?.ty {
                        TypeRef::Func(ty) => self.functions.push(ty),
                        TypeRef::Table(_) => self.counted += 1,
                        _ => {}
                    }
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions {
                    self.functions.push(ty?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    if let TableInit::RefNull = table?.init {
                        self.tables.insert(self.counted, Table::new());
                    }
                    self.counted += 1;
                }
            }
            // Whoever it is given to may change it.
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    if export.kind == ExternalKind::Table {
                        self.tables.remove(&export.index);
                    }
                }
            }
            Payload::ElementSection(elements) => {
                for element in elements {
                    let element = element?;
                    if let ElementKind::Active {
                        table_index,
                        offset_expr,
                    } = element.kind
                    {
                        let at = offset_expr.get_operators_reader().read()?;
                        self.fill(table_index.unwrap_or(0), &at, element.items)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts functions into a table, or forgets the table if it is not known which or where.
    fn fill(
        &mut self,
        table: u32,
        at: &Operator<'_>,
        items: ElementItems<'_>,
    ) -> Result<(), NotPlain> {
        let Some(known) = self.tables.get_mut(&table) else {
            return Ok(());
        };
        let (Operator::I32Const { value }, ElementItems::Functions(functions)) = (at, items) else {
            self.tables.remove(&table);
            return Ok(());
        };
        for (number, function) in (value.cast_unsigned()..).zip(functions) {
            known.insert(number, function?);
        }
        Ok(())
    }

    /// Forgets the tables that code changes, and learns what is called through tables.
    fn code(&mut self, code: CodeSectionReader<'_>) -> Result<(), NotPlain> {
        let mut seen = HashSet::new();
        for body in code {
            for operator in body?.get_operators_reader()? {
                match operator? {
                    Operator::CallIndirect {
                        type_index,
                        table_index,
                    } if seen.insert((table_index, type_index)) => {
                        self.calls.push((table_index, type_index));
                    }
                    Operator::TableSet { table }
                    | Operator::TableGrow { table }
                    | Operator::TableFill { table }
                    | Operator::TableInit { table, .. }
                    | Operator::TableCopy {
                        dst_table: table, ..
                    } => {
                        self.tables.remove(&table);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Returns what of a table is of a type.
    fn candidates(&self, table: u32, ty: &FuncType) -> Table {
        let is_of_type = |function: &u32| {
            let of = self.functions.get(*function as usize);
            of.and_then(|of| self.types.get(*of as usize)) == Some(ty)
        };
        let table = self.tables.get(&table).into_iter().flatten();
        let table = table.map(|(number, function)| (*number, *function));
        table.filter(|(_, function)| is_of_type(function)).collect()
    }
}

/// A function that calls those of a type in a table.
struct Caller {
    table: u32,
    ty: u32,
    candidates: Table,
}

/// Writes the module anew.
struct Direct<'a> {
    known: &'a Known,
    callers: Vec<Caller>,
    /// Which of them a call by a type through a table is made by.
    by_call: HashMap<(u32, u32), usize>,
}

impl<'a> Direct<'a> {
    fn new(known: &'a Known) -> Self {
        let mut direct = Self {
            known,
            callers: Vec::new(),
            by_call: HashMap::new(),
        };
        // Modules have a type more than once.
        let mut callers: HashMap<(u32, &FuncType), Option<usize>> = HashMap::new();
        for (table, number) in &known.calls {
            let Some(ty) = known.types.get(*number as usize) else {
                continue;
            };
            let caller = callers.entry((*table, ty)).or_insert_with(|| {
                let candidates = known.candidates(*table, ty);
                range(&candidates).map(|_| {
                    direct.callers.push(Caller {
                        table: *table,
                        ty: *number,
                        candidates,
                    });
                    direct.callers.len() - 1
                })
            });
            if let Some(caller) = caller {
                direct.by_call.insert((*table, *number), *caller);
            }
        }
        direct
    }
}

/// Returns the first and the last of a table's numbers, unless it has none or they are too many to be told apart.
fn range(table: &Table) -> Option<(u32, u32)> {
    let ((first, _), (last, _)) = (table.first_key_value()?, table.last_key_value()?);
    (last - first < NUMBERS_MAX).then_some((*first, *last))
}

impl Caller {
    /// Returns its code. Its last parameter, behind `params` others, is the number.
    fn code(&self, params: u32) -> Option<Function> {
        let (first, last) = range(&self.candidates)?;
        let mut functions: Vec<u32> = self.candidates.values().copied().collect();
        functions.sort_unstable();
        functions.dedup();
        let place = |number: u32| {
            let function = self.candidates.get(&number);
            let place = function.and_then(|function| functions.binary_search(function).ok());
            u32::try_from(place.unwrap_or(functions.len())).unwrap_or(u32::MAX)
        };
        let mut code = Function::new([]);
        // The innermost block is the first function's, the outermost the table's.
        for _ in 0..=functions.len() {
            code.instruction(&Instruction::Block(BlockType::Empty));
        }
        code.instruction(&Instruction::LocalGet(params))
            .instruction(&Instruction::I32Const(first.cast_signed()))
            .instruction(&Instruction::I32Sub)
            .instruction(&Instruction::BrTable(
                (first..=last).map(place).collect(),
                u32::try_from(functions.len()).ok()?,
            ))
            .instruction(&Instruction::End);
        for function in functions {
            pass(&mut code, params);
            code.instruction(&Instruction::ReturnCall(function))
                .instruction(&Instruction::End);
        }
        pass(&mut code, params + 1);
        code.instruction(&Instruction::CallIndirect {
            type_index: self.ty,
            table_index: self.table,
        })
        .instruction(&Instruction::End);
        Some(code)
    }
}

/// Passes parameters on.
fn pass(code: &mut Function, params: u32) {
    for param in 0..params {
        code.instruction(&Instruction::LocalGet(param));
    }
}

impl Direct<'_> {
    fn ty(&self, caller: &Caller) -> Result<&FuncType, Error<NotPlain>> {
        let ty = self.known.types.get(caller.ty as usize);
        ty.ok_or(Error::UserError(NotPlain))
    }
}

fn number(count: usize) -> Result<u32, Error<NotPlain>> {
    u32::try_from(count).map_err(|_| Error::UserError(NotPlain))
}

// What is new comes last in each section, so that no number of the module changes.
impl Reencode for Direct<'_> {
    type Error = NotPlain;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: TypeSectionReader<'_>,
    ) -> Result<(), Error<NotPlain>> {
        utils::parse_type_section(self, types, section)?;
        for caller in 0..self.callers.len() {
            let ty = self.ty(&self.callers[caller])?.clone();
            let ty = self.func_type(ty)?;
            let params = ty.params().iter().copied().chain([ValType::I32]);
            let params: Vec<_> = params.collect();
            let results = ty.results().iter().copied();
            types.ty().function(params, results.collect::<Vec<_>>());
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<NotPlain>> {
        utils::parse_function_section(self, functions, section)?;
        for caller in 0..self.callers.len() {
            functions.function(number(self.known.types.len() + caller)?);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<NotPlain>> {
        utils::parse_code_section(self, code, section)?;
        for caller in &self.callers {
            let params = number(self.ty(caller)?.params().len())?;
            let function = caller.code(params);
            code.function(&function.ok_or(Error::UserError(NotPlain))?);
        }
        Ok(())
    }

    fn instruction<'a>(
        &mut self,
        operator: Operator<'a>,
    ) -> Result<Instruction<'a>, Error<NotPlain>> {
        if let Operator::CallIndirect {
            type_index,
            table_index,
        } = operator
            && let Some(caller) = self.by_call.get(&(table_index, type_index))
        {
            let function = number(self.known.functions.len() + caller)?;
            return Ok(Instruction::Call(function));
        }
        utils::instruction(self, operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Engine, Instance, Module, Store, Trap};

    /// A type that is there twice, a function that is in the table twice, and gaps. `@more` is what else there is.
    const PROGRAM: &str = r#"(module
      (type $narrow (func (param i32) (result i32)))
      (type $wide (func (param i64 i32) (result i64)))
      (type $again (func (param i32) (result i32)))
      (type $unknown (func))
      (table $table 9 funcref)
      (elem (table $table) (i32.const 2) func $up $down $add)
      (elem (table $table) (i32.const 3) func $triple)
      (elem (table $table) (i32.const 7) func $up)
      (func $up (type $narrow) (i32.add (local.get 0) (i32.const 1)))
      (func $down (type $narrow) (i32.sub (local.get 0) (i32.const 1)))
      (func $triple (type $again) (i32.mul (local.get 0) (i32.const 3)))
      (func $add (type $wide) (i64.add (local.get 0) (i64.extend_i32_u (local.get 1))))
      (func (export "narrow") (param i32) (result i64)
        (i64.extend_i32_u (call_indirect $table (type $narrow) (i32.const 20) (local.get 0))))
      (func (export "again") (param i32) (result i64)
        (i64.extend_i32_u (call_indirect $table (type $again) (i32.const 20) (local.get 0))))
      (func (export "wide") (param i32) (result i64)
        (call_indirect $table (type $wide) (i64.const 5) (i32.const 6) (local.get 0)))
      (func (export "unknown") (param i32) (result i64)
        (call_indirect $table (type $unknown) (local.get 0)) (i64.const 0))
      @more)"#;

    fn program(more: &str) -> Vec<u8> {
        wat::parse_str(PROGRAM.replace("@more", more)).unwrap()
    }

    /// Returns what comes of each call of the program.
    fn outcomes(module: &[u8]) -> Vec<Result<i64, Trap>> {
        let engine = Engine::default();
        let module = Module::new(&engine, module).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let mut outcomes = Vec::new();
        for name in ["narrow", "again", "wide", "unknown"] {
            let call = instance.get_typed_func::<i32, i64>(&mut store, name);
            let call = call.unwrap();
            for number in -1..11 {
                let outcome = call.call(&mut store, number);
                outcomes.push(outcome.map_err(|error| *error.downcast_ref().unwrap()));
            }
        }
        outcomes
    }

    /// Tells whether a function that is exported calls through a table.
    fn calls_indirectly(module: &[u8]) -> bool {
        let mut bodies = Parser::new(0).parse_all(module).filter_map(|payload| {
            let Payload::CodeSectionEntry(body) = payload.unwrap() else {
                return None;
            };
            Some(body)
        });
        // Those that are exported are the fifth to the seventh; the eighth calls what is not in the table.
        bodies.by_ref().skip(4).take(3).any(|body| {
            let operators = body.get_operators_reader().unwrap();
            operators
                .into_iter()
                .any(|operator| matches!(operator, Ok(Operator::CallIndirect { .. })))
        })
    }

    #[test]
    fn calls_made_direct_do_what_they_did_and_fail_as_they_did() {
        let apart = program("");
        let direct = direct(&apart).unwrap();
        assert!(calls_indirectly(&apart) && !calls_indirectly(&direct));
        let (expected, outcomes) = (outcomes(&apart), outcomes(&direct));
        assert_eq!(outcomes, expected);
        for outcome in [
            Ok(21),
            Ok(60),
            Ok(11),
            Err(Trap::IndirectCallToNull),
            Err(Trap::BadSignature),
            Err(Trap::TableOutOfBounds),
        ] {
            assert!(expected.contains(&outcome), "{outcome:?}");
        }
        assert!(!expected.contains(&Ok(19)), "that place is filled anew");
    }

    #[test]
    fn tables_that_can_change_are_left_alone() {
        for more in [
            r#"(export "table" (table $table))"#,
            "(func (table.set $table (i32.const 2) (ref.null func)))",
            "(func (drop (table.grow $table (ref.null func) (i32.const 1))))",
            "(func (table.fill $table (i32.const 0) (ref.null func) (i32.const 1)))",
            "(func (table.copy $table $table (i32.const 0) (i32.const 1) (i32.const 1)))",
            "(elem $passive func $up)
             (func (table.init $table $passive (i32.const 0) (i32.const 0) (i32.const 1)))",
            "(elem (table $table) (i32.const 0) funcref (ref.func $up))",
            "(global $at i32 (i32.const 1)) (elem (table $table) (global.get $at) func $up)",
        ] {
            assert!(direct(&program(more)).is_none(), "{more}");
        }
        assert!(direct(&program("(func (drop (table.get $table (i32.const 0))))")).is_some());
    }
}
