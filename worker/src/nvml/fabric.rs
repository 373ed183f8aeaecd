//! The fabric of NVLinks that a GPU is part of, if it reaches beyond the node.
//!
//! Three functions have told of it one after the other; the newest that the driver answers is taken.

use nvml_wrapper_sys::bindings::{
    nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
};
use serde::{Serialize, Serializer};

use super::answer::{Code, Missing, Reading};
use super::calls;
use super::driver::Gpu;

/// How far a GPU is in becoming part of its fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricState {
    /// It is of none.
    NotSupported,
    /// Not begun.
    NotStarted,
    /// Under way.
    InProgress,
    /// Over; the status says with what result.
    Completed,
    /// A state that this version does not know.
    Other(u8),
}

/// What the driver makes of its fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricHealth {
    /// It does not say.
    NotSupported,
    /// All is well.
    Healthy,
    /// Not to be used for gangs.
    Unhealthy,
    /// Slower than it should be.
    LimitedCapacity,
    /// A word that this version does not know.
    Other(u8),
}

/// Part of which fabric a GPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fabric {
    /// How far it is in becoming so.
    pub state: FabricState,
    /// With what result.
    #[serde(serialize_with = "as_text")]
    pub status: Code,
    /// UUID of all that is connected; zero where the fabric ends within the node.
    #[serde(serialize_with = "as_uuid")]
    pub cluster: [u8; 16],
    /// Part of it whose GPUs reach each other's memory.
    pub clique: u32,
    /// Health as a set of bits; absent from older drivers.
    pub health_mask: Option<u32>,
    /// Health in a word; absent from older drivers.
    pub health: Option<FabricHealth>,
}

impl Fabric {
    /// Name of the NVLink domain: UUID and number of the clique. None before the GPU has become part of it, and where
    /// it ends within the node.
    pub fn domain(&self) -> Option<String> {
        let joined = self.state == FabricState::Completed && self.status == Code::SUCCESS;
        let reaches_out = self.cluster != [0; 16];
        (joined && reaches_out).then(|| format!("{}.{}", uuid(&self.cluster), self.clique))
    }
}

impl Gpu<'_> {
    /// Part of which fabric it is.
    pub fn fabric(&self) -> Reading<Fabric> {
        match self.fabric_by_version() {
            Err(Missing::Absent) => self.fabric_before(),
            other => other,
        }
    }

    fn fabric_by_version(&self) -> Reading<Fabric> {
        match self.fabric_of_version(calls::version::<nvmlGpuFabricInfo_v3_t>(3)) {
            Err(Missing::Failed(Code::VERSION_MISMATCH | Code::INVALID_ARGUMENT)) => {
                let found = self.fabric_of_version(calls::version::<nvmlGpuFabricInfo_v2_t>(2))?;
                Ok(Fabric { health: None, ..found })
            }
            other => other,
        }
    }

    /// The third version only adds a last member, so that an answer of the second fits into it.
    fn fabric_of_version(&self, version: u32) -> Reading<Fabric> {
        let initial = nvmlGpuFabricInfo_v3_t {
            version,
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: 0,
            healthMask: 0,
            healthSummary: 0,
        };
        let symbol = &self.library().nvmlDeviceGetGpuFabricInfoV;
        let found = calls::fill(symbol, self.handle, initial)?;
        Ok(Fabric {
            state: state(found.state),
            status: Code(found.status),
            cluster: found.clusterUuid,
            clique: found.cliqueId,
            health_mask: Some(found.healthMask),
            health: Some(health(found.healthSummary)),
        })
    }

    fn fabric_before(&self) -> Reading<Fabric> {
        let initial =
            nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
        let symbol = &self.library().nvmlDeviceGetGpuFabricInfo;
        let found = calls::fill(symbol, self.handle, initial)?;
        Ok(Fabric {
            state: state(found.state),
            status: Code(found.status),
            cluster: found.clusterUuid,
            clique: found.cliqueId,
            health_mask: None,
            health: None,
        })
    }
}

fn state(number: u8) -> FabricState {
    match number {
        0 => FabricState::NotSupported,
        1 => FabricState::NotStarted,
        2 => FabricState::InProgress,
        3 => FabricState::Completed,
        other => FabricState::Other(other),
    }
}

fn health(number: u8) -> FabricHealth {
    match number {
        0 => FabricHealth::NotSupported,
        1 => FabricHealth::Healthy,
        2 => FabricHealth::Unhealthy,
        3 => FabricHealth::LimitedCapacity,
        other => FabricHealth::Other(other),
    }
}

/// As in "a1b2c3d4-0000-0000-0000-000000000000".
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
        text.push_str(&format!("{dash}{byte:02x}"));
    }
    text
}

fn as_uuid<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&uuid(bytes))
}

fn as_text<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    match *code {
        Code::SUCCESS => serializer.serialize_str("success"),
        code => serializer.collect_str(&code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined() -> Fabric {
        Fabric {
            state: FabricState::Completed,
            status: Code::SUCCESS,
            cluster: *b"\xa1\xb2\xc3\xd4........\x00\x01\x02\x03",
            clique: 7,
            health_mask: None,
            health: None,
        }
    }

    #[test]
    fn a_domain_is_named_by_its_fabric_and_clique() {
        let domain = joined().domain();
        assert_eq!(domain.as_deref(), Some("a1b2c3d4-2e2e-2e2e-2e2e-2e2e00010203.7"));
    }

    #[test]
    fn a_fabric_that_is_not_joined_or_ends_in_the_node_is_no_domain() {
        let under_way = Fabric { state: FabricState::InProgress, ..joined() };
        let failed = Fabric { status: Code(999), ..joined() };
        let within = Fabric { cluster: [0; 16], ..joined() };
        for fabric in [under_way, failed, within] {
            assert_eq!(fabric.domain(), None, "{fabric:?}");
        }
    }
}
