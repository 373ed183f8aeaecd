//! GPUs that are cut into instances (NVIDIA's MIG): what an instance is called, and what it counts.
//!
//! A GPU that is cut is given out by its instances and never as a whole or in shares. An instance counts in limits, in
//! guarantees and in the ledger as thousandths of its GPU: its compute slices over those of the card, rounded down, so
//! that the instances of a card never come to more than the card.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::amount::{GpuMilli, MemoryMib, UnixMicros};
use crate::ids::{GpuUuid, UserName};

/// Longest profile that is understood; NVIDIA's longest has 14 characters.
const PROFILE_MAX: usize = 23;

/// Slices and memory of an instance as NVIDIA writes them: `3g.40gb`, `1c.3g.40gb`, `1g.10gb+me`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MigProfile {
    text: [u8; PROFILE_MAX],
    length: u8,
}

/// A text that is no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no MIG profile; write it as NVIDIA does: 1g.10gb, 3g.40gb, 1c.3g.40gb or 1g.10gb+me"
)]
pub struct BadProfile(pub String);

impl MigProfile {
    /// Understands a profile as NVIDIA writes it.
    ///
    /// # Errors
    /// [`BadProfile`] if it is of another form.
    pub fn new(text: &str) -> Result<Self, BadProfile> {
        let bad = || BadProfile(text.chars().take(2 * PROFILE_MAX).collect());
        if !is_profile(text) || text.len() > PROFILE_MAX {
            return Err(bad());
        }
        let mut profile = MigProfile { text: [0; PROFILE_MAX], length: 0 };
        profile.text[..text.len()].copy_from_slice(text.as_bytes());
        profile.length = u8::try_from(text.len()).map_err(|_| bad())?;
        Ok(profile)
    }

    /// Whether it is a compute instance with some of the slices of its GPU instance, as `1c.3g.40gb`.
    #[must_use]
    pub fn is_part_of_instance(&self) -> bool {
        self.as_str().split('.').next().is_some_and(|first| first.ends_with('c'))
    }

    /// As NVIDIA writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Of ASCII alone, as it was checked.
        std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }
}

/// `3g.40gb`, with the slices of a compute instance before it (`1c.`) and what it has beside (`+me`) behind it.
fn is_profile(text: &str) -> bool {
    let (sized, beside) = match text.find(['+', '-']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "me"),
    };
    let words = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    let mut parts: Vec<&str> = sized.split('.').collect();
    if parts.len() == 3 {
        if !is_number(parts[0].strip_suffix('c')) {
            return false;
        }
        parts.remove(0);
    }
    let [slices, memory] = parts[..] else { return false };
    is_number(slices.strip_suffix('g'))
        && is_number(memory.strip_suffix("gb"))
        && beside.split('.').all(words)
}

fn is_number(digits: Option<&str>) -> bool {
    digits.is_some_and(|digits| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain && digits.len() <= 4 && !digits.starts_with('0')
    })
}

impl fmt::Display for MigProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for MigProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl From<MigProfile> for String {
    fn from(profile: MigProfile) -> Self {
        profile.as_str().to_owned()
    }
}

impl TryFrom<String> for MigProfile {
    type Error = BadProfile;
    fn try_from(text: String) -> Result<Self, BadProfile> {
        MigProfile::new(&text)
    }
}

/// What makes instances alike: any of a kind serves a request for that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MigKind {
    /// Its profile.
    pub profile: MigProfile,
    /// What it counts of its GPU, thousandths.
    pub milli: u32,
}

impl MigKind {
    /// What it counts of its GPU.
    #[must_use]
    pub fn amount(self) -> GpuMilli {
        GpuMilli(u64::from(self.milli))
    }
}

/// Whether a GPU is cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mig {
    /// It is whole.
    #[default]
    Off,
    /// It is cut, perhaps into nothing yet; as a worker registers it.
    Cut(MigCut),
    /// It is an instance of a GPU that is cut; as it is given out.
    Instance(MigPart),
}

impl Mig {
    /// Whether it is a whole GPU.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Mig::Off
    }
}

/// What a GPU is cut into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigCut {
    slices: u32,
    instances: Vec<MigInstance>,
}

/// One instance of a GPU, as its worker tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigInstance {
    /// As the driver names it, `MIG-…`.
    pub uuid: GpuUuid,
    /// Slices and memory.
    pub profile: MigProfile,
    /// Compute slices of its compute instance, at least 1.
    pub slices: u32,
    /// Its memory.
    pub memory_mib: MemoryMib,
    /// Number of its GPU instance on the GPU.
    pub gpu_instance: u32,
    /// Number of its compute instance within that.
    pub compute_instance: u32,
}

/// What of which GPU an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigPart {
    /// Its kind.
    pub kind: MigKind,
    /// The GPU.
    pub card: GpuUuid,
}

/// What a GPU is to be cut into once nothing is on it; kept in the store with the node. Until it is so, it takes no work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutPlan {
    /// Profiles of its instances; `None`: it is to be whole.
    pub profiles: Option<Vec<MigProfile>>,
    /// Who asked for it.
    pub by: UserName,
    /// When; tells one plan of a GPU from another.
    pub since: UnixMicros,
    /// Why it could not be done, in words. It is not tried again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl CutPlan {
    /// What is to be done, as in "cut into 3g.40gb, 2g.20gb".
    #[must_use]
    pub fn words(&self) -> String {
        let Some(profiles) = &self.profiles else { return "made whole".to_owned() };
        let names: Vec<&str> = profiles.iter().map(MigProfile::as_str).collect();
        format!("cut into {}", names.join(", "))
    }
}

impl MigCut {
    /// Instances of a GPU with so many compute slices. Should its instances have more by the driver's word, the card is
    /// believed to have those: what is given out of it never comes to more than the card.
    #[must_use]
    pub fn new(slices: u32, instances: Vec<MigInstance>) -> Self {
        let used = instances.iter().fold(0_u32, |sum, one| sum.saturating_add(one.slices.max(1)));
        MigCut { slices: slices.max(used).max(1), instances }
    }

    /// Compute slices of the card.
    #[must_use]
    pub fn slices(&self) -> u32 {
        self.slices
    }

    /// The instances, in the order in which the driver names them.
    #[must_use]
    pub fn instances(&self) -> &[MigInstance] {
        &self.instances
    }

    /// The kind of one of its instances.
    #[must_use]
    pub fn kind(&self, instance: &MigInstance) -> MigKind {
        let milli = u64::from(instance.slices.max(1)) * GpuMilli::WHOLE.0 / u64::from(self.slices);
        // A card of more than a thousand slices does not exist; something of it is counted anyway.
        let milli = u32::try_from(milli.max(1)).unwrap_or(u32::MAX);
        MigKind { profile: instance.profile, milli }
    }

    /// The kinds of its instances with how many there are, as in `7x 1g.10gb`; "no instance" if there is none.
    #[must_use]
    pub fn words(&self) -> String {
        let mut counts: Vec<(MigProfile, u32)> = Vec::new();
        for instance in &self.instances {
            match counts.iter_mut().find(|(profile, _)| *profile == instance.profile) {
                Some((_, count)) => *count += 1,
                None => counts.push((instance.profile, 1)),
            }
        }
        if counts.is_empty() {
            return "no instance".to_owned();
        }
        let words: Vec<String> =
            counts.iter().map(|(profile, count)| format!("{count}x {profile}")).collect();
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance(number: u32, profile: &str, slices: u32) -> MigInstance {
        MigInstance {
            uuid: GpuUuid::new(&format!("MIG-{number}")).unwrap(),
            profile: MigProfile::new(profile).unwrap(),
            slices,
            memory_mib: MemoryMib(9_728),
            gpu_instance: number,
            compute_instance: 0,
        }
    }

    #[test]
    fn profiles_as_nvidia_writes_them_are_understood() {
        let all = [
            "1g.10gb",
            "7g.80gb",
            "1c.3g.40gb",
            "1g.10gb+me",
            "1g.24gb+me.all",
            "4g.96gb+gfx",
            "1g.24gb-me",
            "1g.5gb",
        ];
        for text in all {
            assert_eq!(MigProfile::new(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_would_be_right() {
        let bad = [
            "",
            "1g",
            "10gb",
            "g.10gb",
            "1g.gb",
            "1G.10GB",
            "1g.10gb+",
            "1g.10gb+ME",
            "x.1g.10gb",
            "0g.10gb",
            "1g.10gb ",
            "1g.10gb,2g.20gb",
            "1c.1c.1g.10gb",
            "1g.10gb+aaaaaaaaaaaaaaaaaaaa",
        ];
        for text in bad {
            let error = MigProfile::new(text).unwrap_err().to_string();
            assert!(error.contains("1g.10gb, 3g.40gb"), "{text}: {error}");
        }
    }

    #[test]
    fn a_profile_is_stored_as_its_text() {
        let profile = MigProfile::new("1c.3g.40gb").unwrap();
        assert_eq!(serde_json::to_string(&profile).unwrap(), r#""1c.3g.40gb""#);
        assert_eq!(serde_json::from_str::<MigProfile>(r#""1c.3g.40gb""#).unwrap(), profile);
        assert!(serde_json::from_str::<MigProfile>(r#""40gb""#).is_err());
    }

    #[test]
    fn an_instance_counts_by_its_compute_slices_rounded_down() {
        let cut = MigCut::new(7, vec![instance(1, "1g.10gb", 1), instance(2, "3g.40gb", 3)]);
        let milli: Vec<u32> = cut.instances().iter().map(|one| cut.kind(one).milli).collect();
        assert_eq!(milli, [142, 428]);
        let of_four = MigCut::new(4, vec![instance(1, "1g.6gb", 1)]);
        assert_eq!(of_four.kind(&of_four.instances()[0]).milli, 250);
        let whole = MigCut::new(7, vec![instance(1, "7g.80gb", 7)]);
        assert_eq!(whole.kind(&whole.instances()[0]).milli, 1000);
    }

    #[test]
    fn instances_are_told_by_kind() {
        let all =
            vec![instance(1, "1g.10gb", 1), instance(2, "3g.40gb", 3), instance(3, "1g.10gb", 1)];
        assert_eq!(MigCut::new(7, all).words(), "2x 1g.10gb, 1x 3g.40gb");
        assert_eq!(MigCut::new(7, Vec::new()).words(), "no instance");
    }

    proptest! {
        /// Whatever a driver says.
        #[test]
        fn the_instances_of_a_card_never_come_to_more_than_the_card(
            slices in 0_u32..16,
            parts in prop::collection::vec(0_u32..9, 0..12),
        ) {
            let all = parts.iter().zip(1..).map(|(part, at)| instance(at, "1g.10gb", *part));
            let cut = MigCut::new(slices, all.collect());
            let sum: u32 = cut.instances().iter().map(|one| cut.kind(one).milli).sum();
            prop_assert!(sum <= 1000, "{sum}");
            prop_assert!(cut.instances().iter().all(|one| cut.kind(one).milli > 0));
        }
    }
}
