//! Readings as text. Pure.

use std::collections::BTreeMap;

use gotgan_proto::v1::{GpuDevice, GpuFault, GpuReading, NodeInventory};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::renewal::Term;

/// Thousandths of a watt in one.
const MILLIWATTS: f64 = 1000.0;

/// What attempts have of the node's GPUs, and what the driver told of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Using {
    /// Attempts that have not ended.
    pub attempts: u64,
    /// Jobs that have a GPU, or part of it, by UUID.
    pub jobs: BTreeMap<String, Vec<u64>>,
    /// The error of the driver that was told last since this daemon began, by UUID.
    pub xids: BTreeMap<String, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Whole(u64),
    Fraction(f64),
}

/// A row of the page for each GPU; what was not read has none.
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&GpuReading) -> Option<Value>,
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    value: fn(&GpuReading) -> Option<Value>,
) -> Metric {
    Metric { name, help, kind: MetricType::Gauge, value }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    value: fn(&GpuReading) -> Option<Value>,
) -> Metric {
    Metric { name, help, kind: MetricType::Counter, value }
}

const METRICS: [Metric; 14] = [
    gauge("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", |gpu| {
        gpu.utilisation_percent.map(whole)
    }),
    gauge("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", |gpu| {
        gpu.memory_used_mib.map(Value::Whole)
    }),
    gauge("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", |gpu| gpu.temperature_c.map(whole)),
    gauge("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", |gpu| gpu.power_mw.map(watts)),
    gauge("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "Power limit in force (in W).", |gpu| {
        gpu.power_limit_mw.map(watts)
    }),
    counter(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Energy since the driver was loaded (in mJ).",
        |gpu| gpu.energy_mj.map(Value::Whole),
    ),
    gauge("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "What holds the clocks down (bits).", |gpu| {
        gpu.clock_reasons.map(Value::Whole)
    }),
    counter("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Corrected errors since the driver's load.", |gpu| {
        gpu.ecc_corrected.map(Value::Whole)
    }),
    counter("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Uncorrectable errors since then.", |gpu| {
        gpu.ecc_uncorrected.map(Value::Whole)
    }),
    counter(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Rows remapped for corrected errors.",
        |gpu| gpu.remapped_rows.map(|rows| whole(rows.correctable)),
    ),
    counter("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "Rows remapped for others.", |gpu| {
        gpu.remapped_rows.map(|rows| whole(rows.uncorrectable))
    }),
    gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", "Whether rows wait to be remapped.", |gpu| {
        gpu.remapped_rows.map(|rows| whole(rows.pending.into()))
    }),
    gauge("DCGM_FI_DEV_ROW_REMAP_FAILURE", "Whether remapping of rows has failed.", |gpu| {
        gpu.remapped_rows.map(|rows| whole(rows.failed.into()))
    }),
    gauge(
        "gotgan_worker_gpu_up",
        "Whether the driver answers for it and it has no fault.",
        |gpu| Some(whole(u32::from(gpu.error.is_empty() && gpu.fault() == GpuFault::Unspecified))),
    ),
];

fn whole(value: u32) -> Value {
    Value::Whole(value.into())
}

fn watts(milliwatts: u32) -> Value {
    Value::Fraction(f64::from(milliwatts) / MILLIWATTS)
}

type Labels = Vec<(&'static str, String)>;

/// All of the page, in Prometheus' text format.
pub fn page(
    node: &NodeInventory,
    readings: Vec<GpuReading>,
    using: Using,
    certificate: Option<Term>,
) -> String {
    let mut registry = Registry::default();
    let attempts = using.attempts;
    let rows = rows(node, readings, &using);
    registry.register_collector(Box::new(Rows { rows, attempts, certificate }));
    let mut text = String::new();
    // Writing to a string does not fail.
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
        tracing::warn!(%error, "metrics could not be encoded");
    }
    text
}

/// A GPU, once for each job that has a part of it, else once.
#[derive(Debug)]
struct Row {
    labels: Labels,
    reading: GpuReading,
    xid: u32,
}

#[derive(Debug)]
struct Rows {
    rows: Vec<Row>,
    attempts: u64,
    certificate: Option<Term>,
}

fn rows(node: &NodeInventory, readings: Vec<GpuReading>, using: &Using) -> Vec<Row> {
    let mut rows = Vec::new();
    for reading in readings {
        let Some(device) = node.gpus.iter().find(|gpu| gpu.uuid == reading.uuid) else {
            continue;
        };
        let xid = using.xids.get(&device.uuid).copied().unwrap_or(0);
        let labels = labels(&node.node, device);
        let jobs = using.jobs.get(&device.uuid).map_or(&[][..], Vec::as_slice);
        for job in jobs {
            let mut labels = labels.clone();
            labels.push(("hpc_job", job.to_string()));
            rows.push(Row { labels, reading: reading.clone(), xid });
        }
        if jobs.is_empty() {
            rows.push(Row { labels, reading, xid });
        }
    }
    rows
}

/// As the exporter has them; the host is the node by its name here.
fn labels(node: &str, device: &GpuDevice) -> Labels {
    vec![
        ("gpu", device.index.to_string()),
        ("UUID", device.uuid.clone()),
        ("pci_bus_id", device.pci_bus_id.clone()),
        ("device", format!("nvidia{}", device.index)),
        ("modelName", device.name.clone()),
        ("Hostname", node.to_owned()),
    ]
}

impl Collector for Rows {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for Metric { name, help, kind, value } in METRICS {
            let values = self.rows.iter().filter_map(|row| Some((row, value(&row.reading)?)));
            encode(&mut encoder, (name, help, kind), values)?;
        }
        let xids = self.rows.iter().map(|row| (row, whole(row.xid)));
        let (name, help) = ("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.");
        encode(&mut encoder, (name, help, MetricType::Gauge), xids)?;
        let (name, help) = ("gotgan_worker_attempts", "Attempts that have not ended.");
        let mut attempts = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        attempts.encode_gauge(&self.attempts)?;
        let Some(certificate) = self.certificate else { return Ok(()) };
        let name = "gotgan_worker_certificate_expires_timestamp_seconds";
        let help = "When the certificate of this node runs out, unless it is renewed.";
        let mut until = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        until.encode_gauge(&certificate.until_s)
    }
}

/// The samples carry the name as it is: the exporter's counters have no `_total` behind theirs.
fn encode<'r>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    values: impl Iterator<Item = (&'r Row, Value)>,
) -> Result<(), std::fmt::Error> {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (row, value) in values {
        let mut sample = metric.encode_family(&row.labels)?;
        match value {
            Value::Whole(value) => sample.encode_gauge(&value)?,
            Value::Fraction(value) => sample.encode_gauge(&value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gotgan_proto::v1::GpuRemappedRows;

    use super::*;

    fn node() -> NodeInventory {
        let gpu = |index: u32| GpuDevice {
            uuid: format!("GPU-{index}"),
            index,
            name: "NVIDIA H100 80GB HBM3".into(),
            pci_bus_id: format!("00000000:0{index}:00.0"),
            ..Default::default()
        };
        NodeInventory { node: "n1".into(), gpus: vec![gpu(0), gpu(1)], ..Default::default() }
    }

    fn reading(index: u32) -> GpuReading {
        GpuReading {
            uuid: format!("GPU-{index}"),
            utilisation_percent: Some(87),
            power_mw: Some(512_500),
            energy_mj: Some(2_440_325),
            remapped_rows: Some(GpuRemappedRows { failed: true, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_gpu_is_shown_as_the_exporter_shows_it_with_the_job_that_has_it() {
        let jobs = [("GPU-0".to_owned(), vec![42])].into();
        let xids = [("GPU-0".to_owned(), 63)].into();
        let term = Some(Term { from_s: 1_700_000_000, until_s: 1_731_536_000 });
        let text = page(&node(), vec![reading(0)], Using { attempts: 1, jobs, xids }, term);
        let labels = "gpu=\"0\",UUID=\"GPU-0\",pci_bus_id=\"00000000:00:00.0\",device=\"nvidia0\",\
                      modelName=\"NVIDIA H100 80GB HBM3\",Hostname=\"n1\",hpc_job=\"42\"";
        for line in [
            "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n".to_owned(),
            "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\n".to_owned(),
            format!("DCGM_FI_DEV_GPU_UTIL{{{labels}}} 87\n"),
            format!("DCGM_FI_DEV_POWER_USAGE{{{labels}}} 512.5\n"),
            format!("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{labels}}} 2440325\n"),
            format!("DCGM_FI_DEV_ROW_REMAP_FAILURE{{{labels}}} 1\n"),
            format!("DCGM_FI_DEV_XID_ERRORS{{{labels}}} 63\n"),
            format!("gotgan_worker_gpu_up{{{labels}}} 1\n"),
            "gotgan_worker_attempts 1\n".to_owned(),
            "gotgan_worker_certificate_expires_timestamp_seconds 1731536000\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn what_was_not_read_is_not_on_the_page() {
        let text = page(&node(), vec![reading(0)], Using::default(), None);
        assert!(!text.contains("DCGM_FI_DEV_GPU_TEMP"), "{text}");
        assert!(!text.contains("hpc_job"), "nobody has it: {text}");
        assert!(!text.contains("certificate"), "{text}");
        let lost = GpuReading {
            uuid: "GPU-1".into(),
            error: "it is lost".into(),
            fault: GpuFault::Lost.into(),
            ..Default::default()
        };
        let text = page(&node(), vec![reading(0), lost], Using::default(), None);
        let of_lost: Vec<&str> = text.lines().filter(|line| line.contains("GPU-1")).collect();
        assert_eq!(of_lost.len(), 2, "{of_lost:?}");
        assert!(of_lost[0].starts_with("gotgan_worker_gpu_up") && of_lost[0].ends_with(" 0"));
    }

    #[test]
    fn a_gpu_that_two_jobs_share_is_shown_for_each() {
        let jobs = [("GPU-1".to_owned(), vec![7, 8])].into();
        let text = page(&node(), vec![reading(1)], Using { jobs, ..Using::default() }, None);
        let util = text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_GPU_UTIL{"));
        let util: Vec<&str> = util.collect();
        assert!(util.len() == 2 && util[0].contains("hpc_job=\"7\""), "{util:?}");
    }
}
