//! Devices that a backend can run on.

use infermark_processor::{InstructionSet, processor_name_with};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The host's CPU: all processors together are one device.
    Cpu,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// A GPU (or a software rasterizer) through Vulkan.
    Vulkan,
    /// An Apple GPU through Metal.
    Metal,
}

impl DeviceKind {
    const ALL: [(DeviceKind, &'static str); 4] = [
        (DeviceKind::Cpu, "cpu"),
        (DeviceKind::Cuda, "cuda"),
        (DeviceKind::Vulkan, "vulkan"),
        (DeviceKind::Metal, "metal"),
    ];

    /// The name in the command.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .expect("every kind is listed")
            .1
    }
}

/// A device by kind and number, written `cpu`, `cuda`, `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceId {
    /// The kind.
    pub kind: DeviceKind,
    /// Number among the devices of its kind, from 0.
    pub index: usize,
}

impl DeviceId {
    /// The host's CPU.
    pub const CPU: DeviceId = DeviceId {
        kind: DeviceKind::Cpu,
        index: 0,
    };
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => f.write_str(self.kind.name()),
            i => write!(f, "{}:{i}", self.kind.name()),
        }
    }
}

/// A device name that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no device '{0}'; give cpu, cuda, vulkan or metal, with :1, :2 .. for further ones")]
pub struct UnknownDevice(String);

impl FromStr for DeviceId {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let unknown = || UnknownDevice(text.to_owned());
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, index.parse().map_err(|_| unknown())?),
            None => (text, 0),
        };
        let (kind, _) = DeviceKind::ALL
            .iter()
            .find(|(_, n)| *n == name)
            .ok_or_else(unknown)?;
        if *kind == DeviceKind::Cpu && index > 0 {
            return Err(unknown());
        }
        Ok(DeviceId { kind: *kind, index })
    }
}

/// A device that is available on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The id by which it is requested.
    pub id: DeviceId,
    /// In plain words, for instance `2-core Intel Xeon, AVX-512`.
    pub name: String,
    /// Memory in bytes, where it is known.
    pub memory_bytes: Option<u64>,
    /// Driver or instruction set, where it is known.
    pub driver: Option<String>,
    /// Whether it is a software rasterizer, which runs on the CPU: correct, but slow.
    #[serde(default)]
    pub software: bool,
}

impl Device {
    /// The CPU, whose kernels use `set`: one device, however many cores there are.
    pub fn cpu(set: InstructionSet) -> Self {
        Device {
            id: DeviceId::CPU,
            name: processor_name_with(set),
            memory_bytes: infermark_memory::total_bytes(),
            driver: Some(set.to_string()),
            software: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_are_one_device() {
        let set = InstructionSet::Portable;
        let device = Device::cpu(set);
        assert_eq!(device.driver, Some(set.to_string()));
        assert!(device.name.ends_with(&set.to_string()), "{}", device.name);
        if cfg!(target_os = "linux") {
            assert!(device.memory_bytes > Some(1 << 20));
        }
    }

    #[test]
    fn names_are_read_back() {
        for text in ["cpu", "cuda", "cuda:1", "vulkan", "metal:3"] {
            assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), text);
        }
        for text in ["", "gpu0", "cuda:", "cuda:x", "cpu:1"] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }
}
