//! What a GPU's driver tells beyond the readings that every GPU has. Only what is there is shown.

use gotgan_proto::v1;
use serde::Serialize;

use crate::view::{amount, word};

/// Millijoules of a kilowatt-hour.
const MILLIJOULES_PER_KWH: u64 = 3_600_000_000;

/// What is there of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GpuDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Domain beyond the node that the driver named when the worker registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_domain: Option<String>,
    /// Where the driver has it now, if not where it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_to_index: Option<u32>,
    /// Words for what holds its clocks down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clock_reasons: Vec<String>,
    /// Since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_mj: Option<u64>,
    /// What the driver wants done with it; "none" if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remapped_rows: Option<RowsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric: Option<FabricView>,
    /// It is cut into instances (MIG), perhaps into none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mig: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mig_devices: Vec<MigView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlinks: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlinks_up: Option<u32>,
}

/// Rows of memory that were replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowsView {
    pub correctable: u32,
    pub uncorrectable: u32,
    pub pending: bool,
    pub failed: bool,
}

/// Its part in a fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FabricView {
    pub state: String,
    pub nvlink_domain: String,
    pub health: String,
    /// The driver's code for how joining went.
    pub status: u32,
}

/// A device that it is cut into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigView {
    pub uuid: String,
    pub profile: String,
    pub gpu_instance: u32,
    pub compute_instance: u32,
    pub memory_mib: u64,
    /// Compute slices; 0 if they are not known.
    pub slices: u32,
    /// What it counts of its GPU, thousandths.
    pub milli: u32,
    /// A job has it.
    pub in_use: bool,
}

impl GpuDetail {
    /// As the API has it. `held`: instances that jobs have.
    #[must_use]
    pub fn of(gpu: &v1::GpuDevice, reading: &v1::GpuReading, held: &[String]) -> Self {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let told = reading.recovery_action != v1::GpuRecoveryAction::Unspecified as i32;
        Self {
            serial: given(&gpu.serial),
            nvlink_domain: given(&gpu.nvlink_domain),
            moved_to_index: reading.index.filter(|index| *index != gpu.index),
            clock_reasons: clock_reasons(reading.clock_reasons.unwrap_or_default()),
            energy_mj: reading.energy_mj,
            recovery_action: told.then(|| word::recovery_action(reading.recovery_action)),
            remapped_rows: reading.remapped_rows.map(rows),
            fabric: reading.fabric.as_ref().map(fabric),
            mig: gpu.mig.is_some(),
            mig_devices: gpu.mig.iter().flat_map(|cut| migs(cut, held)).collect(),
            nvlinks: reading.nvlinks,
            nvlinks_up: reading.nvlinks_up,
        }
    }

    /// Energy in kilowatt-hours with two decimals; empty if it is not told.
    #[must_use]
    pub fn energy(&self) -> String {
        let hundredths = |mj: u64| mj / (MILLIJOULES_PER_KWH / 100);
        let text = |of: u64| format!("{}.{:02} kWh", of / 100, of % 100);
        self.energy_mj.map(hundredths).map(text).unwrap_or_default()
    }

    /// NVLinks that are up, of how many; empty if there are none.
    #[must_use]
    pub fn links(&self) -> String {
        let up = self.nvlinks_up.zip(self.nvlinks);
        up.map(|(up, all)| format!("{up}/{all}")).unwrap_or_default()
    }

    /// Health of its fabric, or how far it is in joining it; empty if it is of none.
    #[must_use]
    pub fn fabric(&self) -> String {
        match &self.fabric {
            None => String::new(),
            Some(fabric) if fabric.status != 0 => format!("failed: code {}", fabric.status),
            Some(fabric) if fabric.state != "completed" => fabric.state.clone(),
            Some(fabric) if fabric.health == "unspecified" => "joined".to_owned(),
            Some(fabric) => fabric.health.clone(),
        }
    }

    /// What a person should know of it, the gravest first.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let action = self.recovery_action.as_deref().filter(|action| *action != "none");
        let action = action.map(|action| format!("driver asks for {action}"));
        let rows = self.remapped_rows.iter().flat_map(row_notes);
        let moved = self.moved_to_index.map(|index| format!("is now at {index}"));
        let held = self.clock_reasons.iter().filter(|reason| *reason != "idle");
        let held: Vec<&str> = held.map(String::as_str).collect();
        let held = (!held.is_empty()).then(|| format!("clocks held by {}", held.join(", ")));
        let empty = self.mig && self.mig_devices.is_empty();
        let empty = empty.then(|| "MIG is on, without instances: nothing to give".to_owned());
        action.into_iter().chain(rows).chain(moved).chain(held).chain(empty).collect()
    }
}

fn row_notes(rows: &RowsView) -> Vec<String> {
    let failed = rows.failed.then(|| "a row could not be replaced".to_owned());
    let pending = rows.pending.then(|| "rows wait for a reset".to_owned());
    let count = rows.correctable + rows.uncorrectable;
    let replaced = (count > 0).then(|| format!("{count} rows replaced"));
    [failed, pending, replaced].into_iter().flatten().collect()
}

impl MigView {
    /// As in "3g.40gb, 39.5 GiB, MIG-…".
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}, {}, {}", self.profile, amount::memory(self.memory_mib), self.uuid)
    }
}

fn clock_reasons(set: u64) -> Vec<String> {
    let bits = (0..u64::BITS).filter(|bit| set >> bit & 1 == 1);
    let word = |bit: u32| {
        let known = i32::try_from(1_u64 << bit).ok().map(word::clock_reason);
        known.filter(|word| word != "unknown").unwrap_or_else(|| format!("bit_{bit}"))
    };
    bits.map(word).collect()
}

fn rows(rows: v1::GpuRemappedRows) -> RowsView {
    let v1::GpuRemappedRows { correctable, uncorrectable, pending, failed } = rows;
    RowsView { correctable, uncorrectable, pending, failed }
}

fn fabric(fabric: &v1::GpuFabric) -> FabricView {
    FabricView {
        state: word::fabric_state(fabric.state),
        nvlink_domain: fabric.nvlink_domain.clone(),
        health: word::fabric_health(fabric.health),
        status: fabric.status,
    }
}

fn migs(cut: &v1::MigCut, held: &[String]) -> Vec<MigView> {
    let view = |instance: &v1::MigInstance| MigView {
        uuid: instance.uuid.clone(),
        profile: instance.profile.clone(),
        gpu_instance: instance.gpu_instance,
        compute_instance: instance.compute_instance,
        memory_mib: instance.memory_mib,
        slices: instance.slices,
        milli: instance_milli(cut, instance),
        in_use: held.contains(&instance.uuid),
    };
    cut.instances.iter().map(view).collect()
}

/// What an instance counts of its GPU, by the scheduler's rule: its compute slices over the card's, rounded down.
fn instance_milli(cut: &v1::MigCut, instance: &v1::MigInstance) -> u32 {
    (instance.slices * 1000).checked_div(cut.slices).unwrap_or_default()
}

/// What a GPU has to give, thousandths: of one that is cut its instances.
#[must_use]
pub fn milli_of(gpu: &v1::GpuDevice) -> u64 {
    let Some(cut) = &gpu.mig else { return 1000 };
    cut.instances.iter().map(|instance| u64::from(instance_milli(cut, instance))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_reasons_is_words_and_newer_bits_are_numbers() {
        assert_eq!(clock_reasons(0x84), ["power_cap", "power_brake"]);
        assert_eq!(clock_reasons(1 << 20 | 1 << 63), ["bit_20", "bit_63"]);
    }

    #[test]
    fn what_a_driver_does_not_tell_is_not_in_the_json() {
        let nothing = GpuDetail::of(&v1::GpuDevice::default(), &v1::GpuReading::default(), &[]);
        assert_eq!(serde_json::to_string(&nothing).unwrap(), "{}");
        assert!(nothing.notes().is_empty());
    }

    #[test]
    fn the_gravest_note_comes_first() {
        let rows = v1::GpuRemappedRows { uncorrectable: 2, failed: true, ..Default::default() };
        let reading = v1::GpuReading {
            recovery_action: v1::GpuRecoveryAction::ResetGpu.into(),
            remapped_rows: Some(rows),
            clock_reasons: Some(5),
            index: Some(3),
            energy_mj: Some(4_140_000_000),
            ..Default::default()
        };
        let detail = GpuDetail::of(&v1::GpuDevice::default(), &reading, &[]);
        let expected = [
            "driver asks for reset_gpu",
            "a row could not be replaced",
            "2 rows replaced",
            "is now at 3",
            "clocks held by power_cap",
        ];
        assert_eq!(detail.notes(), expected);
        assert_eq!(detail.energy(), "1.15 kWh");
    }
}
