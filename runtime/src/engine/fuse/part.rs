//! One of a component's core modules, read but for its code.

use super::NotPlain;
use super::item::Kind;
use crate::engine::sections::sections;
use std::collections::HashMap;
use wasmparser::{CodeSectionReader, Import, Payload};

/// One of the modules.
#[derive(Default)]
pub(super) struct Part<'a> {
    pub(super) imports: Vec<Import<'a>>,
    pub(super) exports: HashMap<&'a str, (Kind, u32)>,
    /// Whether it runs code when it is instantiated.
    pub(super) starts: bool,
    /// The others, but for imports and exports.
    pub(super) sections: Vec<Payload<'a>>,
    pub(super) code: Option<CodeSectionReader<'a>>,
    pub(super) types: u32,
}

impl<'a> Part<'a> {
    pub(super) fn read(wasm: &'a [u8]) -> Result<Self, NotPlain> {
        let mut part = Self::default();
        for section in sections(wasm).ok_or(NotPlain)? {
            if let Some(code) = section.code() {
                part.code = Some(code?);
                continue;
            }
            match section.payload {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        part.imports.push(import?);
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        let item = (export.kind.try_into()?, export.index);
                        part.exports.insert(export.name, item);
                    }
                }
                Payload::TypeSection(types) => {
                    for group in types.clone() {
                        part.types += u32::try_from(group?.types().len()).map_err(|_| NotPlain)?;
                    }
                    part.sections.push(Payload::TypeSection(types));
                }
                Payload::StartSection { .. } => part.starts = true,
                Payload::TagSection(_) => return Err(NotPlain),
                section => part.sections.push(section),
            }
        }
        Ok(part)
    }
}
