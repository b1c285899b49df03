//! A core item of a component: a function, a table, a memory or a global, by where it comes from.

use super::NotPlain;
use wasm_encoder::ExportKind;
use wasmparser::ExternalKind;

/// A kind of items that modules share with each other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    Func,
    Table,
    Memory,
    Global,
}

impl TryFrom<ExternalKind> for Kind {
    type Error = NotPlain;

    fn try_from(kind: ExternalKind) -> Result<Self, NotPlain> {
        match kind {
            ExternalKind::Func => Ok(Self::Func),
            ExternalKind::Table => Ok(Self::Table),
            ExternalKind::Memory => Ok(Self::Memory),
            ExternalKind::Global => Ok(Self::Global),
            _ => Err(NotPlain),
        }
    }
}

impl From<Kind> for ExportKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Func => Self::Func,
            Kind::Table => Self::Table,
            Kind::Memory => Self::Memory,
            Kind::Global => Self::Global,
        }
    }
}

/// A core item, by what it comes from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Item<'a> {
    /// A canonical function: the one that makes the core function of this number.
    Canonical(u32),
    /// What a fused module exports.
    Fused {
        part: usize,
        kind: Kind,
        name: &'a str,
    },
    /// What the instance of this number exports, whose module is not fused.
    Late {
        instance: u32,
        kind: Kind,
        name: &'a str,
    },
}

impl Item<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Canonical(_) => Kind::Func,
            Self::Fused { kind, .. } | Self::Late { kind, .. } => *kind,
        }
    }

    /// Returns the name by which the fused module exports the item.
    pub(super) fn exported(&self) -> String {
        match self {
            Self::Fused { part, name, .. } => format!("{part}/{name}"),
            Self::Canonical(_) | Self::Late { .. } => String::new(),
        }
    }
}
