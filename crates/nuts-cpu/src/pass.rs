//! A chain's handle to the scheduler.

use crate::scheduler::{ChainScheduler, Shut};
use infermark_backend::Interrupt;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

/// A chain's handle to the scheduler, shared by its draws and its gradients.
pub(crate) struct Pass {
    scheduler: Arc<ChainScheduler>,
    chain: usize,
    interrupt: RefCell<Interrupt>,
    shut: Cell<bool>,
    gradients: Cell<u64>,
}

impl Pass {
    /// The handle of a chain that has not entered yet.
    pub(crate) fn new(scheduler: Arc<ChainScheduler>, chain: usize) -> Self {
        Pass {
            scheduler,
            chain,
            interrupt: RefCell::new(Interrupt::new()),
            shut: Cell::new(false),
            gradients: Cell::new(0),
        }
    }

    /// Waits until the chain may work.
    ///
    /// # Errors
    /// [`Shut`] when the run was dropped.
    pub(crate) fn enter(&self) -> Result<(), Shut> {
        match self.scheduler.enter(self.chain) {
            Ok(interrupt) => {
                *self.interrupt.borrow_mut() = interrupt;
                Ok(())
            }
            Err(shut) => {
                self.shut.set(true);
                Err(shut)
            }
        }
    }

    /// Whether the run was dropped.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.get()
    }

    /// Gradients so far.
    pub(crate) fn gradients(&self) -> u64 {
        self.gradients.get()
    }

    /// The time that the chain has worked since the last call.
    pub(crate) fn take_busy(&self) -> Duration {
        self.scheduler.take_busy(self.chain)
    }

    /// Reports to the scheduler that a draw is finished.
    pub(crate) fn finish_draw(&self) {
        self.scheduler.finish_draw(self.chain);
    }

    /// Must be called before every gradient, and counts it. Waits here, in the middle of a draw, while the
    /// run is interrupted.
    ///
    /// # Errors
    /// [`Shut`] when the run was dropped.
    pub(crate) fn before_gradient(&self) -> Result<(), Shut> {
        if self.interrupt.borrow().is_set() {
            self.scheduler.pause(self.chain);
            self.enter()?;
        }
        self.gradients.set(self.gradients.get() + 1);
        Ok(())
    }
}
