//! What a component is made of, which of its modules are fused, and what each item of it is then.

use super::NotPlain;
use super::item::{Item, Kind};
use super::module::{Link, merge};
use super::part::Part;
use crate::engine::sections::{Section, sections};
use std::collections::{HashMap, HashSet};
use wasm_encoder::RawSection;
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ExternalKind, Instance, Parser, Payload,
};

/// What the new component has in this place.
pub(super) enum Step<'a> {
    /// A section as it was.
    Raw(RawSection<'a>),
    /// An alias of what is no core item.
    Alias(ComponentAlias<'a>),
    /// A module as it was.
    Module(u32),
    /// An instance of a module as it was.
    Late(u32),
    Lift(CanonicalFunction),
}

/// How the component makes a core function.
enum Func<'a> {
    Canonical(CanonicalFunction),
    Alias { instance: u32, name: &'a str },
}

/// The component, and what becomes of it.
#[derive(Default)]
pub(super) struct Plan<'a> {
    pub(super) steps: Vec<Step<'a>>,
    pub(super) modules: Vec<&'a [u8]>,
    instances: Vec<Instance<'a>>,
    funcs: Vec<Func<'a>>,
    /// Tables, memories and globals: they are always exports of instances.
    others: HashMap<Kind, Vec<(u32, &'a str)>>,
    /// The modules that are fused, in the order of their instances, and which instance is of which.
    parts: Vec<Part<'a>>,
    part_of: HashMap<u32, usize>,
    /// What each part imports.
    links: Vec<Vec<Item<'a>>>,
    /// The modules of the other instances.
    late: HashMap<u32, Part<'a>>,
}

impl<'a> Plan<'a> {
    pub(super) fn read(wasm: &'a [u8]) -> Result<Self, NotPlain> {
        let mut plan = Self::default();
        for section in sections(wasm).ok_or(NotPlain)? {
            plan.section(section)?;
        }
        plan.choose()?;
        Ok(plan)
    }

    fn section(&mut self, section: Section<'a>) -> Result<(), NotPlain> {
        let raw = section.raw();
        let bytes = section.bytes;
        match section.payload {
            Payload::ModuleSection { .. } => {
                let number = count(self.modules.len())?;
                self.modules.push(bytes);
                self.steps.push(Step::Module(number));
            }
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    let instance = instance?;
                    if let Instance::Instantiate { .. } = instance {
                        self.steps.push(Step::Late(count(self.instances.len())?));
                    }
                    self.instances.push(instance);
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    self.alias(alias?)?;
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions {
                    match function? {
                        lift @ CanonicalFunction::Lift { .. } => self.steps.push(Step::Lift(lift)),
                        other => self.funcs.push(Func::Canonical(other)),
                    }
                }
            }
            Payload::ComponentSection { .. } if !is_plain_within(bytes)? => return Err(NotPlain),
            Payload::ComponentInstanceSection(instances) if !is_without_modules(&instances)? => {
                return Err(NotPlain);
            }
            Payload::ComponentStartSection { .. } => return Err(NotPlain),
            _ => self.steps.push(Step::Raw(raw)),
        }
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'a>) -> Result<(), NotPlain> {
        match alias {
            ComponentAlias::CoreInstanceExport {
                kind: ExternalKind::Func,
                instance_index: instance,
                name,
            } => self.funcs.push(Func::Alias { instance, name }),
            ComponentAlias::CoreInstanceExport {
                kind,
                instance_index,
                name,
            } => {
                let others = self.others.entry(kind.try_into()?).or_default();
                others.push((instance_index, name));
            }
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Module,
                ..
            }
            | ComponentAlias::Outer {
                kind: ComponentOuterAliasKind::CoreModule,
                ..
            } => return Err(NotPlain),
            other => self.steps.push(Step::Alias(other)),
        }
        Ok(())
    }

    /// Chooses what is fused.
    fn choose(&mut self) -> Result<(), NotPlain> {
        let mut used = HashSet::new();
        // Whether code has run that expects what came before it and nothing else.
        let mut started = false;
        for (number, instance) in self.instances.clone().iter().enumerate() {
            let Instance::Instantiate { module_index, .. } = instance else {
                continue;
            };
            let number = count(number)?;
            let bytes = self.modules.get(*module_index as usize).ok_or(NotPlain)?;
            let part = Part::read(bytes)?;
            if !used.insert(*module_index) {
                return Err(NotPlain);
            }
            match self.links(number, &part)? {
                Some(links) if !started && !part.starts => {
                    self.part_of.insert(number, self.parts.len());
                    self.parts.push(part);
                    self.links.push(links);
                }
                _ => {
                    started |= part.starts;
                    self.late.insert(number, part);
                }
            }
        }
        if self.parts.len() < 2 {
            return Err(NotPlain);
        }
        let fused: HashSet<u32> = self.part_of.keys().copied().collect();
        let late: HashSet<u32> = self.late.keys().map(|late| self.module_of(*late)).collect();
        self.steps.retain(|step| match step {
            Step::Late(instance) => !fused.contains(instance),
            Step::Module(module) => late.contains(module),
            _ => true,
        });
        Ok(())
    }

    /// Returns what each import of a module is, if it can be fused with the parts so far.
    fn links(&self, instance: u32, part: &Part<'a>) -> Result<Option<Vec<Item<'a>>>, NotPlain> {
        let mut links = Vec::new();
        for import in &part.imports {
            let item = self.argument(instance, import.module, import.name)?;
            let fits = match &item {
                Item::Fused { .. } => true,
                Item::Late { .. } => false,
                Item::Canonical(function) => !needs_instance(self.canonical(*function)?),
            };
            if !fits {
                return Ok(None);
            }
            links.push(item);
        }
        Ok(Some(links))
    }

    fn module_of(&self, instance: u32) -> u32 {
        match self.instances.get(instance as usize) {
            Some(Instance::Instantiate { module_index, .. }) => *module_index,
            _ => u32::MAX,
        }
    }

    /// Returns what an instance is given for an import.
    fn argument(&self, instance: u32, module: &str, name: &'a str) -> Result<Item<'a>, NotPlain> {
        let Some(Instance::Instantiate { args, .. }) = self.instances.get(instance as usize) else {
            return Err(NotPlain);
        };
        let mut args = args.iter();
        let arg = args.find(|arg| arg.name == module).ok_or(NotPlain)?;
        self.export(arg.index, name)
    }

    /// Returns what an instance exports by a name.
    fn export(&self, instance: u32, name: &'a str) -> Result<Item<'a>, NotPlain> {
        let kind_in = |part: &Part<'a>| part.exports.get(name).map(|(kind, _)| *kind);
        if let Some(part) = self.part_of.get(&instance) {
            return Ok(Item::Fused {
                part: *part,
                kind: kind_in(&self.parts[*part]).ok_or(NotPlain)?,
                name,
            });
        }
        if let Some(late) = self.late.get(&instance) {
            return Ok(Item::Late {
                instance,
                kind: kind_in(late).ok_or(NotPlain)?,
                name,
            });
        }
        let Some(Instance::FromExports(exports)) = self.instances.get(instance as usize) else {
            return Err(NotPlain);
        };
        let mut exports = exports.iter();
        let export = exports.find(|export| export.name == name);
        let export = export.ok_or(NotPlain)?;
        match export.kind.try_into()? {
            Kind::Func => self.func(export.index),
            kind => self.other(kind, export.index),
        }
    }

    pub(super) fn func(&self, number: u32) -> Result<Item<'a>, NotPlain> {
        match self.funcs.get(number as usize).ok_or(NotPlain)? {
            Func::Canonical(_) => Ok(Item::Canonical(number)),
            Func::Alias { instance, name } => self.export(*instance, name),
        }
    }

    pub(super) fn memory(&self, number: u32) -> Result<Item<'a>, NotPlain> {
        self.other(Kind::Memory, number)
    }

    fn other(&self, kind: Kind, number: u32) -> Result<Item<'a>, NotPlain> {
        let others = self.others.get(&kind).ok_or(NotPlain)?;
        let (instance, name) = others.get(number as usize).ok_or(NotPlain)?;
        self.export(*instance, name)
    }

    pub(super) fn canonical(&self, number: u32) -> Result<&CanonicalFunction, NotPlain> {
        match self.funcs.get(number as usize) {
            Some(Func::Canonical(function)) => Ok(function),
            _ => Err(NotPlain),
        }
    }

    /// Returns the module of an instance that is not fused, and what it imports: from where, by which name, what.
    #[expect(clippy::type_complexity, reason = "named in the line above")]
    pub(super) fn late(
        &self,
        instance: u32,
    ) -> Result<(u32, Vec<(&'a str, &'a str, Item<'a>)>), NotPlain> {
        let part = self.late.get(&instance).ok_or(NotPlain)?;
        let imports = part.imports.iter().map(|import| {
            let item = self.argument(instance, import.module, import.name)?;
            Ok((import.module, import.name, item))
        });
        let imports = imports.collect::<Result<_, NotPlain>>()?;
        Ok((self.module_of(instance), imports))
    }

    /// Returns the fused module, and what it imports.
    pub(super) fn fused_module(&self) -> Result<(Vec<u8>, Vec<Item<'a>>), NotPlain> {
        let mut imports: Vec<Item<'a>> = Vec::new();
        let mut links = Vec::new();
        for items in &self.links {
            let link = |item: &Item<'a>| match item {
                Item::Fused { part, name, .. } => Ok(Link::Part { part: *part, name }),
                canonical => {
                    let known = imports.iter().position(|known| known == canonical);
                    let number = known.unwrap_or_else(|| {
                        imports.push(canonical.clone());
                        imports.len() - 1
                    });
                    Ok(Link::Import(count(number)?))
                }
            };
            let items = items.iter().map(link);
            links.push(items.collect::<Result<Vec<_>, NotPlain>>()?);
        }
        let exports = self.demanded()?;
        let exports = exports.iter().filter_map(|item| match item {
            Item::Fused { part, name, .. } => Some((item.exported(), *part, *name)),
            _ => None,
        });
        let exports: Vec<_> = exports.collect();
        Ok((merge(&self.parts, &links, &exports)?, imports))
    }

    /// Returns what others than fused modules take of them.
    fn demanded(&self) -> Result<Vec<Item<'a>>, NotPlain> {
        let mut demanded = Vec::new();
        for instance in self.late.keys() {
            demanded.extend(self.late(*instance)?.1.into_iter().map(|(.., item)| item));
        }
        let lifts = self.steps.iter().filter_map(|step| match step {
            Step::Lift(lift) => Some(lift),
            _ => None,
        });
        let lowers = self.funcs.iter().filter_map(|func| match func {
            Func::Canonical(function) => Some(function),
            Func::Alias { .. } => None,
        });
        for function in lifts.chain(lowers) {
            if let CanonicalFunction::Lift {
                core_func_index, ..
            } = function
            {
                demanded.push(self.func(*core_func_index)?);
            }
            for option in options(function) {
                match *option {
                    CanonicalOption::Memory(old) => demanded.push(self.memory(old)?),
                    CanonicalOption::Realloc(old) | CanonicalOption::PostReturn(old) => {
                        demanded.push(self.func(old)?);
                    }
                    _ => {}
                }
            }
        }
        let mut seen = HashSet::new();
        demanded.retain(|item| seen.insert(item.clone()));
        demanded.sort_by_key(Item::exported);
        Ok(demanded)
    }
}

fn options(function: &CanonicalFunction) -> &[CanonicalOption] {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options
        }
        _ => &[],
    }
}

/// Tells whether a function can only be made once there is an instance.
fn needs_instance(function: &CanonicalFunction) -> bool {
    options(function).iter().any(|option| {
        !matches!(
            option,
            CanonicalOption::UTF8 | CanonicalOption::UTF16 | CanonicalOption::CompactUTF16
        )
    })
}

/// Tells whether components are instantiated without modules among what they are given.
fn is_without_modules(
    instances: &wasmparser::ComponentInstanceSectionReader<'_>,
) -> Result<bool, NotPlain> {
    for instance in instances.clone() {
        if let ComponentInstance::Instantiate { args, .. } = instance?
            && args
                .iter()
                .any(|arg| arg.kind == ComponentExternalKind::Module)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tells whether a component within another one leaves the other's modules alone.
fn is_plain_within(wasm: &[u8]) -> Result<bool, NotPlain> {
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ModuleSection { .. } => return Ok(false),
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    if let ComponentAlias::Outer {
                        kind: ComponentOuterAliasKind::CoreModule,
                        ..
                    } = alias?
                    {
                        return Ok(false);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(true)
}

fn count(number: usize) -> Result<u32, NotPlain> {
    u32::try_from(number).map_err(|_| NotPlain)
}
