//! Cutting a GPU into instances. Only for a process of its own: any of these calls may never come back.

use std::ptr;

use nvml_wrapper_sys::bindings::{
    NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, NVML_COMPUTE_INSTANCE_PROFILE_COUNT,
    NVML_GPU_INSTANCE_PROFILE_COUNT, nvmlComputeInstance_t, nvmlComputeInstanceProfileInfo_t,
    nvmlGpuInstance_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
};

use super::answer::{Code, Missing, Reading};
use super::calls;
use super::driver::Gpu;

/// Most instances of one profile on a GPU, with room to spare.
const INSTANCES_MAX: usize = 16;

/// Why a GPU is not cut as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// A call of the driver failed.
    #[error("{what}: {answer}")]
    Refused {
        /// What was to be done.
        what: String,
        /// What the driver answered.
        answer: Missing,
    },
    /// The mode is changed once the GPU has been reset.
    #[error(
        "the driver changes the MIG mode only with a reset of the GPU ({0}); reset it, or reboot the node"
    )]
    NeedsReset(String),
    /// There is no such profile on this GPU.
    #[error("this GPU has no profile {wanted}; it has {known}")]
    UnknownProfile {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// It is something else than it should be, by the driver's word.
    #[error("the driver says that it is {0} now")]
    ReadBack(String),
}

/// A profile of GPU instances.
struct Profile {
    name: String,
    id: u32,
    slices: u32,
}

impl Gpu<'_> {
    /// Makes it whole, or cuts it into instances of these profiles and nothing else. Whatever it was cut into before is gone;
    /// if it is so already, nothing is touched, since jobs may be on it by then.
    ///
    /// # Errors
    /// [`CutError`]; it may be cut into less than before then.
    pub fn cut(&self, profiles: Option<&[String]>) -> Result<(), CutError> {
        let is_on = self.mig_mode().map_err(refused("ask for the MIG mode"))?.on;
        if is_on == profiles.is_some() && self.read_back(profiles.unwrap_or_default()).is_ok() {
            return Ok(());
        }
        if is_on {
            self.destroy_all()?;
        }
        match profiles {
            None if is_on => self.set_mig_mode(false)?,
            None => {}
            Some(_) if !is_on => self.set_mig_mode(true)?,
            Some(_) => {}
        }
        let profiles = profiles.unwrap_or_default();
        for wanted in by_size(profiles) {
            self.create(wanted)?;
        }
        self.read_back(profiles)
    }

    fn set_mig_mode(&self, on: bool) -> Result<(), CutError> {
        let refused = refused(if on { "switch MIG on" } else { "switch MIG off" });
        let function = calls::found(&self.library().nvmlDeviceSetMigMode).map_err(&refused)?;
        let mut activation = 0;
        // SAFETY: takes a handle and a number, writes one code.
        let code = Code(unsafe { function(self.handle, on.into(), &raw mut activation) });
        code.gives(()).map_err(&refused)?;
        let now = self.mig_mode().map_err(refused)?;
        if now.on == on { Ok(()) } else { Err(CutError::NeedsReset(Code(activation).to_string())) }
    }

    fn destroy_all(&self) -> Result<(), CutError> {
        for profile in self.profiles()? {
            for instance in self.instances_of(profile.id)? {
                self.destroy_compute(instance)?;
                let symbol = &self.library().nvmlGpuInstanceDestroy;
                let refused = refused("take an instance away");
                let function = calls::found(symbol).map_err(&refused)?;
                // SAFETY: the handle is the library's own and was just given.
                Code(unsafe { function(instance) }).gives(()).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn destroy_compute(&self, instance: nvmlGpuInstance_t) -> Result<(), CutError> {
        for profile in self.compute_profiles(instance) {
            for part in self.compute_instances_of(instance, profile.id)? {
                let refused = refused("take a compute instance away");
                let symbol = &self.library().nvmlComputeInstanceDestroy;
                let function = calls::found(symbol).map_err(&refused)?;
                // SAFETY: the handle is the library's own and was just given.
                Code(unsafe { function(part) }).gives(()).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// A GPU instance of the profile, and in it a compute instance with all its slices.
    fn create(&self, wanted: &str) -> Result<(), CutError> {
        let profiles = self.profiles()?;
        let profile = profiles.iter().find(|profile| profile.name == wanted).ok_or_else(|| {
            let known: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
            CutError::UnknownProfile { wanted: wanted.to_owned(), known: known.join(", ") }
        })?;
        let refused = refused(format!("make an instance of {wanted}"));
        let symbol = &self.library().nvmlDeviceCreateGpuInstance;
        let function = calls::found(symbol).map_err(&refused)?;
        let mut instance = ptr::null_mut();
        // SAFETY: takes a handle and a number, writes one handle.
        let code = Code(unsafe { function(self.handle, profile.id, &raw mut instance) });
        code.gives(()).map_err(&refused)?;
        let whole = self.compute_profiles(instance).into_iter();
        let mut whole = whole.filter(|compute| compute.sliceCount == profile.slices);
        let whole = whole.next().ok_or_else(|| refused(Missing::Absent))?;
        let symbol = &self.library().nvmlGpuInstanceCreateComputeInstance;
        let function = calls::found(symbol).map_err(&refused)?;
        let mut part = ptr::null_mut();
        // SAFETY: as above.
        Code(unsafe { function(instance, whole.id, &raw mut part) }).gives(()).map_err(refused)
    }

    fn read_back(&self, profiles: &[String]) -> Result<(), CutError> {
        let devices = match self.mig_mode().map_err(refused("ask for the MIG mode"))?.on {
            true => self.mig_devices().map_err(refused("ask for the instances"))?,
            false => Vec::new(),
        };
        let mut found: Vec<String> = devices.into_iter().map(|device| device.profile).collect();
        let mut wanted = profiles.to_vec();
        found.sort();
        wanted.sort();
        if found == wanted { Ok(()) } else { Err(CutError::ReadBack(words(&found))) }
    }

    /// Profiles of GPU instances that this GPU has.
    fn profiles(&self) -> Result<Vec<Profile>, CutError> {
        let all = (0..NVML_GPU_INSTANCE_PROFILE_COUNT).map(|number| self.profile(number));
        let found: Vec<Profile> = all.filter_map(Result::ok).collect();
        if found.is_empty() {
            let answer = self.profile(0).err().unwrap_or(Missing::NotSupported);
            return Err(refused("ask for the profiles")(answer));
        }
        Ok(found)
    }

    fn profile(&self, number: u32) -> Reading<Profile> {
        let named = self.named_profile(number);
        if let Ok(Some(profile)) = named {
            return Ok(profile);
        }
        let function = calls::found(&self.library().nvmlDeviceGetGpuInstanceProfileInfo)?;
        let mut info = PROFILE;
        // SAFETY: takes a handle and a number, writes one structure of its header.
        let code = Code(unsafe { function(self.handle, number, &raw mut info) });
        code.gives(())?;
        // As the driver names devices of the profile: it rounds up what it holds back itself.
        let name = format!("{}g.{}gb", info.sliceCount, info.memorySizeMB.div_ceil(1024));
        Ok(Profile { name, id: info.id, slices: info.sliceCount })
    }

    /// The profile with the name that the driver gives it, which tells apart those of one size; `None`: it names none.
    fn named_profile(&self, number: u32) -> Reading<Option<Profile>> {
        let function = calls::found(&self.library().nvmlDeviceGetGpuInstanceProfileInfoV)?;
        let mut info = NAMED_PROFILE;
        // SAFETY: as in `profile`; the structure says its version and size.
        let code = Code(unsafe { function(self.handle, number, &raw mut info) });
        code.gives(())?;
        let bytes = info.name.map(|byte| byte as u8);
        let text = String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or(&[]));
        let name = text.strip_prefix("MIG ").unwrap_or(&text).to_owned();
        let (id, slices) = (info.id, info.sliceCount);
        Ok((!name.is_empty()).then_some(Profile { name, id, slices }))
    }

    fn instances_of(&self, profile: u32) -> Result<Vec<nvmlGpuInstance_t>, CutError> {
        let refused = refused("ask for the instances");
        let symbol = &self.library().nvmlDeviceGetGpuInstances;
        let function = calls::found(symbol).map_err(&refused)?;
        let mut found = [ptr::null_mut(); INSTANCES_MAX];
        let mut count = INSTANCES_MAX as u32;
        // SAFETY: there is room for as many handles as it is told, more than a GPU can have.
        let code =
            Code(unsafe { function(self.handle, profile, found.as_mut_ptr(), &raw mut count) });
        code.gives(()).map_err(refused)?;
        Ok(found.into_iter().take(count as usize).collect())
    }

    /// Profiles of compute instances that the instance can have.
    fn compute_profiles(
        &self,
        instance: nvmlGpuInstance_t,
    ) -> Vec<nvmlComputeInstanceProfileInfo_t> {
        let symbol = &self.library().nvmlGpuInstanceGetComputeInstanceProfileInfo;
        let Ok(function) = calls::found(symbol) else { return Vec::new() };
        let engines = NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED;
        let profile = |number: u32| {
            let mut info = COMPUTE_PROFILE;
            // SAFETY: takes a handle and numbers, writes one structure of its header.
            let code = Code(unsafe { function(instance, number, engines, &raw mut info) });
            code.gives(info).ok()
        };
        (0..NVML_COMPUTE_INSTANCE_PROFILE_COUNT).filter_map(profile).collect()
    }

    fn compute_instances_of(
        &self,
        instance: nvmlGpuInstance_t,
        profile: u32,
    ) -> Result<Vec<nvmlComputeInstance_t>, CutError> {
        let refused = refused("ask for the compute instances");
        let symbol = &self.library().nvmlGpuInstanceGetComputeInstances;
        let function = calls::found(symbol).map_err(&refused)?;
        let mut found = [ptr::null_mut(); INSTANCES_MAX];
        let mut count = INSTANCES_MAX as u32;
        // SAFETY: as in `instances_of`.
        let code = Code(unsafe { function(instance, profile, found.as_mut_ptr(), &raw mut count) });
        code.gives(()).map_err(refused)?;
        Ok(found.into_iter().take(count as usize).collect())
    }
}

/// The largest first: then each finds the places that it needs.
fn by_size(profiles: &[String]) -> Vec<&String> {
    let slices = |profile: &&String| {
        let number = profile.split('g').next().and_then(|digits| digits.parse::<u32>().ok());
        std::cmp::Reverse(number.unwrap_or(0))
    };
    let mut sorted: Vec<&String> = profiles.iter().collect();
    sorted.sort_by_key(slices);
    sorted
}

fn words(profiles: &[String]) -> String {
    if profiles.is_empty() { "cut into nothing, or whole".to_owned() } else { profiles.join(", ") }
}

fn refused(what: impl Into<String>) -> impl Fn(Missing) -> CutError {
    let what = what.into();
    move |answer| CutError::Refused { what: what.clone(), answer }
}

const PROFILE: nvmlGpuInstanceProfileInfo_t = nvmlGpuInstanceProfileInfo_t {
    id: 0,
    isP2pSupported: 0,
    sliceCount: 0,
    instanceCount: 0,
    multiprocessorCount: 0,
    copyEngineCount: 0,
    decoderCount: 0,
    encoderCount: 0,
    jpegCount: 0,
    ofaCount: 0,
    memorySizeMB: 0,
};

const NAMED_PROFILE: nvmlGpuInstanceProfileInfo_v2_t = nvmlGpuInstanceProfileInfo_v2_t {
    version: calls::version::<nvmlGpuInstanceProfileInfo_v2_t>(2),
    id: 0,
    isP2pSupported: 0,
    sliceCount: 0,
    instanceCount: 0,
    multiprocessorCount: 0,
    copyEngineCount: 0,
    decoderCount: 0,
    encoderCount: 0,
    jpegCount: 0,
    ofaCount: 0,
    memorySizeMB: 0,
    name: [0; 96],
};

const COMPUTE_PROFILE: nvmlComputeInstanceProfileInfo_t = nvmlComputeInstanceProfileInfo_t {
    id: 0,
    sliceCount: 0,
    instanceCount: 0,
    multiprocessorCount: 0,
    sharedCopyEngineCount: 0,
    sharedDecoderCount: 0,
    sharedEncoderCount: 0,
    sharedJpegCount: 0,
    sharedOfaCount: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_instances_are_made_first() {
        let all = ["1g.10gb", "3g.40gb", "2g.20gb", "3g.40gb"].map(str::to_owned);
        let sorted: Vec<&str> = by_size(&all).into_iter().map(String::as_str).collect();
        assert_eq!(sorted, ["3g.40gb", "3g.40gb", "2g.20gb", "1g.10gb"]);
    }
}
