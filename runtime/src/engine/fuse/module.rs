//! Several core modules written as one: what each imports of an earlier one becomes that item itself.

use super::NotPlain;
use super::item::Kind;
use super::part::Part;
use super::renumber::{Counts, Places, Renumber};
use std::collections::{BTreeSet, HashMap};
use wasm_encoder::reencode::Reencode as _;
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ElementSection, Elements, EntityType,
    ExportSection, FunctionSection, GlobalSection, ImportSection, MemorySection, Module, NameMap,
    NameSection, TableSection, TypeSection,
};
use wasmparser::{CustomSectionReader, KnownCustom, Name, Payload, TypeRef};

/// The name under which the fused module imports, whatever it is: `0`, `1` and so on.
pub(super) const IMPORTS: &str = "";

/// What an import of a part is.
pub(super) enum Link<'a> {
    /// What an earlier part exports.
    Part { part: usize, name: &'a str },
    /// The function that the fused module imports by this number.
    Import(u32),
}

/// Returns `parts` as one module. `links` are the imports of each part, `exports` what the module exports: a name, and which
/// export of which part that is.
pub(super) fn merge(
    parts: &[Part<'_>],
    links: &[Vec<Link<'_>>],
    exports: &[(String, usize, &str)],
) -> Result<Vec<u8>, NotPlain> {
    let mut fused = Fused::default();
    fused.import(parts, links)?;
    for (part, links) in parts.iter().zip(links) {
        let places = fused.place(part, links)?;
        fused.places.push(places);
        fused.exported.push(&part.exports);
        fused.part(part)?;
    }
    for (name, part, export) in exports {
        let (kind, old) = parts[*part].exports.get(export).ok_or(NotPlain)?;
        let new = fused.places[*part].find(*kind, *old)?;
        fused.exports.export(name, (*kind).into(), new);
    }
    Ok(fused.finish())
}

/// The module that is being written.
#[derive(Default)]
struct Fused<'a> {
    counts: Counts,
    places: Vec<Places>,
    /// What the parts so far export.
    exported: Vec<&'a HashMap<&'a str, (Kind, u32)>>,
    /// The values of globals that never change.
    constants: HashMap<u32, i32>,
    /// Functions that code refers to, which have to be declared somewhere.
    referred: BTreeSet<u32>,
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    globals: GlobalSection,
    exports: ExportSection,
    elements: ElementSection,
    code: CodeSection,
    data: DataSection,
    names: NameMap,
    counts_data: bool,
}

impl<'a> Fused<'a> {
    /// Writes what the module imports, with the types that the parts give it.
    fn import(&mut self, parts: &[Part<'_>], links: &[Vec<Link<'_>>]) -> Result<(), NotPlain> {
        let mut first_type = 0;
        for (part, links) in parts.iter().zip(links) {
            for (import, link) in part.imports.iter().zip(links) {
                let (Link::Import(number), TypeRef::Func(old)) = (link, import.ty) else {
                    continue;
                };
                // Numbers are given in this very order.
                if *number == self.counts.funcs {
                    let ty = EntityType::Function(first_type + old);
                    self.imports.import(IMPORTS, &number.to_string(), ty);
                    self.names.append(*number, import.name);
                    self.counts.funcs += 1;
                }
            }
            first_type += part.types;
        }
        Ok(())
    }

    /// Finds out where a part's items will be.
    fn place(&mut self, part: &Part<'_>, links: &[Link<'_>]) -> Result<Places, NotPlain> {
        let mut places = Places {
            first: self.counts,
            ..Places::default()
        };
        for (import, link) in part.imports.iter().zip(links) {
            let (kind, new) = match link {
                Link::Import(number) => (Kind::Func, *number),
                Link::Part { part, name } => self.exported(*part, name)?,
            };
            match (import.ty, kind) {
                (TypeRef::Func(_), Kind::Func) => places.funcs.push(new),
                (TypeRef::Table(_), Kind::Table) => places.tables.push(new),
                (TypeRef::Memory(_), Kind::Memory) => places.memories.push(new),
                (TypeRef::Global(_), Kind::Global) => places.globals.push(new),
                _ => return Err(NotPlain),
            }
        }
        self.counts.types += part.types;
        for section in &part.sections {
            let (of, count, number) = match section {
                Payload::FunctionSection(it) => {
                    (&mut places.funcs, &mut self.counts.funcs, it.count())
                }
                Payload::TableSection(it) => {
                    (&mut places.tables, &mut self.counts.tables, it.count())
                }
                Payload::MemorySection(it) => {
                    (&mut places.memories, &mut self.counts.memories, it.count())
                }
                Payload::GlobalSection(it) => {
                    (&mut places.globals, &mut self.counts.globals, it.count())
                }
                Payload::ElementSection(it) => {
                    self.counts.elements += it.count();
                    continue;
                }
                Payload::DataSection(it) => {
                    self.counts.data += it.count();
                    continue;
                }
                _ => continue,
            };
            of.extend(*count..*count + number);
            *count += number;
        }
        Ok(places)
    }

    fn exported(&self, part: usize, name: &str) -> Result<(Kind, u32), NotPlain> {
        let (kind, old) = self
            .exported
            .get(part)
            .and_then(|it| it.get(name))
            .ok_or(NotPlain)?;
        Ok((*kind, self.places[part].find(*kind, *old)?))
    }

    /// Writes a part, whose places are the last ones.
    fn part(&mut self, part: &Part<'_>) -> Result<(), NotPlain> {
        let places = self.places.last().ok_or(NotPlain)?;
        let mut renumber = Renumber {
            places,
            constants: &mut self.constants,
            referred: &mut self.referred,
        };
        for section in &part.sections {
            match section {
                Payload::TypeSection(it) => {
                    renumber.parse_type_section(&mut self.types, it.clone())
                }
                Payload::FunctionSection(it) => {
                    renumber.parse_function_section(&mut self.functions, it.clone())
                }
                Payload::TableSection(it) => {
                    renumber.parse_table_section(&mut self.tables, it.clone())
                }
                Payload::MemorySection(it) => {
                    renumber.parse_memory_section(&mut self.memories, it.clone())
                }
                Payload::GlobalSection(it) => {
                    renumber.keep_constants(it.clone())?;
                    renumber.parse_global_section(&mut self.globals, it.clone())
                }
                Payload::ElementSection(it) => {
                    renumber.parse_element_section(&mut self.elements, it.clone())
                }
                Payload::DataSection(it) => renumber.parse_data_section(&mut self.data, it.clone()),
                Payload::DataCountSection { .. } => {
                    self.counts_data = true;
                    Ok(())
                }
                Payload::CustomSection(custom) => {
                    name_functions(custom, places, &mut self.names);
                    Ok(())
                }
                _ => return Err(NotPlain),
            }?;
        }
        if let Some(code) = part.code.clone() {
            renumber.parse_code_section(&mut self.code, code)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        // What was an export was declared by that.
        if !self.referred.is_empty() {
            let referred: Vec<_> = self.referred.into_iter().collect();
            self.elements.declared(Elements::Functions(referred.into()));
        }
        let mut names = NameSection::new();
        names.functions(&self.names);
        let mut module = Module::new();
        module
            .section(&self.types)
            .section(&self.imports)
            .section(&self.functions)
            .section(&self.tables)
            .section(&self.memories)
            .section(&self.globals)
            .section(&self.exports)
            .section(&self.elements);
        if self.counts_data {
            let count = self.counts.data;
            module.section(&DataCountSection { count });
        }
        module
            .section(&self.code)
            .section(&self.data)
            .section(&names);
        module.finish()
    }
}

/// Takes over the names that a part gives to its own functions; they are for backtraces.
fn name_functions(custom: &CustomSectionReader<'_>, places: &Places, names: &mut NameMap) {
    let KnownCustom::Name(section) = custom.as_known() else {
        return;
    };
    for name in section.into_iter().flatten() {
        let Name::Function(functions) = name else {
            continue;
        };
        for function in functions.into_iter().flatten() {
            match places.funcs.get(function.index as usize) {
                Some(new) if *new >= places.first.funcs => names.append(*new, function.name),
                _ => {}
            }
        }
    }
}
