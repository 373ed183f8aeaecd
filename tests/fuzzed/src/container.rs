//! Files that say what a container has: CDI for GPUs, an image's own configuration.

use std::collections::BTreeMap;

use gotgan_worker::confine::spec::UnixUser;
use gotgan_worker::container::bundle::Bundle;
use gotgan_worker::container::cdi::{Edits, GpuName, Numbers, Specs};
use gotgan_worker::container::oci::{self, Container};

/// A CDI file gives a container edits that a runtime's configuration can be made of, an image's configuration a root that
/// lies in the image; both keep what they were given when they are sent to the shim.
pub(crate) fn take(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let mut specs = Specs::default();
    let gpus =
        ["0", "GPU-b"].map(|uuid| GpuName { uuid: uuid.to_owned(), place: Some("1:0".to_owned()) });
    let edits = match specs.add(&text) {
        Err(why) => {
            assert!(!why.is_empty());
            Edits::default()
        }
        Ok(()) => {
            specs.of_gpus(&gpus[..1]).or_else(|_| specs.of_gpus(&gpus[1..])).unwrap_or_default()
        }
    };
    let sent = serde_json::to_string(&edits).expect("edits are JSON");
    assert_eq!(serde_json::from_str::<Edits>(&sent).ok().as_ref(), Some(&edits));
    let numbers = |_: &std::path::Path| Ok(Numbers { block: false, major: 195, minor: 0 });
    let Ok(edits) = edits.with_numbers(numbers) else { return };
    let bundle = Bundle::read(&text).ok();
    let (root, image) = match &bundle {
        Some(bundle) => (bundle.root.display().to_string(), bundle.environment.clone()),
        None => ("rootfs".to_owned(), Vec::new()),
    };
    assert!(!root.split('/').any(|part| part == ".."), "{root}");
    configured(&edits, &root, &oci::environment(&image, &edits, []));
}

fn configured(edits: &Edits, root: &str, environment: &BTreeMap<String, String>) {
    let user = UnixUser {
        name: "lee".to_owned(),
        uid: 1000,
        gid: 1000,
        groups: vec![1000],
        home: "/home/lee".to_owned(),
        shell: "/bin/sh".to_owned(),
    };
    let argv = ["true".to_owned()];
    let mounts = [];
    let config = oci::config(&Container {
        root,
        user: &user,
        argv: &argv,
        environment,
        directory: "/",
        mounts: &mounts,
        own_tmp: false,
        gpus: edits,
    });
    assert_eq!(config["root"]["path"].as_str(), Some(root));
    let text = config.to_string();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).ok(), Some(config));
    let _ = oci::has_last_hook(edits);
}
