//! The sections of a component or a core module, each with its bytes, without a look into what lies in them.

use wasm_encoder::RawSection;
use wasmparser::{BinaryReader, Chunk, CodeSectionReader, Parser, Payload};

/// One section.
pub(super) struct Section<'a> {
    pub(super) id: u8,
    pub(super) bytes: &'a [u8],
    pub(super) payload: Payload<'a>,
}

impl<'a> Section<'a> {
    /// Returns what writes it as it is.
    pub(super) fn raw(&self) -> RawSection<'a> {
        RawSection {
            id: self.id,
            data: self.bytes,
        }
    }

    /// Returns the functions of a section of code.
    pub(super) fn code(&self) -> Option<wasmparser::Result<CodeSectionReader<'a>>> {
        let Payload::CodeSectionStart { .. } = self.payload else {
            return None;
        };
        Some(CodeSectionReader::new(BinaryReader::new(self.bytes, 0)))
    }
}

/// Returns the sections of `wasm`; `None` if it is broken.
pub(super) fn sections(wasm: &[u8]) -> Option<Vec<Section<'_>>> {
    let mut parser = Parser::new(0);
    let mut sections = Vec::new();
    let mut at = 0;
    loop {
        let Ok(Chunk::Parsed { consumed, payload }) = parser.parse(wasm.get(at..)?, true) else {
            return None;
        };
        at += consumed;
        if let Payload::End(_) = payload {
            return Some(sections);
        }
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        let (start, end) = (
            usize::try_from(range.start).ok()?,
            usize::try_from(range.end).ok()?,
        );
        match payload {
            Payload::CodeSectionStart { .. } => {
                parser.skip_section();
                at = end;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => at = end,
            _ => {}
        }
        let bytes = wasm.get(start..end)?;
        sections.push(Section { id, bytes, payload });
    }
}
