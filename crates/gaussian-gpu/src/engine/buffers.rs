//! Buffers on the device.

use cubecl::bytes::Bytes;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// A buffer on the device.
#[derive(Clone)]
pub(super) struct Buffer {
    pub(super) handle: Handle,
    pub(super) len: usize,
}

impl Buffer {
    /// The buffer as a kernel's argument.
    pub(super) fn arg<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: `len` is the number of elements that the buffer was made of.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}

/// A buffer of these numbers. They are handed over: of a slice CubeCL 0.10 makes two copies.
pub(super) fn upload<R: Runtime, T: CubeElement + Send + Sync>(
    client: &ComputeClient<R>,
    values: Vec<T>,
) -> Buffer {
    let len = values.len();
    Buffer {
        handle: client.create(Bytes::from_elems(values)),
        len,
    }
}

/// A buffer of so many doubles, whose values have no meaning.
pub(super) fn empty<R: Runtime>(client: &ComputeClient<R>, len: usize) -> Buffer {
    Buffer {
        handle: client.empty(8 * len.max(1)),
        len: len.max(1),
    }
}

/// A large one that stays, without the slack of pooled pages.
pub(super) fn lasting<R: Runtime>(client: &ComputeClient<R>, len: usize) -> Result<Buffer, String> {
    client
        .memory_persistent_allocation((), |()| empty(client, len))
        .map_err(|error| format!("{error:?}"))
}
