//! Which engine serves a request, and which shard is on which device.

use crate::{NAME, SviSharded};
use infermark_backend::{
    Backend, BackendError, Capabilities, Cause, Device, DeviceId, MOST_SHARDS, MethodKind, Remedy, Request,
    Setting,
};
use infermark_svi::ShardEngine;
use std::ops::RangeInclusive;

/// Devices of a run: several have a shard each, or several shards.
const DEVICES: RangeInclusive<usize> = 1..=MOST_SHARDS;
const SHARDS: RangeInclusive<usize> = 2..=MOST_SHARDS;

/// What the engines serve together.
pub(crate) fn capabilities(engines: impl Iterator<Item = Capabilities>) -> Capabilities {
    engines
        .reduce(|all, more| Capabilities {
            device_kinds: union(all.device_kinds, more.device_kinds),
            likelihoods: union(all.likelihoods, more.likelihoods),
            parameterizations: union(all.parameterizations, more.parameterizations),
            precisions: union(all.precisions, more.precisions),
            cuts: union(all.cuts, more.cuts),
            uses_threads: all.uses_threads || more.uses_threads,
            ..all
        })
        .expect("there is an engine")
}

/// What an engine serves in shards.
pub(crate) fn sharded(engine: &dyn ShardEngine) -> Capabilities {
    Capabilities {
        devices_per_run: DEVICES,
        shards: SHARDS,
        // The units of a batch are those of one shard, and its rates would be those of all.
        mini_batches: false,
        cuts: engine.cuts(),
        ..engine.capabilities()
    }
}

/// The values of both. What neither has whole is made for the life of the program, as a backend is.
fn union<T: Copy + PartialEq>(a: &'static [T], b: &'static [T]) -> &'static [T] {
    let more: Vec<T> = b.iter().filter(|value| !a.contains(value)).copied().collect();
    if more.is_empty() {
        a
    } else if a.iter().all(|value| b.contains(value)) {
        b
    } else {
        Box::leak([a, &more].concat().into_boxed_slice())
    }
}

fn unsupported(what: String) -> BackendError {
    BackendError::Unsupported {
        backend: NAME,
        what: what.into(),
    }
}

impl SviSharded {
    /// The engine of a request's devices, and those devices.
    ///
    /// # Errors
    /// [`BackendError`] for what is not served, in this backend's name.
    pub(crate) fn placed(&self, request: &Request) -> Result<(&dyn ShardEngine, Vec<Device>), BackendError> {
        self.capabilities().check(NAME, MethodKind::Svi, request)?;
        let first = request.devices[0];
        if let Some(other) = request.devices.iter().find(|device| device.kind != first.kind) {
            return Err(unsupported(format!(
                "the devices {first} and {other} in one run; give devices of one kind"
            )));
        }
        let engine = self
            .engines
            .iter()
            .find(|engine| engine.capabilities().covers(&request.devices))
            .ok_or_else(|| unsupported(format!("the device {first}")))?;
        sharded(&**engine).check(NAME, MethodKind::Svi, request)?;
        for device in &request.devices {
            let on_device = of_shard(request, *device, request.threads);
            engine.supports(&on_device).map_err(in_own_name)?;
        }
        let devices = devices_of(&**engine, request)?;
        Ok((&**engine, devices))
    }
}

/// The devices of a request, of which each is there once.
fn devices_of(engine: &dyn ShardEngine, request: &Request) -> Result<Vec<Device>, BackendError> {
    let here = engine.devices();
    let mut devices: Vec<Device> = Vec::new();
    for id in &request.devices {
        if devices.iter().any(|device| device.id == *id) {
            return Err(BackendError::Unsupported {
                backend: NAME,
                what: Cause::new(
                    format!("the device {id} twice in one run"),
                    [Remedy::Raise(Setting::Shards)],
                ),
            });
        }
        let device = here.iter().find(|device| device.id == *id);
        let device = device.ok_or_else(|| unsupported(format!("the device {id}, which is not here")))?;
        devices.push(device.clone());
    }
    // Each computes the hierarchy for itself, and all must get the same bits.
    let first = &devices[0];
    if let Some(other) = devices.iter().find(|device| device.name != first.name) {
        return Err(unsupported(format!(
            "the devices {} ({}) and {} ({}) in one run; give devices of one model",
            first.id, first.name, other.id, other.name
        )));
    }
    if !request.shards.is_multiple_of(devices.len()) {
        return Err(unsupported(format!(
            "{} shards on {} devices; give as many for each device",
            request.shards,
            devices.len()
        )));
    }
    Ok(devices)
}

/// An engine's refusal in the name of this backend.
fn in_own_name(error: BackendError) -> BackendError {
    match error {
        BackendError::Unsupported { what, .. } => BackendError::Unsupported { backend: NAME, what },
        other => other,
    }
}

/// The request of a shard: its device and threads, without the other shards.
fn of_shard(request: &Request, device: DeviceId, threads: Option<usize>) -> Request {
    Request {
        devices: vec![device],
        shards: 1,
        threads,
        ..request.clone()
    }
}

/// The requests of all shards, in the order of their ranks; those on one device follow each other. A process shares its threads among
/// its shards, of which it has `here`. Where each process has one shard, its device is the one of its place on the machine, `own_device`.
pub(crate) fn requests(request: &Request, here: usize, own_device: Option<usize>) -> Vec<Request> {
    let threads = request.resolved_threads();
    let devices = &request.devices;
    let on_device = request.shards / devices.len();
    (0..request.shards)
        .map(|rank| {
            // The first ones take what is over.
            let own = threads / here + usize::from(rank % here < threads % here);
            let device = own_device.map_or(rank / on_device, |place| place % devices.len());
            of_shard(request, devices[device], Some(own.max(1)))
        })
        .collect()
}

/// The devices and their shards in words.
pub(crate) fn in_words(devices: &[Device], shards: usize) -> String {
    let name = &devices[0].name;
    match (devices.len(), shards / devices.len()) {
        (1, logical) => format!("{name}, {logical} logical shards"),
        (count, 1) => format!("{count} of {name}"),
        (count, logical) => format!("{count} of {name}, {logical} logical shards on each"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_backend::{DeviceKind, Method, SviSettings};
    use infermark_model::Cut;

    fn device(name: &str) -> Device {
        Device {
            id: DeviceId::CPU,
            name: name.into(),
            memory_bytes: None,
            driver: None,
            software: false,
        }
    }

    #[test]
    fn shards_are_spread_evenly() {
        let devices: Vec<DeviceId> = ["cuda", "cuda:1"].map(|id| id.parse().unwrap()).into();
        let request = Request {
            devices: devices.clone(),
            shards: 6,
            threads: Some(8),
            ..Request::new(Method::Svi(SviSettings::default()))
        };
        let placed = requests(&request, 6, None);
        let on: Vec<DeviceId> = placed.iter().map(|request| request.devices[0]).collect();
        assert_eq!(on, [[devices[0]; 3], [devices[1]; 3]].concat());
        // The second and the fourth process of a machine have its second device, whatever their ranks.
        for (place, device) in [(0, devices[0]), (1, devices[1]), (3, devices[1])] {
            let placed = requests(&request, 1, Some(place));
            assert!(placed.iter().all(|request| request.devices == [device]));
        }
        let threads: Vec<usize> = placed.iter().map(|request| request.threads.unwrap()).collect();
        assert_eq!(threads, [2, 2, 1, 1, 1, 1]);
        assert!(
            placed
                .iter()
                .all(|request| request.shards == 1 && request.devices.len() == 1)
        );
    }

    #[test]
    fn what_is_logical_is_called_so() {
        let words = |count: usize, shards| in_words(&vec![device("H100"); count], shards);
        assert_eq!(words(1, 2), "H100, 2 logical shards");
        assert_eq!(words(4, 4), "4 of H100");
        assert_eq!(words(2, 6), "2 of H100, 3 logical shards on each");
    }

    #[test]
    fn engines_serve_together_what_either_serves() {
        let by_row = Capabilities {
            cuts: &Cut::ALL,
            ..Capabilities::CPU
        };
        let all = capabilities([Capabilities::GPU, by_row].into_iter());
        let kinds = [
            DeviceKind::Cuda,
            DeviceKind::Vulkan,
            DeviceKind::Metal,
            DeviceKind::Cpu,
        ];
        assert_eq!(all.device_kinds, kinds);
        assert_eq!(all.cuts, Cut::ALL);
        assert_eq!(all.likelihoods, Capabilities::CPU.likelihoods);
        assert_eq!(all.precisions.len(), 2);
        assert!(all.uses_threads);
        assert_eq!(union(&[1, 2], &[2]), [1, 2]);
        assert_eq!(union(&[2], &[1, 2]), [1, 2]);
    }
}
