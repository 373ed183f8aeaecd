//! Invented GPUs, for trying the program out: they say so in their names, and nothing is computed on them.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use gotgan_proto::v1::{GpuDevice, GpuReading, MigCut, MigInstance};

use super::InventoryError;
use super::classes::gpu_class;

/// GPUs one simulated node may have.
const GPUS_MAX: u32 = 64;
/// Compute slices of a GPU that is cut: of every model here that can be.
const SLICES: u32 = 7;
/// Length of the slow swing of invented readings.
const SWING_US: i64 = 120_000_000;

struct Model {
    word: &'static str,
    name: &'static str,
    memory_mib: u64,
    power_limit_mw: u32,
}

const fn model(word: &'static str, name: &'static str, memory_mib: u64, watts: u32) -> Model {
    Model { word, name, memory_mib, power_limit_mw: watts * 1000 }
}

/// Names, memory and power limits as published by the maker.
const MODELS: [Model; 11] = [
    model("b300", "NVIDIA B300", 275_040, 1400),
    model("b200", "NVIDIA B200", 183_359, 1000),
    model("gb200", "NVIDIA GB200", 189_471, 1200),
    model("gh200", "NVIDIA GH200 480GB", 97_871, 900),
    model("h200", "NVIDIA H200", 143_771, 700),
    model("h100", "NVIDIA H100 80GB HBM3", 81_559, 700),
    model("h800", "NVIDIA H800", 81_559, 700),
    model("a100", "NVIDIA A100-SXM4-80GB", 81_920, 400),
    model("a800", "NVIDIA A800-SXM4-80GB", 81_920, 400),
    model("l40s", "NVIDIA L40S", 46_068, 350),
    model("rtx", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 97_887, 600),
];

/// Words `--simulate` understands, for messages.
pub fn models() -> String {
    let words: Vec<&str> = MODELS.iter().map(|model| model.word).collect();
    words.join(", ")
}

/// The invented GPUs of a node.
#[derive(Debug)]
pub struct Simulation {
    gpus: Vec<Invented>,
}

#[derive(Debug)]
struct Invented {
    device: GpuDevice,
    power_limit_mw: u32,
}

impl Simulation {
    /// Understands `8xB200` and lists such as `4xH100,4xA100`.
    pub fn parse(
        wanted: &str,
        node: &str,
        classes: &BTreeMap<String, String>,
    ) -> Result<Self, InventoryError> {
        let bad = || InventoryError::Simulation(wanted.to_owned());
        let mut gpus = Vec::new();
        for part in wanted.split(',') {
            let (part, cut) = match part.trim().split_once(':') {
                Some((part, wanted)) => (part, Some(profiles(wanted).ok_or_else(bad)?)),
                None => (part.trim(), None),
            };
            let (count, word) = part.split_once(['x', 'X']).ok_or_else(bad)?;
            let count: u32 = count.parse().map_err(|_| bad())?;
            let word = word.to_lowercase();
            let model = MODELS.iter().find(|model| model.word == word).ok_or_else(bad)?;
            if count == 0 || count > GPUS_MAX - u32::try_from(gpus.len()).unwrap_or(GPUS_MAX) {
                return Err(bad());
            }
            for _ in 0..count {
                let mut gpu = invent(model, node, gpus.len(), classes);
                gpu.device.mig = cut.as_ref().map(|cut| instances(cut, node, gpus.len()));
                gpus.push(gpu);
            }
        }
        Ok(Self { gpus })
    }

    /// As registered.
    pub fn devices(&self) -> Vec<GpuDevice> {
        self.gpus.iter().map(|gpu| gpu.device.clone()).collect()
    }

    /// Plausible readings that move slowly with the time given.
    pub fn readings(&self, now_us: i64) -> Vec<GpuReading> {
        self.gpus.iter().map(|gpu| gpu.reading(now_us)).collect()
    }
}

impl Invented {
    fn reading(&self, now_us: i64) -> GpuReading {
        let load = load(now_us, self.device.index);
        let share = |of: u64| of * u64::from(load) / 100;
        let draw = share(u64::from(self.power_limit_mw) * 7 / 10);
        GpuReading {
            uuid: self.device.uuid.clone(),
            utilisation_percent: Some(load),
            memory_used_mib: Some(share(self.device.memory_mib / 2)),
            temperature_c: Some(32 + load * 4 / 10),
            power_mw: Some(self.power_limit_mw / 10 + u32::try_from(draw).unwrap_or(0)),
            power_limit_mw: Some(self.power_limit_mw),
            ecc_uncorrected: Some(0),
            ecc_corrected: Some(0),
            ..Default::default()
        }
    }
}

/// Slices and GiB of each instance of `3g.40gb+2x2g.20gb`; `None` if it is no such list, or more than a GPU has.
fn profiles(wanted: &str) -> Option<Vec<(u32, u64)>> {
    let mut profiles = Vec::new();
    for part in wanted.split('+') {
        let (count, profile) = part.split_once('x').unwrap_or(("1", part));
        let (slices, memory) = profile.strip_suffix("gb")?.split_once("g.")?;
        let profile: (u32, u64) = (slices.parse().ok()?, memory.parse().ok()?);
        let count: usize = count.parse().ok().filter(|count| *count <= SLICES as usize)?;
        profiles.extend(std::iter::repeat_n(profile, count));
    }
    let used = profiles.iter().try_fold(0_u32, |sum, (slices, _)| sum.checked_add(*slices))?;
    let sound = profiles.iter().all(|(slices, memory)| *slices > 0 && (1..1000).contains(memory));
    (sound && (1..=SLICES).contains(&used)).then_some(profiles)
}

fn instances(profiles: &[(u32, u64)], node: &str, gpu: usize) -> MigCut {
    let instance = |(place, (slices, memory)): (u32, &(u32, u64))| MigInstance {
        uuid: format!("MIG-SIM-{node}-{gpu}-{place}"),
        profile: format!("{slices}g.{memory}gb"),
        memory_mib: memory * 1024,
        slices: *slices,
        gpu_instance: place + 1,
        place,
        ..MigInstance::default()
    };
    MigCut { slices: SLICES, instances: (0..).zip(profiles).map(instance).collect() }
}

fn invent(model: &Model, node: &str, index: usize, classes: &BTreeMap<String, String>) -> Invented {
    let device = GpuDevice {
        uuid: format!("GPU-SIM-{node}-{index}"),
        index: u32::try_from(index).unwrap_or(0),
        name: format!("{} (simulated)", model.name),
        gpu_class: gpu_class(model.name, classes),
        pci_bus_id: format!("00000000:{:02X}:00.0", index + 1),
        memory_mib: model.memory_mib,
        ..Default::default()
    };
    Invented { device, power_limit_mw: model.power_limit_mw }
}

/// Between 10 and 90 percent, each GPU at another place of the swing.
fn load(now_us: i64, index: u32) -> u32 {
    let phase = now_us.rem_euclid(SWING_US) as f64 / SWING_US as f64 + f64::from(index) / 8.0;
    (50.0 + 40.0 * (phase * TAU).sin()).round() as u32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(wanted: &str) -> Result<Simulation, InventoryError> {
        Simulation::parse(wanted, "n1", &BTreeMap::new())
    }

    #[test]
    fn a_simulated_gpu_says_that_it_is() {
        let devices = parse("8xB200").unwrap().devices();
        assert_eq!(devices.len(), 8);
        assert_eq!(devices[7].uuid, "GPU-SIM-n1-7");
        assert_eq!(devices[0].name, "NVIDIA B200 (simulated)");
        assert_eq!(devices[0].gpu_class, "b200");
    }

    #[test]
    fn a_node_may_have_several_models_with_distinct_names() {
        let devices = parse("2xh100,1xRTX").unwrap().devices();
        let classes: Vec<_> = devices.iter().map(|gpu| gpu.gpu_class.as_str()).collect();
        assert_eq!(classes, ["h100", "h100", "rtx"]);
        assert_eq!(devices[2].uuid, "GPU-SIM-n1-2");
    }

    #[test]
    fn a_simulated_gpu_may_be_cut() {
        let devices = parse("1xH100,2xH100:3g.40gb+2x2g.20gb").unwrap().devices();
        assert_eq!(devices[0].mig, None);
        let cut = devices[2].mig.as_ref().unwrap();
        let profiles: Vec<_> = cut.instances.iter().map(|one| one.profile.as_str()).collect();
        assert_eq!((cut.slices, profiles), (7, vec!["3g.40gb", "2g.20gb", "2g.20gb"]));
        assert_eq!(cut.instances[1].uuid, "MIG-SIM-n1-2-1");
        for bad in ["1xH100:", "1xH100:8x1g.10gb", "1xH100:1g", "1xH100:0g.1gb", "1xH100:0x1g.1gb"]
        {
            assert!(parse(bad).unwrap_err().to_string().contains("7x1g.10gb"), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_would_be_right() {
        for wanted in ["", "8", "B200", "0xB200", "8xC64", "-1xB200", "65xB200", "60xB200,5xB200"] {
            let error = parse(wanted).unwrap_err().to_string();
            assert!(error.contains("8xB200"), "{error}");
        }
    }

    #[test]
    fn readings_stay_within_the_possible_and_move() {
        let simulation = parse("8xB200").unwrap();
        let loads: Vec<u32> = (0..120)
            .flat_map(|second| simulation.readings(second * 1_000_000))
            .map(|reading| {
                assert!(reading.power_mw <= reading.power_limit_mw);
                reading.utilisation_percent.unwrap()
            })
            .collect();
        assert!(loads.iter().all(|load| (10..=90).contains(load)));
        assert!(loads.iter().any(|load| *load != loads[0]));
    }
}
