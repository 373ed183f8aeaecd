//! A cold start: all GPUs are free, and half of the queue may start at the same moment.
//!
//! The jobs wait behind a limit of their projects, so that lifting it is the one thing that happens: until then the
//! scheduler has all of them and can start none.

use std::time::{Duration, Instant};

use gotgan_proto::v1::JobSpec;
use rand::RngExt;
use rand::rngs::StdRng;

use super::country::Country;
use super::{FILL, Figures};
use crate::api::told;
use crate::bench::Mark;
use crate::deadline;
use crate::jobs::{QUOTA, Shape};
use crate::swarm::fleet::{FREE_CLASS, Fleet, GPUS};
use crate::swarm::words;

/// Seconds until nearly all GPUs run.
const MARK: f64 = 3.0;
/// Nearly all, in hundredths.
const NEARLY_ALL: usize = 99;
/// A fill that takes longer counts as this.
const GIVE_UP: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Projects among which the jobs are spread.
const PROJECTS: u32 = 32;
/// No job ends by itself while it is measured.
const LIMIT_S: i64 = 86_400;
/// GPUs of a job, and how many of a hundred jobs want so many.
const SIZES: [(u32, u32); 7] = [(1, 40), (2, 15), (4, 15), (8, 15), (16, 9), (64, 5), (512, 1)];

/// The usual tree, and projects that may have nothing while they are `closed`.
pub fn tree(closed: bool) -> String {
    let limit = if closed { "limit = { any = 0 }" } else { "" };
    let mut tree = format!("{QUOTA}\n[node.\"centre/fill\"]\ntitle = \"Many\"\n{limit}\n");
    for number in 0..PROJECTS {
        tree += &format!("\n[node.\"{}\"]\ntitle = \"One of many\"\n", project(number));
    }
    tree
}

fn project(number: u32) -> String {
    format!("centre/fill/p{number:02}")
}

/// Half of the queue at once on free GPUs, until nearly all of these run.
pub async fn measure(country: &mut Country, figures: &mut Figures) {
    wait_in_line(country, country.dose.waiting / 2).await;
    let (began, before) = (Instant::now(), country.cluster.api.status().await);
    let opened = country.api().apply_quota(&tree(false)).await;
    opened.unwrap_or_else(|status| panic!("quota tree refused: {}", told(&status)));
    let elapsed = fill(country, began).await;
    if let (Ok(before), Ok(after)) = (before, country.api().status().await) {
        let passes = after.passes - before.passes;
        eprintln!("  {passes} passes, the last of {} us", after.last_pass_us);
    }
    figures.value(FILL, "s", Some(Mark::AtMost(MARK)), elapsed.as_secs_f64());
}

/// Waits until nearly all GPUs run, or for ever as far as a figure goes.
async fn fill(country: &Country, began: Instant) -> Duration {
    let wanted = country.fleet.gpus() * NEARLY_ALL / 100;
    let mut told = 0;
    loop {
        let running = country.swarm.board().sums().gpus_running;
        let elapsed = began.elapsed();
        if running >= wanted || elapsed >= GIVE_UP {
            eprintln!("  {running} GPUs run after {elapsed:.2?}");
            return elapsed;
        }
        if running * 4 / wanted.max(1) > told {
            told = running * 4 / wanted.max(1);
            eprintln!("  {running} GPUs run after {elapsed:.2?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Frees one class, and makes the queue for the others as long as it is to be.
pub async fn lengthen(country: &mut Country) {
    let in_the_way = std::mem::take(&mut country.in_the_way);
    country.cancel(in_the_way).await;
    let pending = country.api().status().await.expect("a status").jobs_pending;
    let missing = country.dose.waiting.saturating_sub(usize::try_from(pending).unwrap_or(0));
    wait_in_line_for_full(country, missing).await;
    wait_until_free(country).await;
}

async fn wait_in_line(country: &mut Country, jobs: usize) {
    let specs: Vec<JobSpec> = (0..jobs).map(|_| one(&mut country.random, &country.fleet)).collect();
    let in_the_way: Vec<bool> = specs.iter().map(is_of_free_class).collect();
    let numbers = country.submit(specs).await;
    let both = numbers.into_iter().zip(in_the_way);
    country.in_the_way.extend(both.filter_map(|(job, in_the_way)| in_the_way.then_some(job)));
}

async fn wait_in_line_for_full(country: &mut Country, jobs: usize) {
    let specs = (0..jobs).map(|_| for_full_class(&mut country.random, &country.fleet)).collect();
    country.submit(specs).await;
}

/// A job for a class on which nothing is free.
pub fn for_full_class(random: &mut StdRng, fleet: &Fleet) -> JobSpec {
    loop {
        let spec = one(random, fleet);
        if !is_of_free_class(&spec) || fleet.classes().count() == 1 {
            return spec;
        }
    }
}

fn is_of_free_class(spec: &JobSpec) -> bool {
    spec.resources.as_ref().is_some_and(|resources| resources.gpu_class == FREE_CLASS)
}

/// A job of some size for some class, the larger classes more often, as their nodes are more.
fn one(random: &mut StdRng, fleet: &Fleet) -> JobSpec {
    let (class, nodes) = class(random.random_range(0..fleet.nodes()), fleet);
    let gpus = size(random.random_range(0..100));
    let project = project(random.random_range(0..PROJECTS));
    let spec = words::runs_for_ever().project(&project).class(class).limit(LIMIT_S);
    if gpus <= GPUS {
        return spec.gpus(gpus);
    }
    let half_of_class = u32::try_from(nodes / 2).unwrap_or(1).max(1);
    spec.nodes((gpus / GPUS).min(half_of_class)).gpus(GPUS)
}

/// The class of the node of that number, and its nodes.
fn class(mut number: usize, fleet: &Fleet) -> (&'static str, usize) {
    for (class, nodes) in fleet.classes() {
        if number < nodes {
            return (class, nodes);
        }
        number -= nodes;
    }
    (FREE_CLASS, fleet.nodes_of(FREE_CLASS))
}

fn size(mut percent: u32) -> u32 {
    for (gpus, of_hundred) in SIZES {
        if percent < of_hundred {
            return gpus;
        }
        percent -= of_hundred;
    }
    1
}

/// Waits until the free class is.
async fn wait_until_free(country: &Country) {
    deadline::until("a class to be free", async || {
        let status = country.api().status().await.map_err(|status| told(&status))?;
        let class = status.classes.iter().find(|class| class.gpu_class == FREE_CLASS);
        match class.map_or(0, |class| class.allocated_gpu_milli) {
            0 => Ok(()),
            more => Err(format!("{more} thousandths are taken")),
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_jobs_as_many_have_a_size_as_the_mix_says() {
        let ones = (0..100).filter(|percent| size(*percent) == 1).count();
        let largest = (0..100).filter(|percent| size(*percent) == 512).count();
        assert_eq!((ones, largest), (40, 1));
    }
}
