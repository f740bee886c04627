//! A card's side of an exchange: a stream, a buffer to send and one to receive.

use crate::NcclError;
use crate::library::Clique;
use cudarc::driver::DriverError;
use cudarc::driver::result::{
    ctx, device, event, init, malloc_sync, memcpy_dtoh_async, memcpy_htod_async, memory_free, primary_ctx,
    stream,
};
use cudarc::driver::sys::{CUcontext, CUdevice, CUdeviceptr, CUevent, CUevent_flags, CUresult, CUstream};

/// See the module. What it holds stays until the process ends unless [`Card::close`] is called: after a failure the card may still work
/// on it.
pub(crate) struct Card {
    number: usize,
    device: CUdevice,
    context: CUcontext,
    stream: CUstream,
    is_done: CUevent,
    /// Its numbers and those of all ranks, on the card and here.
    sent: Buffer,
    received: Buffer,
}

/// As many numbers on the card as here.
#[derive(Default)]
struct Buffer {
    on_card: CUdeviceptr,
    here: Vec<f64>,
}

// SAFETY: contexts, streams, events and memory of CUDA may be used from any thread.
unsafe impl Send for Card {}

/// How far a card is with its work.
pub(crate) enum Work {
    UnderWay,
    Done,
}

impl Card {
    /// Opens a CUDA device.
    ///
    /// # Errors
    /// When the driver is not here, or refuses.
    pub(crate) fn open(number: usize) -> Result<Self, NcclError> {
        // SAFETY: only asks whether the library can be loaded.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(NcclError::Driver);
        }
        let open = || -> Result<Self, DriverError> {
            init()?;
            let device = device::get(number as i32)?;
            // SAFETY: the device is one of the driver's; its context is released in `close`.
            let context = unsafe {
                let context = primary_ctx::retain(device)?;
                ctx::set_current(context)?;
                context
            };
            Ok(Card {
                number,
                device,
                context,
                stream: stream::create(stream::StreamKind::NonBlocking)?,
                is_done: event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
                sent: Buffer::default(),
                received: Buffer::default(),
            })
        };
        open().map_err(|error| refused(number, error))
    }

    /// Makes it the card of this thread.
    pub(crate) fn make_current(&self) -> Result<(), NcclError> {
        // SAFETY: the context is there until `close`, which consumes the card.
        unsafe { ctx::set_current(self.context) }.map_err(|error| refused(self.number, error))
    }

    /// Begins to gather `numbers` of every rank, through `clique`.
    pub(crate) fn begin_gather(
        &mut self,
        clique: &mut Clique,
        numbers: &[f64],
        size: usize,
    ) -> Result<(), NcclError> {
        self.make_current()?;
        let number = self.number;
        let card = |error| refused(number, error);
        self.sent.grow(numbers.len()).map_err(card)?;
        self.received.grow(numbers.len() * size).map_err(card)?;
        self.sent.here[..numbers.len()].copy_from_slice(numbers);
        // SAFETY: the buffers have as many numbers, on the card and here, and neither is freed or moved before the stream has done its work: until
        // `is_done` nothing else of this type is called, and after a failure they stay.
        unsafe {
            memcpy_htod_async(self.sent.on_card, &self.sent.here[..numbers.len()], self.stream)
                .map_err(card)?;
            clique.gather(
                self.sent.on_card as *const _,
                self.received.on_card as *mut _,
                numbers.len(),
                self.stream.cast(),
            )?;
            let here = &mut self.received.here[..numbers.len() * size];
            memcpy_dtoh_async(here, self.received.on_card, self.stream).map_err(card)?;
            event::record(self.is_done, self.stream).map_err(card)
        }
    }

    /// How far the work that was begun is.
    pub(crate) fn work(&self) -> Result<Work, NcclError> {
        // SAFETY: the event is there until `close`.
        match unsafe { event::query(self.is_done) } {
            Ok(()) => Ok(Work::Done),
            Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => Ok(Work::UnderWay),
            Err(error) => Err(refused(self.number, error)),
        }
    }

    /// What was gathered, `numbers` numbers of each rank in their order, once the work is done.
    pub(crate) fn gathered(&self, numbers: usize, size: usize) -> &[f64] {
        &self.received.here[..numbers * size]
    }

    /// Gives back what it holds, once its work is done.
    pub(crate) fn close(self) {
        // What cannot be given back goes with the process.
        let _ = self.make_current();
        // SAFETY: nothing is under way, and nothing is used again.
        unsafe {
            for buffer in [&self.sent, &self.received] {
                if buffer.on_card != 0 {
                    let _ = memory_free(buffer.on_card);
                }
            }
            let _ = event::destroy(self.is_done);
            let _ = stream::destroy(self.stream);
            let _ = primary_ctx::release(self.device);
        }
    }
}

impl Buffer {
    /// Makes room for `numbers` numbers on the current card; at least one, since NCCL takes no empty buffers.
    fn grow(&mut self, numbers: usize) -> Result<(), DriverError> {
        let numbers = numbers.max(1);
        if numbers <= self.here.len() {
            return Ok(());
        }
        // SAFETY: nothing is under way when an operation begins, so that the old buffer can be freed.
        unsafe {
            let grown = malloc_sync(numbers * size_of::<f64>())?;
            if self.on_card != 0 {
                memory_free(self.on_card)?;
            }
            self.on_card = grown;
        }
        self.here = vec![0.0; numbers];
        Ok(())
    }
}

fn refused(card: usize, error: DriverError) -> NcclError {
    NcclError::Card {
        card,
        reason: error.to_string(),
    }
}
