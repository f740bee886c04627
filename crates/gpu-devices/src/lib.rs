//! Finding and opening GPUs.
//!
//! Nothing here panics, whatever drivers are missing: libraries are probed before they are used, and adapters
//! are counted before one is taken. Adapters are found once per process, because the Vulkan loader may crash
//! when instances are created on several threads at once.

// Without a runtime there are no devices, and the code for them is unreachable.
#![cfg_attr(
    not(any(feature = "cuda", feature = "wgpu")),
    allow(dead_code, unreachable_code, unused_imports, unused_variables)
)]

#[cfg(feature = "cuda")]
mod toolkit;

#[cfg(feature = "cuda")]
pub use toolkit::{Missing, choose_header, users_cuda_path};

use infermark_backend::{BackendError, Device, DeviceId, DeviceKind};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A device that a run can use, with the properties that its kernels need.
#[derive(Debug, Clone)]
pub struct GpuDevice {
    /// Its description for the backend trait.
    pub device: Device,
    /// Largest number of bytes of a buffer.
    pub largest_buffer: u64,
    /// Whether kernels can compute in double precision. All CUDA devices can, though CubeCL 0.10 does not
    /// list it.
    pub has_doubles: bool,
    /// The runtime that reaches it.
    pub runtime: DeviceRuntime,
}

/// The runtime of a device.
#[derive(Debug, Clone)]
pub enum DeviceRuntime {
    /// CUDA, with its number among CUDA's devices.
    #[cfg(feature = "cuda")]
    Cuda(usize),
    /// wgpu.
    #[cfg(feature = "wgpu")]
    Wgpu(wgpu::Adapter, wgpu::Instance),
}

/// All GPUs, found at the first call: CUDA's, then Vulkan's or Metal's.
pub fn found() -> &'static [GpuDevice] {
    static FOUND: OnceLock<Vec<GpuDevice>> = OnceLock::new();
    FOUND.get_or_init(|| {
        #[allow(unused_mut)] // Without features nothing is added.
        let mut all = Vec::new();
        #[cfg(feature = "cuda")]
        all.extend(cuda::found());
        #[cfg(feature = "wgpu")]
        all.extend(graphics::found());
        all
    })
}

/// What CUDA lacks on this machine; `None` if it is ready.
#[cfg(feature = "cuda")]
pub fn missing_of_cuda() -> Option<Missing> {
    toolkit::is_ready().err()
}

/// Why there can be no device of an id's kind.
fn missing(id: DeviceId) -> Option<String> {
    #[cfg(feature = "cuda")]
    if id.kind == DeviceKind::Cuda {
        return missing_of_cuda().map(|missing| missing.to_string());
    }
    None
}

/// The device with an id, for a `backend`.
///
/// # Errors
/// [`BackendError::Unsupported`] names the backend and the missing device.
pub fn named(id: DeviceId, backend: &'static str) -> Result<&'static GpuDevice, BackendError> {
    found()
        .iter()
        .find(|f| f.device.id == id)
        .ok_or_else(|| BackendError::Unsupported {
            backend,
            what: match missing(id) {
                Some(reason) => format!("the device {id}, which is not here: {reason}").into(),
                None => format!("the device {id}, which is not here").into(),
            },
        })
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::*;
    use cudarc::driver::{result, sys};

    /// Every CUDA device; none without a driver, or without NVRTC, which compiles kernels at run time.
    pub(super) fn found() -> Vec<GpuDevice> {
        let is_ready = crate::toolkit::is_ready().is_ok();
        if !is_ready || cubecl::cuda::install::cuda_path().is_none() || result::init().is_err() {
            return Vec::new();
        }
        let count = result::device::get_count().unwrap_or(0);
        (0..count as usize).filter_map(described).collect()
    }

    fn described(index: usize) -> Option<GpuDevice> {
        let device = result::device::get(index as i32).ok()?;
        // SAFETY: `device` was just given out by the driver.
        let memory = unsafe { result::device::total_mem(device) }.ok()? as u64;
        let mut version = 0;
        // SAFETY: writes one number.
        let told = unsafe { sys::cuDriverGetVersion(&mut version) } == sys::CUresult::CUDA_SUCCESS;
        Some(GpuDevice {
            device: Device {
                id: DeviceId {
                    kind: DeviceKind::Cuda,
                    index,
                },
                name: result::device::get_name(device).ok()?,
                memory_bytes: Some(memory),
                driver: told.then(|| format!("CUDA {}.{}", version / 1000, version % 1000 / 10)),
                software: false,
            },
            largest_buffer: memory,
            has_doubles: true,
            runtime: DeviceRuntime::Cuda(index),
        })
    }
}

#[cfg(feature = "wgpu")]
mod graphics {
    use super::*;

    #[cfg(target_os = "macos")]
    const BACKEND: (wgpu::Backends, DeviceKind) = (wgpu::Backends::METAL, DeviceKind::Metal);
    #[cfg(not(target_os = "macos"))]
    const BACKEND: (wgpu::Backends, DeviceKind) = (wgpu::Backends::VULKAN, DeviceKind::Vulkan);

    /// Every adapter: cards first, software rasterizers last, so that `vulkan` is a card if there is one.
    pub(super) fn found() -> Vec<GpuDevice> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: BACKEND.0,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let mut adapters = cubecl::future::block_on(instance.enumerate_adapters(BACKEND.0));
        adapters.sort_by_key(|a| match a.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        });
        adapters
            .into_iter()
            .enumerate()
            .map(|(index, adapter)| {
                let info = adapter.get_info();
                let software = info.device_type == wgpu::DeviceType::Cpu;
                let limits = adapter.limits();
                GpuDevice {
                    device: Device {
                        id: DeviceId {
                            kind: BACKEND.1,
                            index,
                        },
                        name: if software {
                            format!("{} (software, on the processor)", info.name)
                        } else {
                            info.name.clone()
                        },
                        memory_bytes: local_memory(&adapter),
                        driver: Some(format!("{} {}", info.driver, info.driver_info).trim().to_owned()),
                        software,
                    },
                    largest_buffer: limits.max_buffer_size.min(limits.max_storage_buffer_binding_size),
                    has_doubles: adapter.features().contains(wgpu::Features::SHADER_F64),
                    runtime: DeviceRuntime::Wgpu(adapter, instance.clone()),
                }
            })
            .collect()
    }

    /// Bytes of the device's own memory.
    #[cfg(not(target_os = "macos"))]
    fn local_memory(adapter: &wgpu::Adapter) -> Option<u64> {
        // SAFETY: the adapter is only read, and outlives the guard.
        let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
        let instance = adapter.shared_instance().raw_instance();
        // SAFETY: the physical device belongs to this instance.
        let memory = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
        /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
        const DEVICE_LOCAL: u32 = 1;
        let heaps = &memory.memory_heaps[..memory.memory_heap_count as usize];
        Some(
            heaps
                .iter()
                .filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0)
                .map(|heap| heap.size)
                .sum(),
        )
    }

    /// Metal reports no size.
    #[cfg(target_os = "macos")]
    fn local_memory(_: &wgpu::Adapter) -> Option<u64> {
        None
    }
}

/// The first uncaptured error of each device, such as a failed buffer allocation.
static UNCAPTURED_ERRORS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

/// The first uncaptured error of a device's driver (by its id, as text) since the last call of this function:
/// results computed after it are not reliable.
pub fn take_error(device: &str) -> Option<String> {
    let mut told = UNCAPTURED_ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    told.as_mut()?.remove(device)
}

/// Opens wgpu's device with an id, once per process for every id.
///
/// # Errors
/// [`BackendError::Device`] when the driver lacks what the kernels need.
#[cfg(feature = "wgpu")]
pub fn open_wgpu(
    id: DeviceId,
    adapter: &wgpu::Adapter,
    instance: &wgpu::Instance,
) -> Result<cubecl::wgpu::WgpuDevice, BackendError> {
    use cubecl::wgpu::{RuntimeOptions, WgpuDevice, WgpuSetup, init_device};
    use std::sync::Arc;

    static OPEN: Mutex<Option<HashMap<DeviceId, WgpuDevice>>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    if let Some(device) = open.get(&id) {
        return Ok(device.clone());
    }
    let failed = |reason: String| BackendError::Device {
        device: id.to_string(),
        reason,
    };
    #[cfg(target_os = "macos")]
    let (pair, backend) = (
        Some(cubecl::future::block_on(
            cubecl::wgpu::metal::request_metal_device(adapter),
        )),
        wgpu::Backend::Metal,
    );
    #[cfg(not(target_os = "macos"))]
    let (pair, backend) = (
        cubecl::future::block_on(cubecl::wgpu::vulkan::request_vulkan_device(adapter)),
        wgpu::Backend::Vulkan,
    );
    let (device, queue) = pair.ok_or_else(|| {
        failed("the driver lacks what the kernels need (Vulkan memory model and buffer addresses)".into())
    })?;
    // The default handler panics on a thread that nobody watches.
    let of = id.to_string();
    device.on_uncaptured_error(Arc::new(move |error| {
        let mut told = UNCAPTURED_ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert_default()
            .entry(of.clone())
            .or_insert_with(|| error.to_string());
    }));
    let setup = WgpuSetup {
        instance: instance.clone(),
        adapter: adapter.clone(),
        device,
        queue,
        backend,
    };
    // Each launch writes its arguments to the queue; from 64 writes on a submission waits for the device.
    let options = RuntimeOptions {
        tasks_max: 48,
        ..RuntimeOptions::default()
    };
    let device = init_device(setup, options);
    open.insert(id, device.clone());
    Ok(device)
}
