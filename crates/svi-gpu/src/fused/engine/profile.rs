//! The parts of an iteration under the clock.

use super::{Engine, Machine};
use crate::profile::{BatchTime, LaunchTime};
use cubecl::prelude::*;
use infermark_backend::BackendError;
use std::time::Instant;

/// How long repeated launches last at least, in seconds: far longer than the wait for their end.
const PASS_SECONDS: f64 = 0.1;
/// Most repeats of a launch.
const MOST_REPEATS: u32 = 256;
/// Iterations before anything is timed, at most, and seconds after which there are enough of them: at the start values
/// many rows clip, which takes a path of its own.
const WARMUP: (u32, f64) = (1024, 1.0);
/// Timed passes; the best counts.
const PASSES: usize = 3;
/// Iterations between two readings.
const BATCHES: [u32; 4] = [1, 8, 64, 512];
/// A batch that would take longer is left out.
const MOST_SECONDS: f64 = 2.0;

impl<R: Runtime> Engine<R> {
    /// The launches alone, then complete iterations in batches.
    pub(super) fn measure(&mut self) -> Result<(Vec<LaunchTime>, Vec<BatchTime>), BackendError> {
        let begin = Instant::now();
        let mut done = 0;
        while done < WARMUP.0 && begin.elapsed().as_secs_f64() < WARMUP.1 {
            self.iterate(8)?;
            done += 8;
        }
        self.settle()?;
        // Launches that are repeated alone step down one and the same gradient: at rate zero they stay where they are.
        let adam = &mut self.plan.settings.optimizer;
        (adam.learning_rate, adam.learning_rate_floor) = (0.0, 0.0);
        self.step_pending = true;
        let products = self.time_launch(|engine| {
            engine.launch_products(false);
            Ok(())
        })?;
        let fold = self.time_launch(|engine| {
            engine.launch_fold();
            Ok(())
        })?;
        let hierarchy = self.time_launch(Self::advance_hierarchy)?;
        let launches = vec![
            LaunchTime {
                name: "products",
                seconds: products,
            },
            LaunchTime {
                name: "fold",
                seconds: fold,
            },
            LaunchTime {
                name: "hierarchy",
                seconds: hierarchy,
            },
        ];
        let mut batches = Vec::new();
        let mut expected = 0.0;
        for iterations in BATCHES {
            if expected * f64::from(iterations) > MOST_SECONDS {
                break;
            }
            let mut best = f64::INFINITY;
            for _ in 0..PASSES {
                let begin = Instant::now();
                self.iterate(iterations)?;
                best = best.min(begin.elapsed().as_secs_f64());
            }
            expected = best / f64::from(iterations);
            batches.push(BatchTime {
                iterations,
                seconds_per_iteration: expected,
            });
        }
        Ok((launches, batches))
    }

    /// Seconds of what `launch` launches, repeated.
    fn time_launch(
        &mut self,
        launch: impl Fn(&mut Self) -> Result<(), BackendError>,
    ) -> Result<f64, BackendError> {
        let mut timed = |repeats: u32| -> Result<f64, BackendError> {
            let begin = Instant::now();
            for _ in 0..repeats {
                launch(self)?;
            }
            self.read(&self.changing.log)?;
            Ok(begin.elapsed().as_secs_f64())
        };
        let mut repeats = 1;
        while timed(repeats)? < PASS_SECONDS && repeats < MOST_REPEATS {
            repeats *= 2;
        }
        let mut best = f64::INFINITY;
        for _ in 0..PASSES {
            best = best.min(timed(repeats)?);
        }
        Ok(best / f64::from(repeats))
    }
}
