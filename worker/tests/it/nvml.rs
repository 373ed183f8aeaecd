//! The driver's library as it is asked, on a double of it.

use std::process::Command;

use gotgan_worker::nvml::{
    ClockReasons, Code, Driver, EccCounts, EccSpan, EventSet, FabricHealth, FabricState, Missing,
    OpenError, RecoveryAction, RemappedRows,
};
use serde_json::{Value, json};
use std::time::Duration;

use crate::double::{Double, gpu, gpus, uuid};

const CLUSTER: &str = "a1b2c3d4000000000000000000000001";
const DOMAIN: &str = "a1b2c3d4-0000-0000-0000-000000000001.7";

/// A machine with one GPU that has these members.
fn one(members: Value) -> (Double, &'static Driver) {
    let mut only = gpu(0);
    only.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let double = Double::new(&json!({ "gpus": [only] }));
    let driver = Driver::open(Some(&double.library())).unwrap();
    (double, driver)
}

#[test]
fn a_driver_says_what_it_is_and_that_it_is_a_double() {
    let (_double, driver) = one(json!({}));
    assert_eq!(driver.driver_version().unwrap(), "580.159.04-nvml-double");
    assert_eq!(driver.cuda_version().unwrap(), "13.0");
    assert!(driver.is_double());
    assert!(driver.functions().iter().all(|(_, present)| *present));
}

#[test]
fn without_library_or_driver_there_is_a_reason() {
    let none = Driver::open(Some("/nowhere/libnvidia-ml.so.1")).unwrap_err();
    assert!(matches!(none, OpenError::Library(_)), "{none}");
    let double = Double::new(&json!({ "loaded": false }));
    let unloaded = Driver::open(Some(&double.library())).unwrap_err();
    assert!(unloaded.to_string().contains("driver not loaded (code 9)"), "{unloaded}");
}

#[test]
fn health_is_read_as_the_driver_has_it() {
    let (_double, driver) = one(json!({
        "recovery_action": 4, "remapped_rows": [1, 2, 1, 0], "ecc_since_load": [5, 6],
        "ecc_lifetime": [50, 60], "clock_reasons": 0x44, "energy_mj": 5_000_000_000_000_u64,
    }));
    let gpu = driver.gpu(&uuid(0)).unwrap();
    assert_eq!(gpu.recovery_action(), Ok(RecoveryAction::DrainAndReset));
    let rows = RemappedRows { correctable: 1, uncorrectable: 2, pending: true, failed: false };
    assert_eq!(gpu.remapped_rows(), Ok(rows));
    let counts = |corrected, uncorrected| Ok(EccCounts { corrected, uncorrected });
    assert_eq!(gpu.ecc_counts(EccSpan::SinceLoad), counts(5, 6));
    assert_eq!(gpu.ecc_counts(EccSpan::Lifetime), counts(50, 60));
    let reasons = ClockReasons::POWER_CAP | ClockReasons::HARDWARE_THERMAL;
    assert_eq!(gpu.clock_reasons(), Ok(ClockReasons(reasons)));
    assert_eq!(gpu.energy_mj(), Ok(5_000_000_000_000));
}

#[test]
fn a_recovery_action_newer_than_this_version_is_kept_as_its_number() {
    let (_double, driver) = one(json!({ "recovery_action": 42 }));
    let gpu = driver.gpu(&uuid(0)).unwrap();
    assert_eq!(gpu.recovery_action(), Ok(RecoveryAction::Other(42)));
}

#[test]
fn every_code_is_an_answer_and_costs_its_own_reading_only() {
    for code in [1, 2, 3, 4, 10, 13, 15, 16, 25, 26, 30, 999, 4711] {
        let answers = json!({ "nvmlDeviceGetPowerUsage": { "code": code } });
        let (_double, driver) = one(json!({ "answers": answers }));
        let gpu = driver.gpu(&uuid(0)).unwrap();
        let expected = match code {
            3 => Missing::NotSupported,
            13 => Missing::Absent,
            code => Missing::Failed(Code(code)),
        };
        assert_eq!(gpu.power_mw(), Err(expected));
        assert_eq!(gpu.temperature_c(), Ok(40));
    }
}

#[test]
fn an_older_driver_is_asked_by_the_older_names() {
    let absent = json!({ "code": 13 });
    let (_double, driver) = one(json!({
        "fabric": { "cluster": CLUSTER, "clique": 7 }, "clock_reasons": 4,
        "answers": {
            "nvmlDeviceGetCurrentClocksEventReasons": absent,
            "nvmlDeviceGetMemoryInfo_v2": absent, "nvmlDeviceGetGpuFabricInfoV": absent,
        },
    }));
    let gpu = driver.gpu(&uuid(0)).unwrap();
    assert_eq!(gpu.clock_reasons(), Ok(ClockReasons(ClockReasons::POWER_CAP)));
    assert_eq!(gpu.memory().unwrap().reserved_bytes, None);
    let fabric = gpu.fabric().unwrap();
    assert_eq!((fabric.health_mask, fabric.domain().as_deref()), (None, Some(DOMAIN)));
}

#[test]
fn a_fabric_is_read_in_the_newest_form_that_the_driver_knows() {
    for (version, health) in [(3, Some(FabricHealth::LimitedCapacity)), (2, None)] {
        let fabric = json!({ "cluster": CLUSTER, "clique": 7, "health": 3, "health_mask": 9 });
        let (_double, driver) = one(json!({ "fabric": fabric, "fabric_version": version }));
        let found = driver.gpu(&uuid(0)).unwrap().fabric().unwrap();
        assert_eq!(found.state, FabricState::Completed);
        assert_eq!((found.health_mask, found.health), (Some(9), health));
        assert_eq!(found.domain().as_deref(), Some(DOMAIN));
    }
}

#[test]
fn devices_that_a_gpu_is_cut_into_are_found_whatever_their_places() {
    let device = json!({
        "uuid": "MIG-00000000-0000-4000-8000-000000000009", "profile": "3g.40gb",
        "gpu_instance": 2, "compute_instance": 0, "memory_mib": 40_448, "slices": [3, 3],
    });
    let (_double, driver) = one(json!({ "mig_mode": [1, 1], "mig_devices": [device] }));
    let gpu = driver.gpu(&uuid(0)).unwrap();
    assert!(gpu.mig_mode().unwrap().on);
    let devices = gpu.mig_devices().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!((devices[0].profile.as_str(), devices[0].gpu_instance), ("3g.40gb", 2));
    assert_eq!(gpu.utilisation(), Err(Missing::NotSupported));
    let (_double, driver) = one(json!({}));
    assert_eq!(driver.gpu(&uuid(0)).unwrap().mig_devices(), Ok(Vec::new()));
}

#[test]
fn a_gpu_is_cut_anew_and_made_whole_and_what_cannot_be_is_told() {
    let (_double, driver) = one(json!({}));
    let gpu = driver.gpu(&uuid(0)).unwrap();
    let cut = |profiles: &[&str]| {
        let profiles: Vec<String> = profiles.iter().map(ToString::to_string).collect();
        gpu.cut(Some(&profiles)).map_err(|error| error.to_string())
    };
    let found = || -> Vec<String> {
        let devices = gpu.mig_devices().unwrap();
        devices.into_iter().map(|device| device.uuid).collect()
    };
    cut(&["2g.20gb", "3g.40gb", "2g.20gb"]).unwrap();
    let devices = gpu.mig_devices().unwrap();
    assert_eq!(devices.iter().map(|it| it.compute_slices).collect::<Vec<_>>(), [3, 2, 2]);
    let before = found();
    cut(&["3g.40gb", "2g.20gb", "2g.20gb"]).unwrap();
    assert_eq!(found(), before, "it is so already: jobs may be on it");
    cut(&["1g.10gb"; 7]).unwrap();
    assert_eq!(found().len(), 7);
    let too_many = cut(&["4g.40gb", "4g.40gb"]).unwrap_err();
    assert!(too_many.contains("make an instance of 4g.40gb: out of resources"), "{too_many}");
    let unknown = cut(&["9g.99gb"]).unwrap_err();
    assert!(unknown.starts_with("this GPU has no profile 9g.99gb; it has 1g.10gb"), "{unknown}");
    gpu.cut(None).unwrap();
    assert!(!gpu.mig_mode().unwrap().on && found().is_empty());
}

#[test]
fn a_list_of_processes_that_grows_while_it_is_read_is_read_again() {
    let processes: Vec<Value> =
        (0..9).map(|pid| json!({ "pid": pid, "memory_bytes": 1 << 20 })).collect();
    let (double, driver) = one(json!({ "processes": processes, "processes_grow": 3 }));
    let found = driver.gpu(&uuid(0)).unwrap().processes().unwrap();
    assert!(found.len() > 9, "{found:?}");
    assert_eq!((found[0].pid, found[0].memory_bytes), (0, Some(1 << 20)));
    assert_eq!(found[9].memory_bytes, None);
    let mut endless = gpu(0);
    endless["processes_grow"] = json!(1000);
    double.set(&json!({ "gpus": [endless] }));
    let given_up = driver.gpu(&uuid(0)).unwrap().processes();
    assert_eq!(given_up, Err(Missing::Failed(Code::INSUFFICIENT_SIZE)));
}

#[test]
fn links_end_with_the_first_that_a_gpu_does_not_have() {
    let links = json!([{}, { "active": false, "errors": [1, 2, 3, 4] }]);
    let (_double, driver) = one(json!({ "nvlinks": links }));
    let found = driver.gpu(&uuid(0)).unwrap().nvlinks().unwrap();
    assert_eq!(found.iter().map(|link| link.active).collect::<Vec<_>>(), [true, false]);
    assert_eq!(found[1].errors.unwrap().data_checksum, 4);
    let (_double, driver) = one(json!({}));
    assert_eq!(driver.gpu(&uuid(0)).unwrap().nvlinks(), Err(Missing::NotSupported));
}

#[test]
fn a_lost_gpu_leaves_the_others_and_is_not_counted_after_a_new_start() {
    let double = Double::new(&gpus(3));
    let driver = Driver::open(Some(&double.library())).unwrap();
    let mut state = gpus(3);
    state["gpus"][1]["gone"] = json!(true);
    double.set(&state);
    let lost = Missing::Failed(Code::GPU_IS_LOST);
    assert_eq!(driver.count(), Ok(3));
    assert_eq!(driver.gpu(&uuid(1)).unwrap_err(), lost);
    assert_eq!(driver.gpu_at(1).unwrap_err(), lost);
    assert_eq!(driver.gpu(&uuid(2)).unwrap().index(), Ok(2));
    driver.start().unwrap();
    assert_eq!(driver.count(), Ok(2));
    assert_eq!(driver.gpu(&uuid(2)).unwrap().index(), Ok(1));
}

#[test]
fn an_event_arrives_in_the_set_of_its_gpu() {
    let double = Double::new(&gpus(2));
    let driver = Driver::open(Some(&double.library())).unwrap();
    let gpu = driver.gpu(&uuid(1)).unwrap();
    let set = EventSet::create(driver).unwrap();
    set.register(&gpu, gpu.event_kinds().unwrap()).unwrap();
    assert_eq!(set.wait(Duration::from_millis(1)), Ok(None));
    let mut state = gpus(2);
    let event = |number, gpu| json!({ "number": number, "uuid": uuid(gpu), "kind": 8, "data": 48 });
    state["events"] = json!([event(1, 0), event(2, 1)]);
    double.set(&state);
    let event = set.wait(Duration::from_secs(30)).unwrap().unwrap();
    assert_eq!((event.kind, event.data), (8, 48));
    assert_eq!(set.wait(Duration::from_millis(1)), Ok(None));
}

#[test]
fn two_copies_of_the_double_are_two_machines_and_a_torn_file_changes_nothing() {
    let (one, other) = (Double::new(&gpus(1)), Double::new(&gpus(4)));
    let open = |double: &Double| Driver::open(Some(&double.library())).unwrap();
    let (first, second) = (open(&one), open(&other));
    assert_eq!((first.count(), second.count()), (Ok(1), Ok(4)));
    other.tear();
    assert_eq!(second.gpu(&uuid(3)).unwrap().temperature_c(), Ok(40));
}

/// What NVIDIA's own binding for Python reads in the double: a second pair of eyes on the layout of structures.
const PYTHON: &str = r#"
import ctypes, sys
import pynvml as nvml
nvml.nvmlLib = ctypes.CDLL(sys.argv[1])
nvml.nvmlInitWithFlags(0)
gpu = nvml.nvmlDeviceGetHandleByIndex(0)
memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
fabric = nvml.c_nvmlGpuFabricInfo_v3_t()
fabric.version = nvml.nvmlGpuFabricInfo_v3
nvml.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(fabric))
field = nvml.nvmlDeviceGetFieldValues(gpu, [230])[0]
process = nvml.nvmlDeviceGetComputeRunningProcesses(gpu)[0]
print(nvml.nvmlDeviceGetUUID(gpu), nvml.nvmlDeviceGetPciInfo(gpu).busId, memory.total, memory.reserved)
print(fabric.cliqueId, fabric.state, fabric.healthSummary, list(nvml.nvmlDeviceGetRemappedRows(gpu)))
print(field.value.uiVal, process.pid, process.usedGpuMemory, nvml.nvmlDeviceGetTotalEnergyConsumption(gpu))
"#;

#[test]
fn nvidias_binding_for_python_reads_the_double_alike() {
    let have = Command::new("python3").args(["-c", "import pynvml"]).output();
    if !have.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: python3 has no pynvml (pip install nvidia-ml-py)");
        return;
    }
    let (double, _driver) = one(json!({
        "fabric": { "cluster": CLUSTER, "clique": 7, "health": 3 }, "recovery_action": 2,
        "remapped_rows": [1, 2, 0, 1], "processes": [{ "pid": 77, "memory_bytes": 4096 }],
    }));
    let mut python = Command::new("python3");
    let output = python.args(["-c", PYTHON, &double.library()]).output().unwrap();
    let read = String::from_utf8(output.stdout).unwrap();
    let trouble = String::from_utf8_lossy(&output.stderr);
    let expected = format!(
        "{} 00000000:00:06.0 85520809984 503316480\n7 3 3 [1, 2, 0, 1]\n2 77 4096 2440325\n",
        uuid(0)
    );
    assert_eq!(read, expected, "{trouble}");
}
