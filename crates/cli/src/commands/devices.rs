//! `infermark devices`.

use crate::backends;
use crate::exit::Exit;
use clap::Args;
use std::io::Write;

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub struct DevicesArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DevicesArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let all: Vec<_> = backends::all()
                .iter()
                .flat_map(|backend| {
                    let name = backend.name();
                    backend
                        .devices()
                        .into_iter()
                        .map(move |device| serde_json::json!({ "backend": name, "device": device }))
                })
                .collect();
            serde_json::to_writer_pretty(&mut out, &all)?;
            writeln!(out)?;
            return Ok(Exit::Done);
        }
        for backend in backends::all() {
            for device in backend.devices() {
                let memory = match device.memory_bytes {
                    Some(bytes) => format!(", {:.1} GiB", bytes as f64 / (1u64 << 30) as f64),
                    None => String::new(),
                };
                writeln!(
                    out,
                    "{:<10} --device {:<8} {}{memory}",
                    backend.name(),
                    device.id,
                    device.name
                )?;
            }
        }
        Ok(Exit::Done)
    }
}
