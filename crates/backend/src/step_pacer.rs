//! How many steps to ask of a run at a time.

use crate::Run;
use std::time::Duration;

/// Draws per chain in a piece of a run of several chains, once the run's pace is known. A chain that has made
/// its draws waits about half a draw for the others: with few draws per piece, that is a large fraction.
const DRAWS_A_CHAIN: u64 = 4;

/// Sizes of the pieces in which a run is advanced: grown or shrunk until a piece takes about the desired
/// time.
///
/// Pieces are multiples of the run's width ([`Run::width`]), so that all chains of a sampler have work.
/// However long its draws take, a sampler of several chains is asked for at least four draws of each; an
/// interrupt takes effect within a draw.
#[derive(Debug, Clone, Copy)]
pub struct StepPacer {
    width: u64,
    steps: u64,
    lasting: Duration,
}

impl StepPacer {
    /// Pieces of `run` that each take about the time `lasting`; the first is as small as possible.
    pub fn of(run: &dyn Run, lasting: Duration) -> Self {
        let width = run.width().max(1);
        StepPacer {
            width,
            steps: width,
            lasting,
        }
    }

    /// Steps of the next piece.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Steps of the next piece, at most `most`, but at least one per chain.
    pub fn steps_of_at_most(&self, most: u64) -> u64 {
        self.whole(self.steps.min(most))
    }

    /// Records how long the last piece took; the next is between half and twice as large.
    pub fn took(&mut self, elapsed: Duration) {
        let ratio = self.lasting.as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
        let wanted = (self.steps as f64 * ratio.clamp(0.5, 2.0)).round() as u64;
        let least = if self.width > 1 {
            DRAWS_A_CHAIN * self.width
        } else {
            1
        };
        self.steps = self.whole(wanted.max(least));
    }

    fn whole(&self, steps: u64) -> u64 {
        (steps - steps % self.width).max(self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(width: u64) -> StepPacer {
        StepPacer {
            width,
            steps: width,
            lasting: Duration::from_millis(200),
        }
    }

    #[test]
    fn pieces_approach_the_time_wished_for() {
        let mut pacer = pacer(1);
        for _ in 0..30 {
            // A step takes a millisecond.
            pacer.took(Duration::from_millis(pacer.steps()));
        }
        assert_eq!(pacer.steps(), 200);
        pacer.took(Duration::from_secs(60));
        assert_eq!(pacer.steps(), 100);
        for _ in 0..30 {
            pacer.took(Duration::from_secs(60));
        }
        assert_eq!(pacer.steps(), 1);
    }

    #[test]
    fn every_chain_has_draws_in_every_piece() {
        let mut pacer = pacer(3);
        assert_eq!(pacer.steps(), 3);
        for elapsed in [1, 30, 170, 90_000, 90_000, 90_000] {
            pacer.took(Duration::from_millis(elapsed));
            assert!(pacer.steps() >= 12 && pacer.steps().is_multiple_of(3));
        }
        assert_eq!(pacer.steps(), 12);
        assert_eq!(pacer.steps_of_at_most(8), 6);
        assert_eq!(pacer.steps_of_at_most(1), 3);
    }
}
