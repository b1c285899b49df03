//! The first contents of a component's memory, taken out of the component, so that `memory` can map them and put them
//! back.
//!
//! Only what is plain is taken out: one memory in one module, filled at constant places within its first size. Anything
//! else stays where it is, and wasmtime fills the memory.

use wasm_encoder::{Component, DataSection, Module, RawSection};
use wasmparser::{Chunk, ConstExpr, DataKind, Operator, Parser, Payload, TypeRef};

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

/// One section of a component or a module.
struct Section<'a> {
    id: u8,
    bytes: &'a [u8],
    payload: Payload<'a>,
}

impl Section<'_> {
    fn raw(&self) -> RawSection<'_> {
        RawSection {
            id: self.id,
            data: self.bytes,
        }
    }
}

/// Returns the sections of a component or a module, but not those of what lies in it.
fn sections(wasm: &[u8]) -> Result<Vec<Section<'_>>, NotPlain> {
    let mut parser = Parser::new(0);
    let mut sections = Vec::new();
    let mut at = 0;
    loop {
        let rest = wasm.get(at..).ok_or(NotPlain)?;
        let Chunk::Parsed { consumed, payload } = parser.parse(rest, true)? else {
            return Err(NotPlain);
        };
        at += consumed;
        if let Payload::End(_) = payload {
            return Ok(sections);
        }
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        match payload {
            Payload::CodeSectionStart { .. } => {
                parser.skip_section();
                at = range.end;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => at = range.end,
            _ => {}
        }
        let bytes = wasm.get(range).ok_or(NotPlain)?;
        sections.push(Section { id, bytes, payload });
    }
}

fn component(wasm: &[u8], contents: &mut Option<Contents>) -> Result<Vec<u8>, NotPlain> {
    let mut rest = Component::new();
    for section in sections(wasm)? {
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
    let sections = sections(wasm)?;
    let Some(size) = memory(&sections)? else {
        return Ok(None);
    };
    let mut rest = Module::new();
    let mut own = None;
    for section in &sections {
        let Payload::DataSection(data) = &section.payload else {
            rest.section(&section.raw());
            continue;
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
        rest.section(&segments);
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

    #[test]
    fn contents_are_laid_in_order_and_taken_out() {
        let pieces: [(i32, &[u8]); 3] = [(5000, b"abcd"), (5002, b"XY"), (9000, b"z")];
        let (rest, contents) = take_out(&of(&plain(&pieces))).unwrap();
        assert_eq!(segments(&rest), (3, 0));
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
        assert_eq!(segments(&rest), (1, 0));
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
