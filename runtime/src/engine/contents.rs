//! The first contents of a component's memory, taken out of the component, so that `memory` can map them and put them
//! back.
//!
//! Only what is plain is taken out: one memory in one module, filled at constant places within its first size. Anything
//! else stays where it is, and wasmtime fills the memory.

use super::sections::{Section, sections};
use wasm_encoder::{Component, DataSection, Module, RawSection};
use wasmparser::{ConstExpr, DataKind, Operator, Payload, TypeRef};

/// What memories begin with, between their first and their last byte that is filled.
pub(crate) struct Contents {
    /// Where it begins in the memory, a multiple of [`PAGE`].
    pub(crate) start: usize,
    /// A multiple of [`PAGE`] long.
    pub(crate) bytes: Vec<u8>,
}

/// The size of a page of the host that contents are cut to, in bytes.
pub(crate) const PAGE: usize = 4 << 10;

/// The size of a page of WebAssembly memory in bytes.
const WASM_PAGE: u64 = 64 << 10;

/// The contents are not plain, or there are none.
#[derive(Debug)]
struct NotPlain;

impl From<wasmparser::Error> for NotPlain {
    fn from(_: wasmparser::Error) -> Self {
        Self
    }
}

/// Takes the contents out of the component `wasm`; returns what is left of the component with them. `None` if there are none
/// that could be taken out.
pub(crate) fn take_out(wasm: &[u8]) -> Option<(Vec<u8>, Contents)> {
    let mut contents = None;
    let rest = component(wasm, &mut contents).ok()?;
    Some((rest, contents?))
}

fn component(wasm: &[u8], contents: &mut Option<Contents>) -> Result<Vec<u8>, NotPlain> {
    let mut rest = Component::new();
    for section in sections(wasm).ok_or(NotPlain)? {
        let changed = match section.payload {
            Payload::ModuleSection { .. } => module(section.bytes, contents)?,
            Payload::ComponentSection { .. } => Some(component(section.bytes, contents)?),
            _ => None,
        };
        rest.section(&RawSection {
            id: section.id,
            data: changed.as_deref().unwrap_or(section.bytes),
        });
    }
    Ok(rest.finish())
}

/// Returns a module without its memory's contents; `None` if it has no memory, and so stays as it is.
fn module(wasm: &[u8], contents: &mut Option<Contents>) -> Result<Option<Vec<u8>>, NotPlain> {
    let sections = sections(wasm).ok_or(NotPlain)?;
    let Some(size) = memory(&sections)? else {
        return Ok(None);
    };
    // An instance keeps a record of each segment that code may ask for: without such code there is none to be kept.
    let asked_for = asks_for_segments(&sections)?;
    let mut rest = Module::new();
    let mut own = None;
    for section in &sections {
        let data = match &section.payload {
            Payload::DataSection(data) => data,
            Payload::DataCountSection { .. } if !asked_for => continue,
            _ => {
                rest.section(&section.raw());
                continue;
            }
        };
        let mut segments = DataSection::new();
        let mut pieces = Vec::new();
        for segment in data.clone() {
            let segment = segment?;
            match segment.kind {
                DataKind::Passive => segments.passive(segment.data.iter().copied()),
                DataKind::Active {
                    memory_index: 0,
                    offset_expr,
                } => {
                    pieces.push((constant(&offset_expr)?, segment.data));
                    // In its place, so that the others keep their numbers: empty, as it is for a guest once it was used.
                    segments.passive([])
                }
                DataKind::Active { .. } => return Err(NotPlain),
            };
        }
        if asked_for {
            rest.section(&segments);
        }
        own = Some(draw(&pieces, size)?);
    }
    // Every memory of the component has these contents, so no other module may have one.
    if contents.replace(own.ok_or(NotPlain)?).is_some() {
        return Err(NotPlain);
    }
    Ok(Some(rest.finish()))
}

/// Returns the first size of a module's own memory in bytes, if it has one and no other.
fn memory(sections: &[Section<'_>]) -> Result<Option<u64>, NotPlain> {
    let mut size = None;
    for section in sections {
        match &section.payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    if let TypeRef::Memory(_) = import?.ty {
                        // Whoever has it fills it first.
                        return Ok(None);
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    let memory = memory?;
                    let plain =
                        !memory.memory64 && !memory.shared && memory.page_size_log2.is_none();
                    if !plain || size.replace(memory.initial * WASM_PAGE).is_some() {
                        return Err(NotPlain);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(size)
}

/// Tells whether any code of a module copies out of a data segment, or drops one.
fn asks_for_segments(sections: &[Section<'_>]) -> Result<bool, NotPlain> {
    // Code that does needs their number in advance.
    if !sections
        .iter()
        .any(|section| matches!(section.payload, Payload::DataCountSection { .. }))
    {
        return Ok(false);
    }
    for code in sections.iter().filter_map(Section::code) {
        for body in code? {
            for operator in body?.get_operators_reader()? {
                if let Operator::MemoryInit { .. } | Operator::DataDrop { .. } = operator? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Returns the value of an expression that is a mere number.
fn constant(expression: &ConstExpr<'_>) -> Result<u64, NotPlain> {
    let mut operators = expression.get_operators_reader();
    match (operators.read()?, operators.read()?) {
        (Operator::I32Const { value }, Operator::End) => Ok(u64::from(value.cast_unsigned())),
        _ => Err(NotPlain),
    }
}

/// Lays `pieces`, in their order, into a memory of `size` bytes.
fn draw(pieces: &[(u64, &[u8])], size: u64) -> Result<Contents, NotPlain> {
    let page = PAGE as u64;
    let end = |(at, bytes): &(u64, &[u8])| at + bytes.len() as u64;
    let start = pieces.iter().map(|(at, _)| *at).min().ok_or(NotPlain)? / page * page;
    let end = pieces.iter().map(end).max().ok_or(NotPlain)?;
    // A piece that does not fit makes the module trap, which only wasmtime can do.
    if end > size {
        return Err(NotPlain);
    }
    let index = |at: u64| usize::try_from(at).map_err(|_| NotPlain);
    let mut laid = vec![0; index(end.next_multiple_of(page) - start)?];
    for (at, bytes) in pieces {
        let at = index(at - start)?;
        laid[at..at + bytes.len()].copy_from_slice(bytes);
    }
    Ok(Contents {
        start: index(start)?,
        bytes: laid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmparser::Parser;

    /// A component of one module, whose sections follow.
    fn of(module: &Module) -> Vec<u8> {
        let mut component = Component::new();
        component.section(&wasm_encoder::ModuleSection(module));
        component.finish()
    }

    fn memories(sizes: &[u64]) -> wasm_encoder::MemorySection {
        let mut memories = wasm_encoder::MemorySection::new();
        for minimum in sizes {
            memories.memory(wasm_encoder::MemoryType {
                minimum: *minimum,
                maximum: None,
                memory64: false,
                shared: false,
                page_size_log2: None,
            });
        }
        memories
    }

    fn data(pieces: &[(i32, &[u8])]) -> DataSection {
        let mut data = DataSection::new();
        for (at, bytes) in pieces {
            let at = wasm_encoder::ConstExpr::i32_const(*at);
            data.active(0, &at, bytes.iter().copied());
        }
        data
    }

    fn plain(pieces: &[(i32, &[u8])]) -> Module {
        let mut module = Module::new();
        module.section(&memories(&[1])).section(&data(pieces));
        module
    }

    /// Returns how many segments a component has, and how many bytes in them.
    fn segments(wasm: &[u8]) -> (usize, usize) {
        let mut found = (0, 0);
        for payload in Parser::new(0).parse_all(wasm) {
            if let Payload::DataSection(data) = payload.unwrap() {
                for segment in data {
                    found.0 += 1;
                    found.1 += segment.unwrap().data.len();
                }
            }
        }
        found
    }

    /// The same, with code that drops its first segment.
    fn dropping(pieces: &[(i32, &[u8])]) -> Module {
        let mut types = wasm_encoder::TypeSection::new();
        types.ty().function([], []);
        let mut functions = wasm_encoder::FunctionSection::new();
        functions.function(0);
        let mut body = wasm_encoder::Function::new([]);
        body.instructions().data_drop(0).end();
        let mut code = wasm_encoder::CodeSection::new();
        code.function(&body);
        let mut module = Module::new();
        module
            .section(&types)
            .section(&functions)
            .section(&memories(&[1]))
            .section(&wasm_encoder::DataCountSection {
                count: u32::try_from(pieces.len()).unwrap(),
            })
            .section(&code)
            .section(&data(pieces));
        module
    }

    #[test]
    fn segments_that_code_asks_for_stay_empty_in_their_places() {
        let (rest, _) = take_out(&of(&dropping(&[(0, b"a"), (4, b"b")]))).unwrap();
        assert_eq!(segments(&rest), (2, 0));
    }

    #[test]
    fn contents_are_laid_in_order_and_taken_out() {
        let pieces: [(i32, &[u8]); 3] = [(5000, b"abcd"), (5002, b"XY"), (9000, b"z")];
        let (rest, contents) = take_out(&of(&plain(&pieces))).unwrap();
        assert_eq!(segments(&rest), (0, 0));
        assert_eq!((contents.start, contents.bytes.len()), (4096, 8192));
        assert_eq!(&contents.bytes[5000 - 4096..][..5], b"abXY\0");
        assert_eq!(contents.bytes[9000 - 4096], b'z');
    }

    #[test]
    fn contents_of_a_component_within_are_found() {
        let inner = of(&plain(&[(0, b"a")]));
        let mut outer = Component::new();
        let id = wasm_encoder::ComponentSectionId::Component.into();
        outer.section(&RawSection { id, data: &inner });
        let (rest, contents) = take_out(&outer.finish()).unwrap();
        assert_eq!(segments(&rest), (0, 0));
        assert_eq!(contents.bytes[0], b'a');
    }

    #[test]
    fn what_is_not_plain_stays() {
        let two_memories = {
            let mut module = Module::new();
            module
                .section(&memories(&[1, 1]))
                .section(&data(&[(0, b"a")]));
            of(&module)
        };
        let two_modules = {
            let mut component = Component::new();
            let module = plain(&[(0, b"a")]);
            component.section(&wasm_encoder::ModuleSection(&module));
            component.section(&wasm_encoder::ModuleSection(&module));
            component.finish()
        };
        let beside_an_empty_one = {
            let mut component = Component::new();
            component.section(&wasm_encoder::ModuleSection(&plain(&[(0, b"a")])));
            let mut empty = Module::new();
            empty.section(&memories(&[1]));
            component.section(&wasm_encoder::ModuleSection(&empty));
            component.finish()
        };
        let out_of_bounds = of(&plain(&[(65_535, b"ab")]));
        let at_a_global = {
            let mut data = DataSection::new();
            let at = wasm_encoder::ConstExpr::global_get(0);
            data.active(0, &at, *b"a");
            let mut module = Module::new();
            module.section(&memories(&[1])).section(&data);
            of(&module)
        };
        for component in [
            two_memories,
            two_modules,
            beside_an_empty_one,
            out_of_bounds,
            at_a_global,
            b"\0asm\x0d\0\x01\0\x01\xff".to_vec(),
        ] {
            assert!(take_out(&component).is_none(), "{component:?}");
        }
    }
}
