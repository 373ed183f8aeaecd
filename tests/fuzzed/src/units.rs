//! Words of people: times, amounts, node lists, arrays, names of jobs, moments; and lines of the kernel's log.

use gotgan::refer::JobRef;
use gotgan::units;
use gotgan_core::admit;
use gotgan_core::ids::{
    GpuClass, GpuUuid, IdempotencyKey, NodeName, ProjectPath, ReservationName, UserName,
};
use gotgan_core::mig::MigProfile;
use gotgan_core::quota::{duration, read_moment, show_moment};
use gotgan_worker::health::kernel_log::{self, PciAddress};

/// Every form takes the text. What is shown of a value reads as that value.
pub(crate) fn take(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let text = text.as_str();
    times(text);
    amounts(text);
    nodes(text);
    jobs(text);
    names(text);
}

fn times(text: &str) {
    if let Ok(seconds) = units::parse_time(text) {
        assert!(seconds > 0);
        assert_eq!(units::parse_time(&format!("{seconds}s")), Ok(seconds));
        let clock = format!("{}-{}", seconds / 86_400, clock_of(seconds % 86_400));
        assert_eq!(units::parse_time(&clock), Ok(seconds));
    }
    if let Ok(seconds) = duration::read(text) {
        assert_eq!(duration::read(&duration::show(seconds)), Ok(seconds));
    }
    if let Ok(at) = read_moment(text) {
        // What is finer than a second is not shown.
        let whole = read_moment(&show_moment(at)).expect("what is shown is read");
        assert_eq!(whole.0.div_euclid(1_000_000), at.0.div_euclid(1_000_000), "{text:?}");
    }
}

fn clock_of(seconds: i64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn amounts(text: &str) {
    if let Ok(mib) = units::parse_memory_mib(text) {
        assert!(mib > 0 && units::parse_memory_mib(&format!("{mib}M")) == Ok(mib));
    }
    if let Ok(milli) = units::parse_cpu_milli(text) {
        let shown = format!("{}.{:03}", milli / 1000, milli % 1000);
        assert_eq!(units::parse_cpu_milli(&shown), Ok(milli));
    }
    if let Ok(amount) = units::parse_gpus(text) {
        let class = amount.gpu_class.as_ref().map_or(String::new(), |class| format!("{class}:"));
        assert_eq!(units::parse_gpus(&format!("{class}{}", amount.count)), Ok(amount));
    }
    if let Ok(signal) = units::parse_warning_signal(text) {
        assert!((1..=31).contains(&signal.signal) && !units::signal_name(signal.signal).is_empty());
    }
}

fn nodes(text: &str) {
    if let Ok(names) = units::parse_node_list(text) {
        assert_eq!(units::parse_node_list(&names.join(",")).as_ref(), Ok(&names));
    }
}

fn jobs(text: &str) {
    if let Ok(array) = admit::read_array(text) {
        let shown = array.to_string();
        assert_eq!(admit::read_array(&shown).as_ref(), Ok(&array), "{shown}");
        assert!(!array.is_empty());
    }
    if let Ok(one) = JobRef::parse(text) {
        assert_eq!(JobRef::parse(&one.to_string()).as_ref(), Ok(&one));
    }
    let _ = units::parse_dependencies(text).map_err(|why| assert!(!why.is_empty()));
    let _ = units::parse_label(text);
    let _ = units::parse_variable(text, |_| None);
}

/// A name is kept as it was given, and taken again.
fn names(text: &str) {
    let _ = NodeName::new(text).map(|name| assert_eq!(name.as_str(), text));
    let _ = UserName::new(text).map(|name| assert_eq!(name.as_str(), text));
    let _ = ProjectPath::new(text).map(|path| {
        assert_eq!(path.as_str(), text);
        if let Some(parent) = path.parent() {
            assert!(ProjectPath::new(parent).is_ok() && path.is_within(parent));
        }
    });
    let _ = GpuUuid::new(text).map(|uuid| assert_eq!(uuid.to_string(), text));
    let _ = IdempotencyKey::new(text);
    let _ = ReservationName::new(text);
    for shown in [GpuClass::new(text).map(|it| it.to_string()).ok()].into_iter().flatten() {
        assert_eq!(GpuClass::new(&shown).map(|it| it.to_string()).as_deref(), Ok(shown.as_str()));
    }
    if let Ok(profile) = MigProfile::new(text) {
        assert_eq!(MigProfile::new(&profile.to_string()).as_ref(), Ok(&profile));
    }
}

/// Any record of the log is told or left; what is told of it is short.
pub(crate) fn take_kernel_log(bytes: &[u8]) {
    let text = super::text_of(bytes);
    for line in text.lines() {
        let _ = PciAddress::parse(line);
        let Some(record) = kernel_log::parse(line) else { continue };
        match record.logged {
            Some(
                kernel_log::Logged::Xid { detail: told, .. }
                | kernel_log::Logged::FellOff { text: told, .. },
            ) => {
                assert!(told.len() <= 512, "{} bytes", told.len());
            }
            None => {}
        }
    }
}
