//! `infermark devices`.

use crate::exit::Exit;
use crate::output::{notify, print};
use clap::Args;
use infermark::{Device, registry};

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub struct DevicesArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DevicesArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        if self.json {
            let all: Vec<_> = registry()
                .all()
                .iter()
                .flat_map(|backend| {
                    let name = backend.name();
                    backend
                        .devices()
                        .into_iter()
                        .map(move |device| serde_json::json!({ "backend": name, "device": device }))
                })
                .collect();
            let text = serde_json::to_string_pretty(&all)?;
            print(|out| writeln!(out, "{text}"))?;
            return Ok(Exit::Done);
        }
        print(|out| out.write_all(listing().as_bytes()))?;
        for missing in missing() {
            notify(missing);
        }
        Ok(Exit::Done)
    }
}

/// A line for each device of each backend.
pub(super) fn listing() -> String {
    let mut text = String::new();
    for backend in registry().all() {
        for device in backend.devices() {
            text += &format!(
                "{:<17} --device {:<8} {}\n",
                backend.name(),
                device.id,
                name_and_memory(&device)
            );
        }
    }
    text
}

/// What is missing for a GPU, one sentence each.
pub(super) fn missing() -> Vec<String> {
    let mut sentences = Vec::new();
    let is_none = registry().gpus().is_empty();
    if is_none {
        sentences.push("no GPU: neither CUDA nor a Vulkan or Metal device was found".to_owned());
    }
    // Users with a card but no driver for it learn of that from the line above.
    #[cfg(feature = "cuda")]
    if let Some(missing) = infermark::missing_of_cuda()
        && (is_none || missing != infermark::Missing::Driver)
    {
        sentences.push(missing.to_string());
    }
    sentences
}

/// `NVIDIA H200, 139.8 GiB`.
pub(super) fn name_and_memory(device: &Device) -> String {
    match device.memory_bytes {
        Some(bytes) => format!("{}, {:.1} GiB", device.name, bytes as f64 / (1u64 << 30) as f64),
        None => device.name.clone(),
    }
}
