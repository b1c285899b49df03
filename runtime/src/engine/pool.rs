//! The allocator of instances: how many there can be at a time, and what each may take up.

use super::artifact::{Description, Signed};
use super::memory::{First, Memories};
use super::stack::Stacks;
use crate::config::Config;
use std::io;
use std::sync::Arc;
use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig};

/// Sets up the allocator of instances of the component in `signed`.
pub(super) fn allocate(
    settings: &mut wasmtime::Config,
    signed: &Signed,
    description: &Description,
    config: &Config,
) -> io::Result<()> {
    let Some(place) = description.contents else {
        settings.allocation_strategy(pool(description, config));
        return Ok(());
    };
    let first = First {
        file: signed.file(),
        at: place.at,
        len: place.len,
        start: place.start,
    };
    let memories = instances(config).saturating_mul(description.memories.max(1));
    let memories = Memories::new(&first, most_memory(config), memories as usize)?;
    settings
        .with_host_memory(Arc::new(memories))
        .with_host_stack(Arc::new(Stacks::default()));
    Ok(())
}

/// Returns the most that one memory may take up, in bytes.
fn most_memory(config: &Config) -> usize {
    usize::try_from(config.limits.memory).unwrap_or(usize::MAX)
}

/// Returns wasmtime's own allocator: every slot that can be needed at a time is there from the start.
fn pool(description: &Description, config: &Config) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    let slots = instances(config);
    let each = |count: u32| slots.saturating_mul(count.max(1));
    pool.total_component_instances(slots)
        .total_core_instances(each(description.core_instances))
        .total_memories(each(description.memories))
        .total_tables(each(description.tables))
        // Each request may need a second one in 0.3.
        .total_stacks(each(2))
        .max_memories_per_component(description.memories.max(1))
        .max_tables_per_component(description.tables.max(1))
        .max_memories_per_module(description.memories.max(1))
        .max_tables_per_module(description.tables.max(1))
        .max_memory_size(most_memory(config))
        // Tables are a few KiB: clearing them in place is cheaper than giving their pages back to the kernel.
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .linear_memory_keep_resident(memory_keep_resident(description.initial_memory))
        // Off: on wasmtime 48.0 it can leave bytes of the last guest in place when pages are swapped out or moved.
        .pagemap_scan(wasmtime::Enabled::No);
    InstanceAllocationStrategy::Pooling(pool)
}

/// Returns how many instances a worker may have at a time.
pub fn instances(config: &Config) -> u32 {
    let consumers = config.shared.consumers.values();
    let instances = consumers.fold(config.limits.in_flight, |sum, consumer| {
        sum.saturating_add(consumer.concurrency)
    });
    // A guest that goes on after its answer still holds its slot; and each request may need a second stack in 0.3.
    instances.saturating_mul(2)
}

/// Bytes of a table that are cleared in place.
const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// Returns how many bytes of a memory are cleared in place. In a small memory they are the ones that a guest writes to, and
/// clearing them spares the next guest their page faults. A large one begins with a stack that most guests hardly use, or
/// with an engine's data: there the kernel takes back what was written and nothing else.
fn memory_keep_resident(initial_memory: u64) -> usize {
    if initial_memory <= SMALL_MEMORY {
        MEMORY_KEEP_RESIDENT
    } else {
        0
    }
}

/// The initial size, in bytes, up to which a memory is small.
const SMALL_MEMORY: u64 = 256 << 10;

/// Bytes of a small memory that are cleared in place.
const MEMORY_KEEP_RESIDENT: usize = 128 << 10;
