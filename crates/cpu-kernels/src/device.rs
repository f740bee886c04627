//! The machine's processors as a backend's device.

use crate::instruction_set::InstructionSet;
use crate::processor_name::{in_plain_words, model_name};
use infermark_backend::{BackendError, Device, DeviceId};

/// The processors, whose kernels use `set`: one device, however many there are.
pub fn cpu_device(set: InstructionSet) -> Device {
    Device {
        id: DeviceId::CPU,
        name: name_with(set),
        memory_bytes: infermark_memory::total_bytes(),
        driver: Some(set.to_string()),
        software: false,
    }
}

/// The processor in plain words, for instance `2-core Intel Xeon, AVX-512`.
pub fn device_name() -> String {
    name_with(InstructionSet::best())
}

fn name_with(set: InstructionSet) -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    in_plain_words(model_name().as_deref(), cores, set)
}

/// Refuses what `backend` cannot run on: any devices but the processors, once, and an instruction set asked for in
/// the environment that is not here. Returns the instruction set: `stated`, or the environment's.
///
/// # Errors
/// [`BackendError::Unsupported`] names the devices, [`BackendError::Request`] the instruction sets that are here.
pub fn check(
    backend: &'static str,
    devices: &[DeviceId],
    stated: Option<InstructionSet>,
) -> Result<InstructionSet, BackendError> {
    let unsupported = |what: String| BackendError::Unsupported { backend, what };
    match devices {
        [DeviceId::CPU] => {}
        [device] => return Err(unsupported(format!("the device {device}"))),
        devices => {
            return Err(unsupported(format!(
                "{} devices; the processors of a machine are one device, cpu",
                devices.len()
            )));
        }
    }
    match stated {
        Some(set) => Ok(set),
        None => InstructionSet::from_environment().map_err(|e| BackendError::Request(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_processors_once_are_served() {
        let set = InstructionSet::Portable;
        assert_eq!(check("b", &[DeviceId::CPU], Some(set)), Ok(set));
        let cuda: DeviceId = "cuda:1".parse().unwrap();
        for (devices, word) in [
            (vec![cuda], "cuda:1"),
            (vec![DeviceId::CPU, DeviceId::CPU], "2 devices"),
            (vec![], "0 devices"),
        ] {
            let error = check("b", &devices, Some(set)).unwrap_err();
            assert!(matches!(error, BackendError::Unsupported { .. }));
            assert!(error.to_string().contains(word), "{error}");
        }
        let device = cpu_device(set);
        assert_eq!(device.driver, Some(set.to_string()));
        assert!(device.name.ends_with(&set.to_string()), "{}", device.name);
        if cfg!(target_os = "linux") {
            assert!(device.memory_bytes > Some(1 << 20));
        }
    }
}
