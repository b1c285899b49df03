//! The core modules of a component made into one, as a linker does, before they are compiled.
//!
//! A component is mostly one program in several modules: its code, a table of detours through which it calls what needs its
//! memory, an adapter, and in Python's case each shared library. wasmtime connects them anew for each instance: it looks up
//! each export, and puts each function of a shared library into a table. In one module all that is known beforehand.
//!
//! What a module imports decides: it is fused if all of that comes from modules that are, or from the host without the help
//! of their memory. Others stay what they are: the one that fills the detours always does. Anything unusual leaves the
//! whole component as it is. Nothing here is checked for safety: what comes out is compiled like any other component.

mod direct;
mod item;
mod module;
mod part;
mod plan;
mod renumber;

use item::{Item, Kind};
use plan::{Plan, Step};
use std::collections::HashMap;
use wasm_encoder::reencode::{self, ReencodeComponent as _, RoundtripReencoder};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption as Encoded, Component, ComponentAliasSection,
    InstanceSection, ModuleArg, RawSection,
};
use wasmparser::{CanonicalFunction, CanonicalOption};

/// The component is not of the plain kind that can be fused.
#[derive(Debug)]
pub(super) struct NotPlain;

impl From<wasmparser::Error> for NotPlain {
    fn from(_: wasmparser::Error) -> Self {
        Self
    }
}

impl From<reencode::Error<Self>> for NotPlain {
    fn from(_: reencode::Error<Self>) -> Self {
        Self
    }
}

/// Returns the component `wasm` with its modules fused; `None` if that cannot be done, or brings nothing.
pub(crate) fn fuse(wasm: &[u8]) -> Option<Vec<u8>> {
    let plan = Plan::read(wasm).ok()?;
    let mut writer = Writer::new(&plan);
    for step in &plan.steps {
        writer.step(step).ok()?;
    }
    Some(writer.out.finish())
}

/// How many items of each kind there are so far.
#[derive(Default)]
struct Counts {
    modules: u32,
    instances: u32,
    funcs: u32,
    tables: u32,
    memories: u32,
    globals: u32,
}

impl Counts {
    fn next(&mut self, kind: Kind) -> u32 {
        post_increment(match kind {
            Kind::Func => &mut self.funcs,
            Kind::Table => &mut self.tables,
            Kind::Memory => &mut self.memories,
            Kind::Global => &mut self.globals,
        })
    }
}

fn post_increment(count: &mut u32) -> u32 {
    *count += 1;
    *count - 1
}

/// An item of an instance that is made of items: its name, its kind and where it is.
type Export<'a> = (&'a str, Kind, u32);

/// Writes the new component: what the plan says in its order, and core items when they are first asked for.
struct Writer<'a> {
    plan: &'a Plan<'a>,
    out: Component,
    counts: Counts,
    /// Where the items are that were asked for.
    items: HashMap<Item<'a>, u32>,
    /// Where modules and instances are that were not fused.
    modules: HashMap<u32, u32>,
    late: HashMap<u32, u32>,
    /// The instance of the fused module.
    fused: Option<u32>,
}

impl<'a> Writer<'a> {
    fn new(plan: &'a Plan<'a>) -> Self {
        Self {
            plan,
            out: Component::new(),
            counts: Counts::default(),
            items: HashMap::new(),
            modules: HashMap::new(),
            late: HashMap::new(),
            fused: None,
        }
    }

    fn step(&mut self, step: &Step<'a>) -> Result<(), NotPlain> {
        match step {
            Step::Raw(section) => {
                self.out.section(section);
            }
            Step::Alias(alias) => {
                let alias = RoundtripReencoder.component_alias(alias.clone());
                self.alias(alias.map_err(|_| NotPlain)?);
            }
            Step::Module(module) => {
                self.out.section(&RawSection {
                    id: wasm_encoder::ComponentSectionId::CoreModule.into(),
                    data: self.plan.modules[*module as usize],
                });
                let index = post_increment(&mut self.counts.modules);
                self.modules.insert(*module, index);
            }
            Step::Late(instance) => self.instantiate_late(*instance)?,
            Step::Lift(lift) => self.canonical(lift)?,
        }
        Ok(())
    }

    fn alias(&mut self, alias: Alias<'_>) {
        let mut section = ComponentAliasSection::new();
        section.alias(alias);
        self.out.section(&section);
    }

    /// Writes an item if it is missing; returns where it is.
    fn item(&mut self, item: &Item<'a>) -> Result<u32, NotPlain> {
        if let Some(index) = self.items.get(item) {
            return Ok(*index);
        }
        let kind = match item {
            Item::Canonical(function) => {
                let function = self.plan.canonical(*function)?;
                self.canonical(function)?;
                Kind::Func
            }
            Item::Fused { kind, .. } => {
                let instance = self.fused()?;
                let name = item.exported();
                self.core_alias(instance, *kind, &name);
                *kind
            }
            Item::Late {
                instance,
                kind,
                name,
            } => {
                let instance = *self.late.get(instance).ok_or(NotPlain)?;
                self.core_alias(instance, *kind, name);
                *kind
            }
        };
        let index = self.counts.next(kind);
        self.items.insert(item.clone(), index);
        Ok(index)
    }

    fn core_alias(&mut self, instance: u32, kind: Kind, name: &str) {
        self.alias(Alias::CoreInstanceExport {
            instance,
            kind: kind.into(),
            name,
        });
    }

    /// Writes a canonical function after what its options name.
    fn canonical(&mut self, function: &CanonicalFunction) -> Result<(), NotPlain> {
        let mut section = CanonicalFunctionSection::new();
        match function {
            CanonicalFunction::Lift {
                core_func_index,
                type_index,
                options,
            } => {
                let lifted = self.func(*core_func_index)?;
                let options = self.options(options)?;
                section.lift(lifted, *type_index, options);
            }
            CanonicalFunction::Lower {
                func_index,
                options,
            } => {
                let options = self.options(options)?;
                section.lower(*func_index, options);
            }
            CanonicalFunction::ResourceNew { resource } => {
                section.resource_new(*resource);
            }
            CanonicalFunction::ResourceDrop { resource } => {
                section.resource_drop(*resource);
            }
            CanonicalFunction::ResourceRep { resource } => {
                section.resource_rep(*resource);
            }
            _ => return Err(NotPlain),
        }
        self.out.section(&section);
        Ok(())
    }

    fn func(&mut self, old: u32) -> Result<u32, NotPlain> {
        let item = self.plan.func(old)?;
        self.item(&item)
    }

    fn options(&mut self, options: &[CanonicalOption]) -> Result<Vec<Encoded>, NotPlain> {
        options
            .iter()
            .map(|option| {
                Ok(match *option {
                    CanonicalOption::UTF8 => Encoded::UTF8,
                    CanonicalOption::UTF16 => Encoded::UTF16,
                    CanonicalOption::CompactUTF16 => Encoded::CompactUTF16,
                    CanonicalOption::Memory(old) => {
                        let item = self.plan.memory(old)?;
                        Encoded::Memory(self.item(&item)?)
                    }
                    CanonicalOption::Realloc(old) => Encoded::Realloc(self.func(old)?),
                    CanonicalOption::PostReturn(old) => Encoded::PostReturn(self.func(old)?),
                    _ => return Err(NotPlain),
                })
            })
            .collect()
    }

    /// Writes the fused module and its instance if they are missing; returns where the instance is.
    fn fused(&mut self) -> Result<u32, NotPlain> {
        if let Some(instance) = self.fused {
            return Ok(instance);
        }
        // None of them needs an instance, so this makes no circle.
        let (module, imports) = self.plan.fused_module()?;
        let items: Vec<_> = imports
            .iter()
            .map(|item| self.item(item))
            .collect::<Result<_, _>>()?;
        let module = direct::direct(&module).unwrap_or(module);
        self.out.section(&RawSection {
            id: wasm_encoder::ComponentSectionId::CoreModule.into(),
            data: &module,
        });
        let module = post_increment(&mut self.counts.modules);
        let names: Vec<_> = (0..items.len()).map(|number| number.to_string()).collect();
        let exports = names.iter().zip(items);
        let exports = exports.map(|(name, item)| (name.as_str(), Kind::Func, item));
        let args = self.bundle(exports.collect());
        let instance = self.instantiate(module, &[(module::IMPORTS, args)]);
        self.fused = Some(instance);
        Ok(instance)
    }

    /// Writes the instance of a module that was not fused.
    fn instantiate_late(&mut self, old: u32) -> Result<(), NotPlain> {
        let (module, imports) = self.plan.late(old)?;
        // In the order of their first import, so that the outcome does not depend on chance.
        let mut bundles: Vec<(&str, Vec<Export<'_>>)> = Vec::new();
        for (from, name, item) in imports {
            let export = (name, item.kind(), self.item(&item)?);
            match bundles.iter_mut().find(|(bundle, _)| *bundle == from) {
                Some((_, exports)) if exports.iter().any(|(known, ..)| *known == name) => {}
                Some((_, exports)) => exports.push(export),
                None => bundles.push((from, vec![export])),
            }
        }
        let args: Vec<_> = bundles
            .into_iter()
            .map(|(from, exports)| (from, self.bundle(exports)))
            .collect();
        let module = *self.modules.get(&module).ok_or(NotPlain)?;
        let instance = self.instantiate(module, &args);
        self.late.insert(old, instance);
        Ok(())
    }

    /// Writes an instance that is made of items.
    fn bundle(&mut self, exports: Vec<Export<'_>>) -> u32 {
        let mut section = InstanceSection::new();
        let exports = exports.into_iter();
        let exports: Vec<_> = exports
            .map(|(name, kind, index)| (name, kind.into(), index))
            .collect();
        section.export_items(exports);
        self.out.section(&section);
        post_increment(&mut self.counts.instances)
    }

    fn instantiate(&mut self, module: u32, args: &[(&str, u32)]) -> u32 {
        let mut section = InstanceSection::new();
        let args = args.iter();
        let args: Vec<_> = args
            .map(|(name, instance)| (*name, ModuleArg::Instance(*instance)))
            .collect();
        section.instantiate(module, args);
        self.out.section(&section);
        post_increment(&mut self.counts.instances)
    }
}

#[cfg(test)]
mod tests;
