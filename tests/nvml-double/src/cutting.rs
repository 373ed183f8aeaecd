//! Functions that cut a GPU. What was done is kept in `nvml-mig.json` beside the library, so that every process sees it, and
//! goes before what `nvml.json` says of the GPU. Profiles and what fits beside each other are as on an H100 with 80 GB.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_uint};
use std::fs;
use std::path::Path;

use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceProfileInfo_t, nvmlDevice_t, nvmlGpuInstance_t,
    nvmlGpuInstanceProfileInfo_v2_t, nvmlReturn_t,
};
use serde::{Deserialize, Serialize};

use crate::instance::{Done, INSTANCE, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, put};
use crate::state::{Gpu, MigDevice, State};

const IN_USE: u32 = 19;
const INSUFFICIENT_RESOURCES: u32 = 23;
/// Slices of a GPU: of compute units, and of memory.
const SLICES: (u32, u32) = (7, 8);

/// The file's name.
pub const FILE: &str = "nvml-mig.json";

/// What GPUs are cut into, by UUID.
pub type Cuts = BTreeMap<String, Cut>;

/// What a GPU was cut into.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cut {
    on: bool,
    made: u32,
    instances: Vec<Made>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    id: u32,
    profile: String,
    uuid: String,
    /// With a compute instance of all its slices; only then it is a device.
    compute: bool,
}

struct Profile {
    /// The library's number of the kind, and the driver's of the profile.
    numbers: (u32, u32),
    name: &'static str,
    slices: (u32, u32),
    memory_mib: u64,
}

const fn profile(
    numbers: (u32, u32),
    name: &'static str,
    slices: (u32, u32),
    memory_mib: u64,
) -> Profile {
    Profile { numbers, name, slices, memory_mib }
}

const PROFILES: [Profile; 6] = [
    profile((0, 19), "1g.10gb", (1, 1), 9_728),
    profile((9, 15), "1g.20gb", (1, 2), 19_968),
    profile((1, 14), "2g.20gb", (2, 2), 19_968),
    profile((2, 9), "3g.40gb", (3, 4), 40_448),
    profile((3, 5), "4g.40gb", (4, 4), 40_448),
    profile((4, 0), "7g.80gb", (7, 8), 80_896),
];

fn named(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

/// Reads the file; nothing was cut where there is none.
pub fn read(directory: &Path) -> Cuts {
    let text = fs::read(directory.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Puts what was done in the place of what the state says.
pub fn apply(state: &mut State, cuts: &Cuts) {
    for gpu in &mut state.gpus {
        let Some(cut) = cuts.get(&gpu.uuid) else { continue };
        gpu.mig_mode = [u32::from(cut.on); 2];
        let devices = cut.instances.iter().filter(|made| made.compute && cut.on);
        gpu.mig_devices = devices.filter_map(device).collect();
    }
}

fn device(made: &Made) -> Option<MigDevice> {
    let profile = named(&made.profile)?;
    Some(MigDevice {
        uuid: made.uuid.clone(),
        profile: made.profile.clone(),
        gpu_instance: made.id,
        compute_instance: 0,
        memory_mib: profile.memory_mib,
        slices: [profile.slices.0; 2],
    })
}

/// Changes what a GPU is cut into, in the file.
fn change(gpu: &Gpu, body: impl FnOnce(&mut Cut) -> Done) -> Done {
    let mut cuts = read(INSTANCE.directory());
    let cut = cuts.entry(gpu.uuid.clone()).or_insert_with(|| as_it_is(gpu));
    body(cut)?;
    let (path, fresh) =
        (INSTANCE.directory().join(FILE), INSTANCE.directory().join("nvml-mig.new"));
    let text = serde_json::to_string(&cuts).unwrap_or_default();
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(|_| NOT_SUPPORTED)
}

fn as_it_is(gpu: &Gpu) -> Cut {
    let made = |device: &MigDevice| Made {
        id: device.gpu_instance,
        profile: device.profile.clone(),
        uuid: device.uuid.clone(),
        compute: true,
    };
    let instances = gpu.mig_devices.iter().map(made).collect();
    Cut { on: gpu.mig_mode[0] != 0, made: 0, instances }
}

fn instances(gpu: &Gpu) -> Vec<Made> {
    let cuts = read(INSTANCE.directory());
    cuts.get(&gpu.uuid).cloned().unwrap_or_else(|| as_it_is(gpu)).instances
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceSetMigMode(
    device: nvmlDevice_t,
    mode: c_uint,
    activation: *mut nvmlReturn_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceSetMigMode", device, |gpu| {
        put(activation, 0)?;
        if !gpu.processes.is_empty() {
            return put(activation, IN_USE);
        }
        change(gpu, |cut| {
            (cut.on, cut.instances) = (mode != 0, Vec::new());
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: nvmlDevice_t,
    number: c_uint,
    place: *mut nvmlGpuInstanceProfileInfo_v2_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetGpuInstanceProfileInfoV", device, |_| {
        let profile = PROFILES.iter().find(|profile| profile.numbers.0 == number);
        let profile = profile.ok_or(NOT_SUPPORTED)?;
        let mut name: [c_char; 96] = [0; 96];
        for (to, from) in name.iter_mut().zip(format!("MIG {}", profile.name).bytes()) {
            *to = from as c_char;
        }
        // SAFETY: the caller promises a structure that says its version.
        let version = unsafe { (*place).version };
        put(
            place,
            nvmlGpuInstanceProfileInfo_v2_t {
                version,
                id: profile.numbers.1,
                isP2pSupported: 0,
                sliceCount: profile.slices.0,
                instanceCount: SLICES.1 / profile.slices.1,
                multiprocessorCount: 16 * profile.slices.0,
                copyEngineCount: profile.slices.0,
                decoderCount: profile.slices.0,
                encoderCount: 0,
                jpegCount: profile.slices.0,
                ofaCount: 0,
                memorySizeMB: profile.memory_mib,
                name,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    device: nvmlDevice_t,
    profile: c_uint,
    places: *mut nvmlGpuInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetGpuInstances", device, |gpu| {
        let all = instances(gpu);
        let of_profile =
            |made: &&Made| named(&made.profile).is_some_and(|p| p.numbers.1 == profile);
        let handles = all.iter().filter(of_profile).map(|made| handle("GI", &gpu.uuid, made.id));
        put_all(places, count, &handles.collect::<Vec<_>>())
    })
}

fn put_all(places: *mut nvmlGpuInstance_t, count: *mut c_uint, handles: &[usize]) -> Done {
    for (at, handle) in handles.iter().enumerate() {
        // SAFETY: the caller promises room for all that a GPU can have.
        put(unsafe { places.add(at) }, std::ptr::without_provenance_mut(*handle))?;
    }
    put(count, u32::try_from(handles.len()).unwrap_or(0))
}

/// A handle of a GPU instance, or of the compute instance in it.
fn handle(what: &str, gpu: &str, id: u32) -> usize {
    INSTANCE.lock().handle_of(&format!("{what} {gpu} {id}")).addr()
}

/// The GPU and the number of an instance by its handle.
fn found<'s>(state: &'s State, what: &str, handle: usize) -> Result<(&'s Gpu, u32), u32> {
    let name = INSTANCE.lock().named(handle).ok_or(INVALID_ARGUMENT)?;
    let mut words = name.split(' ');
    let (kind, gpu, id) = (words.next(), words.next(), words.next());
    let gpu = state.gpus.iter().find(|own| Some(own.uuid.as_str()) == gpu);
    let id = id.and_then(|id| id.parse().ok());
    match (kind == Some(what), gpu, id) {
        (true, Some(gpu), Some(id)) => Ok((gpu, id)),
        _ => Err(INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceCreateGpuInstance(
    device: nvmlDevice_t,
    number: c_uint,
    place: *mut nvmlGpuInstance_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceCreateGpuInstance", device, |gpu| {
        let wanted = PROFILES.iter().find(|profile| profile.numbers.1 == number);
        let wanted = wanted.ok_or(NOT_SUPPORTED)?;
        let mut id = 0;
        change(gpu, |cut| {
            let used = cut.instances.iter().filter_map(|made| named(&made.profile));
            let used = used.fold(wanted.slices, |(a, b), own| (a + own.slices.0, b + own.slices.1));
            if !cut.on {
                return Err(NOT_SUPPORTED);
            }
            if used.0 > SLICES.0 || used.1 > SLICES.1 {
                return Err(INSUFFICIENT_RESOURCES);
            }
            cut.made += 1;
            let free = |id: &u32| cut.instances.iter().all(|made| made.id != *id);
            id = (1..).find(free).unwrap_or(0);
            let uuid = format!("MIG-{}-{}", gpu.uuid, cut.made);
            let profile = wanted.name.to_owned();
            cut.instances.push(Made { id, profile, uuid, compute: false });
            Ok(())
        })?;
        put(place, std::ptr::without_provenance_mut(handle("GI", &gpu.uuid, id)))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceDestroy(instance: nvmlGpuInstance_t) -> nvmlReturn_t {
    INSTANCE.system("nvmlGpuInstanceDestroy", |state| {
        let (gpu, id) = found(state, "GI", instance.addr())?;
        change(gpu, |cut| {
            let at = cut.instances.iter().position(|made| made.id == id).ok_or(NOT_FOUND)?;
            if cut.instances[at].compute {
                return Err(IN_USE);
            }
            cut.instances.remove(at);
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
    instance: nvmlGpuInstance_t,
    number: c_uint,
    _engines: c_uint,
    place: *mut nvmlComputeInstanceProfileInfo_t,
) -> nvmlReturn_t {
    INSTANCE.system("nvmlGpuInstanceGetComputeInstanceProfileInfo", |state| {
        let (gpu, id) = found(state, "GI", instance.addr())?;
        let made = instances(gpu).into_iter().find(|made| made.id == id).ok_or(NOT_FOUND)?;
        let own = named(&made.profile).ok_or(NOT_FOUND)?;
        let slices = [1, 2, 3, 4, 7].get(number as usize).copied().ok_or(NOT_SUPPORTED)?;
        if slices > own.slices.0 {
            return Err(NOT_SUPPORTED);
        }
        put(
            place,
            nvmlComputeInstanceProfileInfo_t {
                id: number,
                sliceCount: slices,
                instanceCount: own.slices.0 / slices,
                multiprocessorCount: 16 * slices,
                sharedCopyEngineCount: slices,
                sharedDecoderCount: slices,
                sharedEncoderCount: 0,
                sharedJpegCount: slices,
                sharedOfaCount: 0,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstances(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    places: *mut nvmlComputeInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.system("nvmlGpuInstanceGetComputeInstances", |state| {
        let (gpu, id) = found(state, "GI", instance.addr())?;
        let made = instances(gpu).into_iter().find(|made| made.id == id).ok_or(NOT_FOUND)?;
        let slices = named(&made.profile).map(|own| own.slices.0);
        let has = made.compute && slices == [1, 2, 3, 4, 7].get(profile as usize).copied();
        let handles: Vec<usize> = has.then(|| handle("CI", &gpu.uuid, id)).into_iter().collect();
        put_all(places.cast(), count, &handles)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    place: *mut nvmlComputeInstance_t,
) -> nvmlReturn_t {
    INSTANCE.system("nvmlGpuInstanceCreateComputeInstance", |state| {
        let (gpu, id) = found(state, "GI", instance.addr())?;
        change(gpu, |cut| {
            let made = cut.instances.iter_mut().find(|made| made.id == id).ok_or(NOT_FOUND)?;
            let slices = named(&made.profile).map(|own| own.slices.0);
            if made.compute || slices != [1, 2, 3, 4, 7].get(profile as usize).copied() {
                return Err(INSUFFICIENT_RESOURCES);
            }
            made.compute = true;
            Ok(())
        })?;
        put(place, std::ptr::without_provenance_mut(handle("CI", &gpu.uuid, id)))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlComputeInstanceDestroy(
    instance: nvmlComputeInstance_t,
) -> nvmlReturn_t {
    INSTANCE.system("nvmlComputeInstanceDestroy", |state| {
        let (gpu, id) = found(state, "CI", instance.addr())?;
        if !gpu.processes.is_empty() {
            return Err(IN_USE);
        }
        change(gpu, |cut| {
            let made = cut.instances.iter_mut().find(|made| made.id == id).ok_or(NOT_FOUND)?;
            made.compute = false;
            Ok(())
        })
    })
}
