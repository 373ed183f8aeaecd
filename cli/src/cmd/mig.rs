//! `gotgan node mig`: a GPU is to be cut into other instances, or made whole.

use clap::Args;
use gotgan_proto::v1;
use serde::Serialize;

use super::health::uuid_of;
use crate::{context::Context, error::Error};

/// Cut a GPU into MIG instances once nothing is on it, or make it whole
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan node mig gpu-001 --gpu 3 --profiles 3g.40gb,2g.20gb,2g.20gb\n  gotgan node mig gpu-001 --gpu 3 --profiles 7x1g.10gb\n  gotgan node mig gpu-001 --gpu 3 --whole    (MIG off)\n\nFrom now on the GPU takes no new work; what runs on it goes on. Once nothing is\non it, the node's worker cuts it, and it takes work again. gotgan node NAME\nshows how far that is. Where it fails the GPU stays out: repeat the command, or\nask for what it is cut into to take the plan back."
)]
pub struct Mig {
    /// Name of the node
    name: String,
    /// Which GPU: its number on the node, or its UUID
    #[arg(long, value_name = "GPU")]
    gpu: String,
    /// Profiles of its instances, with commas between; 7x1g.10gb is seven of them
    #[arg(
        long,
        value_name = "PROFILES",
        value_delimiter = ',',
        required_unless_present = "whole",
        conflicts_with = "whole"
    )]
    profiles: Vec<String>,
    /// No instances: a whole GPU
    #[arg(long)]
    whole: bool,
}

#[derive(Serialize)]
struct Done {
    name: String,
    gpu_uuid: String,
    profiles: Vec<String>,
    whole: bool,
    changed: bool,
}

impl Mig {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let Mig { name, gpu, whole, .. } = &self;
        let profiles = spread(&self.profiles)?;
        let gpu_uuid = uuid_of(name, gpu, context).await?;
        let request = v1::CutGpuRequest {
            idempotency_key: context.idempotency_key()?,
            name: name.clone(),
            gpu_uuid: gpu_uuid.clone(),
            profiles: profiles.clone(),
            whole: *whole,
        };
        let client = context.client()?;
        let answer = client.call(async |api| api.nodes().cut_gpu(request.clone()).await).await?;
        let changed = answer.changed;
        let what = if *whole {
            "made whole".to_owned()
        } else {
            format!("cut into {}", profiles.join(", "))
        };
        if context.output.json {
            let done = Done { name: name.clone(), gpu_uuid, profiles, whole: *whole, changed };
            return context.output.document("gotgan.node_mig/1", &done);
        }
        context.output.line(&match changed {
            true => format!("GPU {gpu} of node {name} is {what} once nothing is on it"),
            false => format!("GPU {gpu} of node {name}: nothing to do, it is so or will be"),
        })
    }
}

/// `7x1g.10gb` as seven profiles. What a profile is the scheduler says.
fn spread(words: &[String]) -> Result<Vec<String>, Error> {
    let mut profiles = Vec::new();
    for word in words {
        let (count, profile) = match word.split_once('x') {
            Some((count, profile)) => (count.parse::<usize>().ok(), profile),
            None => (Some(1), word.as_str()),
        };
        let count = count.filter(|count| (1..=16).contains(count)).ok_or_else(|| {
            let message = format!("\"{word}\" names no number of instances from 1 to 16");
            Error::Usage { message, hint: "write it as 7x1g.10gb".to_owned() }
        })?;
        profiles.extend(std::iter::repeat_n(profile.to_owned(), count));
    }
    Ok(profiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread_of(text: &str) -> Option<String> {
        let words: Vec<String> = text.split(',').map(str::to_owned).collect();
        spread(&words).ok().map(|profiles| profiles.join(","))
    }

    #[test]
    fn a_number_before_a_profile_repeats_it() {
        assert_eq!(spread_of("3g.40gb,2x2g.20gb").as_deref(), Some("3g.40gb,2g.20gb,2g.20gb"));
        assert_eq!(spread_of("1c.3g.40gb").as_deref(), Some("1c.3g.40gb"));
        for bad in ["0x1g.10gb", "17x1g.10gb", "ax1g.10gb"] {
            assert_eq!(spread_of(bad), None, "{bad}");
        }
    }
}
