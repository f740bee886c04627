//! Observers of a benchmark, notified between the timed stretches, never within one.

/// Receives the progress of a benchmark, for instance to show it on the terminal.
pub trait Observer {
    /// A new phase begins, for instance `10000 products: parity of svi-cpu`.
    fn phase(&mut self, text: &str);

    /// The phase has done `done` of `total` parts.
    fn advanced(&mut self, done: u64, total: u64);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn phase(&mut self, _: &str) {}

    fn advanced(&mut self, _: u64, _: u64) {}
}
