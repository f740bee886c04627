//! The machine's CPU as a backend's device.

use crate::instruction_set::InstructionSet;
use crate::processor_name::{in_plain_words, model_name};
use infermark_backend::{BackendError, Device, DeviceId};

/// The CPU, whose kernels use `set`: one device, however many processors there are.
pub fn cpu_device(set: InstructionSet) -> Device {
    Device {
        id: DeviceId::CPU,
        name: name_with(set),
        memory_bytes: infermark_memory::total_bytes(),
        driver: Some(set.to_string()),
        software: false,
    }
}

/// A description of the CPU, for instance `2-core Intel Xeon, AVX-512`.
pub fn device_name() -> String {
    name_with(InstructionSet::best())
}

fn name_with(set: InstructionSet) -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    in_plain_words(model_name().as_deref(), cores, set)
}

/// The instruction set of a backend's kernels: the `stated` one, or the environment's, or else the CPU's
/// best.
///
/// # Errors
/// [`BackendError::Request`] names the available instruction sets, if the environment requests another.
pub fn instruction_set(stated: Option<InstructionSet>) -> Result<InstructionSet, BackendError> {
    match stated {
        Some(set) => Ok(set),
        None => InstructionSet::from_environment().map_err(|e| BackendError::Request(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_are_one_device() {
        let set = InstructionSet::Portable;
        assert_eq!(instruction_set(Some(set)), Ok(set));
        let device = cpu_device(set);
        assert_eq!(device.driver, Some(set.to_string()));
        assert!(device.name.ends_with(&set.to_string()), "{}", device.name);
        if cfg!(target_os = "linux") {
            assert!(device.memory_bytes > Some(1 << 20));
        }
    }
}
