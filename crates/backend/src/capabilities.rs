//! What a backend serves, whatever the panel.

use crate::device::{DeviceId, DeviceKind};
use crate::error::BackendError;
use crate::method_kind::MethodKind;
use crate::precision::Precision;
use crate::remedy::{Cause, Choice, Remedy};
use crate::request::{Method, Request};
use infermark_model::{Cut, Likelihood, Parameterization};
use std::ops::RangeInclusive;

/// What a backend serves, whatever the panel, so that it can be checked before one is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Kinds of devices that it runs on, whether or not one is available.
    pub device_kinds: &'static [DeviceKind],
    /// How many devices a run takes.
    pub devices_per_run: RangeInclusive<usize>,
    /// How many shards a run has.
    pub shards: RangeInclusive<usize>,
    /// How several shards may cut the panel.
    pub cuts: &'static [Cut],
    /// Whether it passes over mini-batches of products.
    pub mini_batches: bool,
    /// Distributions of the counts.
    pub likelihoods: &'static [Likelihood],
    /// Forms of the sites.
    pub parameterizations: &'static [Parameterization],
    /// Floating-point types of the passes over the panel.
    pub precisions: &'static [Precision],
    /// Whether a step uses [`Request::threads`] CPU threads; a backend whose device does all the work uses
    /// one, whatever was requested.
    pub uses_threads: bool,
}

impl Capabilities {
    /// A method on the CPU, in double precision.
    pub const CPU: Capabilities = Capabilities {
        device_kinds: &[DeviceKind::Cpu],
        devices_per_run: 1..=1,
        shards: 1..=1,
        cuts: &[Cut::Product],
        mini_batches: false,
        likelihoods: &[Likelihood::Poisson, Likelihood::NegativeBinomial],
        parameterizations: &[
            Parameterization::Centered,
            Parameterization::Learned,
            Parameterization::Noncentered,
        ],
        precisions: &[Precision::F64],
        uses_threads: true,
    };

    /// Poisson counts on one GPU, in single precision.
    pub const GPU: Capabilities = Capabilities {
        device_kinds: &[DeviceKind::Cuda, DeviceKind::Vulkan, DeviceKind::Metal],
        likelihoods: &[Likelihood::Poisson],
        precisions: &[Precision::F32],
        uses_threads: false,
        ..Capabilities::CPU
    };

    /// Whether it runs on each of these devices, judging by their kinds.
    pub fn covers(&self, devices: &[DeviceId]) -> bool {
        devices
            .iter()
            .all(|device| self.device_kinds.contains(&device.kind))
    }

    /// Whether it runs on the request's devices, judging by their kinds, and takes as many of them and as many shards.
    pub fn takes(&self, request: &Request) -> bool {
        self.covers(&request.devices)
            && self.devices_per_run.contains(&request.devices.len())
            && self.shards.contains(&request.shards)
    }

    /// Whether it runs on anything but the CPU.
    pub fn has_gpus(&self) -> bool {
        self.device_kinds.iter().any(|kind| *kind != DeviceKind::Cpu)
    }

    /// Checks that the settings of `request` are in range, and that `backend`, which implements `method`, serves them.
    ///
    /// # Errors
    /// [`BackendError::Request`] for a setting out of its range, [`BackendError::Unsupported`] for what is not served.
    pub fn check(
        &self,
        backend: &'static str,
        method: MethodKind,
        request: &Request,
    ) -> Result<(), BackendError> {
        request.validate()?;
        let refuse = |what: String| {
            Err(BackendError::Unsupported {
                backend,
                what: what.into(),
            })
        };
        if request.method.kind() != method {
            return refuse(format!("the method {}", request.method.name()));
        }
        for (what, count, served) in [
            ("device", request.devices.len(), &self.devices_per_run),
            ("shard", request.shards, &self.shards),
        ] {
            if served.contains(&count) {
                continue;
            }
            let (least, most) = (served.start(), served.end());
            let range = if least == most {
                format!("{most}")
            } else {
                format!("{least} to {most}")
            };
            let plural = if count == 1 { "" } else { "s" };
            return refuse(format!("{count} {what}{plural} in one run; give {range}"));
        }
        if let Some(device) = request.devices.iter().find(|device| !self.covers(&[**device])) {
            return refuse(format!("the device {device}"));
        }
        if !self.likelihoods.contains(&request.likelihood) {
            return refuse(format!("the {} likelihood", request.likelihood.name()));
        }
        if !self.parameterizations.contains(&request.parameterization) {
            return refuse(format!(
                "the {} parameterization",
                request.parameterization.name()
            ));
        }
        if request.shards > 1 && !self.cuts.contains(&request.cut) {
            let what = format!("shards that are cut by {}", request.cut.name());
            return match self.cuts {
                [only] => Err(BackendError::Unsupported {
                    backend,
                    what: Cause::new(what, [Remedy::Choose(Choice::Cut(*only))]),
                }),
                _ => refuse(what),
            };
        }
        if let Method::Svi(svi) = &request.method
            && svi.batch_products.is_some()
            && !self.mini_batches
        {
            return refuse("mini-batches".into());
        }
        let precision = request.method.precision();
        if !self.precisions.contains(&precision) {
            return refuse(format!("precision {}", precision.name()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NutsSettings;
    use crate::request::SviSettings;

    fn svi(precision: Precision, devices: &[&str]) -> Request {
        Request {
            devices: devices.iter().map(|name| name.parse().unwrap()).collect(),
            ..Request::new(Method::Svi(SviSettings {
                precision,
                ..SviSettings::default()
            }))
        }
    }

    #[test]
    fn what_is_not_served_is_named() {
        let refusal = |capabilities: &Capabilities, request: &Request| {
            let refused = capabilities.check("b", MethodKind::Svi, request);
            refused.err().map(|error| {
                assert!(matches!(error, BackendError::Unsupported { .. }));
                error.to_string()
            })
        };
        let (cpu, gpu) = (Capabilities::CPU, Capabilities::GPU);
        let several = Capabilities {
            devices_per_run: 2..=8,
            ..Capabilities::GPU
        };
        let sharded = Capabilities {
            shards: 2..=8,
            ..Capabilities::CPU
        };
        let fine = svi(Precision::F32, &["vulkan"]);
        assert_eq!(refusal(&gpu, &fine), None);
        assert_eq!(refusal(&cpu, &svi(Precision::F64, &["cpu"])), None);
        assert_eq!(refusal(&several, &svi(Precision::F32, &["cuda", "cuda:1"])), None);
        let nuts = Request::new(Method::Nuts(NutsSettings::default()));
        let counts = Request {
            likelihood: Likelihood::NegativeBinomial,
            ..fine.clone()
        };
        for (capabilities, request, word) in [
            (&cpu, svi(Precision::F32, &["cpu"]), "precision f32"),
            (&cpu, svi(Precision::F64, &["cuda:1"]), "the device cuda:1"),
            (
                &cpu,
                svi(Precision::F64, &["cpu", "cpu"]),
                "2 devices in one run; give 1",
            ),
            (&gpu, svi(Precision::F32, &["cpu"]), "the device cpu"),
            (&gpu, counts, "the negative-binomial likelihood"),
            (&several, fine, "1 device in one run; give 2 to 8"),
            (&cpu, nuts, "the method nuts"),
            (
                &sharded,
                Request {
                    cut: Cut::Row,
                    shards: 2,
                    ..svi(Precision::F64, &["cpu"])
                },
                "shards that are cut by row; choose the cut by product",
            ),
        ] {
            let refused = refusal(capabilities, &request).unwrap();
            assert!(refused.contains(word), "{refused}");
        }
        // Settings out of range are refused as such.
        let none = Request {
            devices: Vec::new(),
            ..svi(Precision::F64, &["cpu"])
        };
        assert!(matches!(
            cpu.check("b", MethodKind::Svi, &none),
            Err(BackendError::Request(_))
        ));
    }
}
