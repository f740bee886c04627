//! `infermark gpu-check`: a GPU checked in steps, each of which leaves one archive. What is measured runs in children of this
//! program, so that a driver's crash or hang ends a part and not the check.

mod archive;
mod child;
mod excerpts;
mod nsight;
mod parts;
mod step_run;
mod summary;
mod system;

use super::{devices, interrupt_or_end};
use crate::exit::Exit;
use crate::output::notify;
use anyhow::{Context, bail, ensure};
use child::{Children, RunningChild};
use clap::{Args, ValueEnum};
use infermark::{Device, DeviceId, registry};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use step_run::{StepOutcome, StepRun};

/// The steps, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Where an iteration goes, how fast svi-gpu is, what Nsight Compute reports of its kernels, and how fast laplace-gpu is.
    Speed,
    /// NumPyro on the same card and panels, in turns with svi-gpu.
    Peer,
    /// All tests of svi-gpu, of laplace-gpu, then those of svi-tensor.
    Tests,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Speed => "speed",
            Step::Peer => "peer",
            Step::Tests => "tests",
        }
    }
}

/// Arguments of `gpu-check`.
#[derive(Debug, Args)]
#[command(
    after_help = "A step writes one file, <date>-<card>-<step>.tar.gz, which is up to date after each of its parts, and ends with a \
                  summary on stdout. The peer needs a Python with numpyro, optax, pandas, pyarrow and a JAX that sees the GPU: \
                  $PYTHON or python3. The peer and the test binaries lie next to the program where scripts/gpu_check.sh built \
                  it.\n\n\
                  EXIT CODES: 0 all that ran passed, 1 something failed or was cut short, 2 usage, or nothing to check with or \
                  on, 3 interrupted. What the machine lacks (NumPyro, Nsight Compute) is reported and is no failure; a size \
                  that does not fit the card's memory is one."
)]
pub struct GpuCheckArguments {
    /// This step alone; by default all three, in this order.
    #[arg(long, value_name = "STEP")]
    only: Option<Step>,
    /// Device: gpu (the first card), or as `infermark devices` lists them.
    #[arg(long, value_name = "DEVICE", default_value = "gpu", value_parser = card)]
    device: Device,
    /// Minutes within which each step ends; what takes longer is cut short.
    #[arg(long, value_name = "M", default_value = "9")]
    minutes: NonZeroUsize,
    /// Sizes, in products; by default 10000,100000,1000000 for speed, and 10000,100000 for the peer.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    products: Vec<NonZeroUsize>,
    /// 1,000 products and short repeats.
    #[arg(long)]
    quick: bool,
    /// Folder for the results.
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
}

/// What the steps of a check share.
struct Check {
    /// This program.
    program: PathBuf,
    /// Its folder, where test binaries (`tests`), their data (`data`), the peer (`peers`) and `BUILD` are.
    folder: PathBuf,
    device: Device,
    /// Whether the device computes in double precision.
    has_doubles: bool,
    /// Sizes; none where those of the step are meant.
    products: Vec<usize>,
    quick: bool,
    /// Time of a step.
    limit: Duration,
    /// Folder for the archives.
    out: PathBuf,
    /// Folder for everything until it is archived.
    temporary: PathBuf,
    children: Children,
}

impl GpuCheckArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        for tool in ["tar", "gzip"] {
            ensure!(
                on_the_path(tool).is_some(),
                "no {tool} on the PATH, which packs the results"
            );
        }
        ensure!(
            self.products.is_sorted_by(|one, next| one < next),
            "--products: give the sizes in ascending order, each once"
        );
        let program = std::env::current_exe()
            .context("cannot find this program, to start parts of the check with it")?;
        let folder = program.parent().context("this program has no folder")?.to_owned();
        let temporary = tempfile::Builder::new()
            .prefix("infermark-gpu-check-")
            .tempdir()?;
        let children = children(temporary.path());
        let check = Check {
            program,
            folder,
            has_doubles: devices_of("laplace-gpu")
                .iter()
                .any(|device| device.id == self.device.id),
            device: self.device,
            products: self.products.into_iter().map(NonZeroUsize::get).collect(),
            quick: self.quick,
            limit: Duration::from_secs((self.minutes.get() as u64).saturating_mul(60)),
            out: folder_for_results(&self.out)?,
            temporary: temporary.path().to_owned(),
            children,
        };
        let steps = match self.only {
            Some(step) => vec![step],
            None => Step::value_variants().to_vec(),
        };
        let mut all = StepOutcome::default();
        for step in steps {
            all = all.and(StepRun::carry_out(&check, step)?);
            if all.interrupted {
                break;
            }
        }
        if all.lost {
            notify(format_args!(
                "partial results are in {}",
                temporary.keep().display()
            ));
        }
        Ok(all.exit())
    }
}

/// Children that a signal ends; a second one ends this program at once, and the child with it.
fn children(temporary: &Path) -> Children {
    let running = RunningChild::default();
    let (last, temporary) = (running.clone(), temporary.to_owned());
    let interrupt = interrupt_or_end(
        || {},
        move || {
            last.kill();
            notify(format_args!("partial results are in {}", temporary.display()));
        },
    );
    Children::new(interrupt, running)
}

impl Check {
    /// The device's id, as text.
    fn device_name(&self) -> String {
        self.device.id.to_string()
    }

    /// The device's name, with its memory.
    fn card(&self) -> String {
        devices::name_and_memory(&self.device)
    }

    /// The sizes that were asked for, or those of the step.
    fn sizes(&self, of_step: &[usize]) -> Vec<usize> {
        match (&self.products[..], self.quick) {
            ([], true) => vec![1_000],
            ([], false) => of_step.to_vec(),
            (given, _) => given.to_vec(),
        }
    }

    /// This program with `arguments`.
    fn infermark(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        command.args(arguments);
        command
    }

    /// A program that is this one or starts it, and so looks for CUDA by itself.
    fn command(&self, program: &Path) -> Command {
        #[allow(unused_mut)] // Without CUDA there is nothing to set.
        let mut command = Command::new(program);
        #[cfg(feature = "cuda")]
        match infermark::users_cuda_path() {
            Some(path) => command.env("CUDA_PATH", path),
            None => command.env_remove("CUDA_PATH"),
        };
        command
    }
}

/// The folder for the results, which is created, and to which files can be written.
fn folder_for_results(path: &Path) -> anyhow::Result<PathBuf> {
    let made = std::fs::create_dir_all(path).and_then(|()| {
        tempfile::tempfile_in(path)?;
        path.canonicalize()
    });
    made.with_context(|| format!("the folder for the results cannot be written: {}", path.display()))
}

/// A program of the PATH.
fn on_the_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| {
            folder
                .join(program)
                .with_extension(std::env::consts::EXE_EXTENSION)
        })
        .find(|file| file.is_file())
}

fn devices_of(backend: &str) -> Vec<Device> {
    registry()
        .named(backend)
        .map(|backend| backend.devices())
        .unwrap_or_default()
}

/// A GPU by its name: `gpu` is the first card.
fn card(text: &str) -> anyhow::Result<Device> {
    chosen(text, &devices_of("svi-gpu"))
}

fn chosen(text: &str, here: &[Device]) -> anyhow::Result<Device> {
    let wanted = if text == "gpu" {
        here.iter().find(|device| !device.software)
    } else {
        let id: DeviceId = text.parse()?;
        here.iter().find(|device| device.id == id)
    };
    if let Some(device) = wanted {
        return Ok(device.clone());
    }
    let Some(first) = here.first() else {
        bail!("there is no GPU here (see `infermark devices`)");
    };
    if text == "gpu" {
        bail!(
            "there is no GPU here, only a software rasterizer (see `infermark devices`); --device {} checks it",
            first.id
        );
    }
    let ids: Vec<String> = here.iter().map(|device| device.id.to_string()).collect();
    bail!("{text} is no GPU that is here; there are: {}", ids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, software: bool) -> Device {
        Device {
            id: id.parse().unwrap(),
            name: format!("{id} of a test"),
            memory_bytes: None,
            driver: None,
            software,
        }
    }

    #[test]
    fn the_first_card_is_checked_and_software_only_when_named() {
        let software = || device("vulkan:1", true);
        let here = [device("cuda", false), device("vulkan", false), software()];
        let of = |text: &str, here: &[Device]| chosen(text, here).map(|device| device.id.to_string());
        assert_eq!(of("gpu", &here).unwrap(), "cuda");
        assert_eq!(of("vulkan:1", &here).unwrap(), "vulkan:1");
        let refusal = |text: &str, here: &[Device]| of(text, here).unwrap_err().to_string();
        assert!(refusal("cuda:1", &here).ends_with("there are: cuda, vulkan, vulkan:1"));
        assert!(refusal("cpu", &here).starts_with("cpu is no GPU"));
        assert!(refusal("gpu", &[software()]).contains("--device vulkan:1 checks it"));
        assert!(refusal("gpu", &[]).starts_with("there is no GPU here"));
        assert!(refusal("tpu", &here).contains("tpu"));
    }
}
