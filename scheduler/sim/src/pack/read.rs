//! Nodes and tasks from tables, their columns found by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gotgan_core::amount::{CpuMilli, GpuMilli, MemoryMib};
use gotgan_core::fragmentation::{ClassNumber, ClassSet, GpuShape, Room, Shape};

use super::Experiment;
use super::board::Host;
use crate::table::{Row, Table, TableError};

/// Most GPUs one node may have: every other number in the file is a slip.
const GPUS_MAX: u32 = 64;

/// Reads both tables: of nodes the columns `sn`, `cpu_milli`, `memory_mib`, `gpu` and `model`, of tasks `cpu_milli`,
/// `memory_mib`, `num_gpu`, `gpu_milli` and, where there is one, `gpu_spec`. Nodes without GPUs are left out.
///
/// # Errors
/// [`TableError`]
pub fn read(nodes: &Path, tasks: &Path) -> Result<Experiment, TableError> {
    let mut hosts = Vec::new();
    let mut table = Table::open(nodes)?;
    table.require(&["sn", "cpu_milli", "memory_mib", "gpu", "model"])?;
    while let Some(row) = table.row()? {
        hosts.extend(node_of(&row)?);
    }
    hosts.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let models = number_models(&mut hosts);
    let hosts = hosts.into_iter().map(|(host, _)| host).collect();
    Ok(Experiment::new(hosts, read_tasks(tasks, &models)?))
}

/// A node with the name of its model; `None` if it has no GPUs.
fn node_of(row: &Row<'_>) -> Result<Option<(Host, String)>, TableError> {
    let gpus: u32 = row.value("gpu")?;
    if gpus > GPUS_MAX {
        return Err(row.fault("gpu", format!("more than {GPUS_MAX} GPUs on one node")));
    }
    let room = Room {
        class: ClassNumber(0),
        cpu_milli: CpuMilli(row.value("cpu_milli")?),
        memory_mib: MemoryMib(row.value("memory_mib")?),
        gpus: vec![GpuMilli::WHOLE; gpus as usize],
    };
    let host = Host::idle(row.text("sn")?.to_owned(), room);
    Ok((gpus > 0).then_some((host, row.text("model")?.to_owned())))
}

/// Numbers models in the order of their names.
fn number_models(hosts: &mut [(Host, String)]) -> BTreeMap<String, ClassNumber> {
    let names: BTreeSet<String> = hosts.iter().map(|(_, model)| model.clone()).collect();
    let models: BTreeMap<_, _> = names.into_iter().zip((0..u16::MAX).map(ClassNumber)).collect();
    for (host, model) in hosts {
        host.room.class = models[model];
    }
    models
}

fn read_tasks(
    path: &Path,
    models: &BTreeMap<String, ClassNumber>,
) -> Result<Vec<Shape>, TableError> {
    let mut table = Table::open(path)?;
    table.require(&["cpu_milli", "memory_mib", "num_gpu", "gpu_milli"])?;
    let has_models = table.has("gpu_spec");
    let mut tasks = Vec::new();
    while let Some(row) = table.row()? {
        let asked = if has_models { row.text("gpu_spec")? } else { "" };
        tasks.push(Shape {
            gpus: gpus_of(&row)?,
            classes: classes_of(asked, models),
            cpu_milli: CpuMilli(row.value("cpu_milli")?),
            memory_mib: MemoryMib(row.value("memory_mib")?),
        });
    }
    Ok(tasks)
}

fn gpus_of(row: &Row<'_>) -> Result<GpuShape, TableError> {
    let (count, milli): (u32, u64) = (row.value("num_gpu")?, row.value("gpu_milli")?);
    match (count, milli) {
        (0, _) => Ok(GpuShape::None),
        (_, 1000) => Ok(GpuShape::Whole(count)),
        (1, 1..1000) => Ok(GpuShape::Share(GpuMilli(milli))),
        _ => Err(row.fault("gpu_milli", "1 to 1000, and 1000 for more than one GPU")),
    }
}

/// Models that will do, `A|B`; those that no node has are nothing.
fn classes_of(asked: &str, models: &BTreeMap<String, ClassNumber>) -> ClassSet {
    if asked.is_empty() {
        return ClassSet::ANY;
    }
    let known = asked.split('|').filter_map(|model| models.get(model.trim()));
    known.fold(ClassSet::NONE, |classes, class| classes.with(*class))
}
