//! `infermark devices`.

use crate::exit::Exit;
use crate::output::{notify, print};
use clap::Args;
use infermark::registry;

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
        let mut text = String::new();
        for backend in registry().all() {
            for device in backend.devices() {
                let memory = match device.memory_bytes {
                    Some(bytes) => format!(", {:.1} GiB", bytes as f64 / (1u64 << 30) as f64),
                    None => String::new(),
                };
                text += &format!(
                    "{:<17} --device {:<8} {}{memory}\n",
                    backend.name(),
                    device.id,
                    device.name
                );
            }
        }
        print(|out| out.write_all(text.as_bytes()))?;
        let is_none = registry().gpus().is_empty();
        if is_none {
            notify("no GPU: neither CUDA nor a Vulkan or Metal device was found");
        }
        // Users with a card but no driver for it learn of that from the line above.
        #[cfg(feature = "cuda")]
        if let Some(missing) = infermark::missing_of_cuda()
            && (is_none || missing != infermark::Missing::Driver)
        {
            notify(format_args!("{missing}"));
        }
        Ok(Exit::Done)
    }
}
