//! What a job wants its GPUs capped at: watts, or one of the site's words for them.

use super::AdmitContext;
use super::fault::{FaultReason, Findings};
use super::near::suggestion;
use super::request::ResourcesRequest;
use super::work::shown;
use crate::ids::GpuClass;
use crate::power::caps::CapRange;
use crate::spec::GpuRequest;

/// In the API.
const WATTS: &str = "resources.gpu_cap_watts";
const MODE: &str = "resources.gpu_power_mode";

/// The cap asked for, watts; `None`: as the site orders, or with a fault noted.
pub(super) fn cap(
    request: &ResourcesRequest,
    gpus: &GpuRequest,
    context: &AdmitContext,
    findings: &mut Findings,
) -> Option<u32> {
    let (field, watts) = match (request.gpu_cap_watts, request.gpu_power_mode.as_str()) {
        (0, "") => return None,
        (watts, "") => (WATTS, Some(watts)),
        (0, mode) => (MODE, of_mode(mode, gpus, context, findings)),
        (_, _) => {
            let message = "is given beside resources.gpu_power_mode; keep one";
            findings.fault(WATTS, FaultReason::Conflict, message);
            return None;
        }
    };
    match gpus {
        GpuRequest::Whole { class, .. } => {
            let watts = watts?;
            require_range(field, watts, class.as_ref(), context, findings);
            warn_of_order(watts, class.as_ref(), context, findings);
            Some(watts)
        }
        GpuRequest::Share { .. } => {
            let message =
                "caps a whole GPU, of which others have shares; ask for whole GPUs or leave it out";
            findings.fault(field, FaultReason::Conflict, message);
            None
        }
        GpuRequest::Mig { .. } => {
            let message =
                "caps whole GPUs, and instances cannot be capped one by one; leave it out";
            findings.fault(field, FaultReason::Conflict, message);
            None
        }
        GpuRequest::None => {
            let message =
                "caps GPUs and the job asks for none; add resources.gpus_per_node or leave it out";
            findings.fault(field, FaultReason::Conflict, message);
            None
        }
    }
}

/// What a word of the site means for the class that the job names: each class has watts of its own.
fn of_mode(
    mode: &str,
    gpus: &GpuRequest,
    context: &AdmitContext,
    findings: &mut Findings,
) -> Option<u32> {
    let modes = &context.policy.power.modes;
    let Some(watts) = modes.get(mode) else {
        let near = suggestion(mode, modes.keys().map(String::as_str), "modes");
        let message =
            format!("the site has no power mode \"{}\"{near}, or give watts", shown(mode));
        findings.fault(MODE, FaultReason::Malformed, message);
        return None;
    };
    let Some(class) = gpus.class() else {
        if *gpus != GpuRequest::None {
            let message = format!(
                "\"{mode}\" means other watts for each class; name the class in resources.gpu_class"
            );
            findings.fault(MODE, FaultReason::Missing, message);
        }
        return None;
    };
    let found = watts.get(class).copied();
    if found.is_none() {
        let classes: Vec<&str> = watts.keys().map(GpuClass::as_str).collect();
        let message = format!(
            "\"{mode}\" is for {}, and not for {class}; give watts instead",
            classes.join(", ")
        );
        findings.fault(MODE, FaultReason::OutOfRange, message);
    }
    found
}

/// Workers say anew at each start whether they can cap, so that none does now is no fault; a number that no GPU takes is.
fn require_range(
    field: &str,
    watts: u32,
    class: Option<&GpuClass>,
    context: &AdmitContext,
    findings: &mut Findings,
) {
    let ranges = context.fleet.caps().filter(|(own, _)| class.is_none_or(|class| class == *own));
    let Some(CapRange { min_watts, max_watts }) =
        ranges.map(|(_, range)| range).reduce(CapRange::with)
    else {
        findings.warn("no node that could serve can cap its GPUs now: it waits until one can");
        return;
    };
    if !(min_watts..=max_watts).contains(&watts) {
        let word = class.map(|class| format!("{class} ")).unwrap_or_default();
        let message = format!("is {watts} W; {word}GPUs here take {min_watts} to {max_watts} W");
        findings.fault(field, FaultReason::OutOfRange, message);
    }
}

fn warn_of_order(
    watts: u32,
    class: Option<&GpuClass>,
    context: &AdmitContext,
    findings: &mut Findings,
) {
    let Some(class) = class else { return };
    let ordered = context.policy.power.cap_watts.get(class).filter(|ordered| **ordered < watts);
    if let Some(ordered) = ordered {
        findings
            .warn(format!("the site caps {class} GPUs at {ordered} W, so that is what it gets"));
    }
}
