//! The measured limits of a device: reading memory, the arithmetic of the rows in registers, and launches.

use super::layout::DeviceLimits;
use super::math::exp2_fast;
use cubecl::prelude::*;
use cubecl::server::Handle;
use infermark_backend::Limits;
use std::time::{Duration, Instant};

/// Threads of a cube.
const THREADS: u32 = 256;
/// Cubes: enough to fill a large card several times over.
const CUBES: u32 = 2048;
/// Vectors that a thread of [`read`] has under way at a time.
const UNROLLED: usize = 4;
/// How long a timed pass lasts at least: far longer than a launch and its answer.
const PASS: Duration = Duration::from_millis(50);
/// Timed passes; the best counts, as a limit is what the device can do.
const PASSES: usize = 3;
/// Bytes to read: beyond the caches of any card.
const READ_BYTES: u64 = 1 << 30;
/// Launches that are timed together, and round trips that are timed one by one.
const LAUNCHES: u32 = 1000;
const ROUND_TRIPS: usize = 50;

/// Sums a buffer, vector by vector.
#[cube(launch_unchecked)]
fn read(values: &Array<Vector<f32, Const<4>>>, out: &mut Array<f32>, vectors: u32) {
    let step = CUBE_COUNT as u32 * CUBE_DIM;
    let mut sum = Vector::<f32, Const<4>>::new(0.0f32);
    let mut i = ABSOLUTE_POS as u32;
    while i + comptime!(UNROLLED as u32 - 1) * step < vectors {
        #[unroll]
        for j in 0..UNROLLED {
            sum += values[(i + comptime!(j as u32) * step) as usize];
        }
        i += comptime!(UNROLLED as u32) * step;
    }
    out[ABSOLUTE_POS] = sum[0] + sum[1] + sum[2] + sum[3];
}

/// The arithmetic of the rows for each particle inside the clip bounds, with everything in registers: a rate,
/// its sum, its sum with the deviation, and its sum by period. The pass recovers what the first sum rounds
/// away besides, so that it cannot reach this.
#[cube(launch_unchecked)]
fn rows_in_registers(
    numbers: &Array<f32>,
    out: &mut Array<f32>,
    rows: u32,
    #[comptime] particles: usize,
    #[comptime] native_exp2: bool,
) {
    let mut slope = Array::<f32>::new(particles);
    let mut effect = Array::<f32>::new(particles);
    let mut sum = Array::<f32>::new(particles);
    let mut moment = Array::<f32>::new(particles);
    let mut by_period = Array::<f32>::new(particles);
    #[unroll]
    for k in 0..particles {
        slope[k] = numbers[k];
        effect[k] = numbers[k + particles];
        sum[k] = 0.0f32;
        moment[k] = 0.0f32;
        by_period[k] = 0.0f32;
    }
    let scale = numbers[2 * particles];
    // A deviation that the compiler cannot foresee, different from row to row.
    let mut deviation = f32::cast_from(UNIT_POS) * scale;
    for _ in 0..rows {
        #[unroll]
        for k in 0..particles {
            let r = exp2_fast(fma(slope[k], deviation, effect[k]), native_exp2);
            sum[k] += r;
            moment[k] = fma(r, deviation, moment[k]);
            by_period[k] = fma(r, scale, by_period[k]);
        }
        deviation = scale - deviation;
    }
    let mut all = 0.0f32;
    #[unroll]
    for k in 0..particles {
        all += sum[k] + moment[k] + by_period[k];
    }
    out[ABSOLUTE_POS] = all;
}

/// A launch that does next to nothing.
#[cube(launch_unchecked)]
fn touch(out: &mut Array<f32>, value: f32) {
    if ABSOLUTE_POS == 0 {
        out[0] = value;
    }
}

/// A client with the buffer that kernels answer in.
struct Bench<'c, R: Runtime> {
    client: &'c ComputeClient<R>,
    out: Handle,
    device: &'c str,
}

impl<R: Runtime> Bench<'_, R> {
    fn out(&self) -> ArrayArg<R> {
        // SAFETY: made of one number for each thread.
        unsafe { ArrayArg::from_raw_parts(self.out.clone(), (CUBES * THREADS) as usize) }
    }

    /// Waits for everything that was launched.
    fn wait(&self) -> Result<(), String> {
        self.client.flush().map_err(|e| format!("{e:?}"))?;
        cubecl::future::block_on(self.client.sync()).map_err(|e| format!("{e:?}"))?;
        infermark_gpu_devices::take_error(self.device).map_or(Ok(()), Err)
    }

    /// The best time of what `launch` launches, in seconds, and how much it did: the amount is doubled until a pass lasts
    /// long enough.
    fn best(&self, mut amount: u32, most: u32, launch: impl Fn(u32)) -> Result<(u32, f64), String> {
        let timed = |amount| {
            let begin = Instant::now();
            launch(amount);
            self.wait().map(|()| begin.elapsed())
        };
        // The first launch compiles.
        timed(amount)?;
        while timed(amount)? < PASS && amount < most {
            amount = amount.saturating_mul(2).min(most);
        }
        let mut best = f64::INFINITY;
        for _ in 0..PASSES {
            best = best.min(timed(amount)?.as_secs_f64());
        }
        Ok((amount, best))
    }

    fn read_bytes_per_second(&self, largest_buffer: u64, memory_bytes: Option<u64>) -> Result<f64, String> {
        let most = READ_BYTES
            .min(largest_buffer)
            .min(memory_bytes.map_or(u64::MAX, |m| m / 8));
        // Every thread reads as many vectors: what is left over is not read, and not counted.
        let a_step = u64::from(CUBES * THREADS) * UNROLLED as u64 * 16;
        let bytes = (most / a_step).max(1) * a_step;
        let values = self.client.empty(bytes as usize);
        let vectors = (bytes / 16) as u32;
        let (passes, seconds) = self.best(1, 1 << 16, |passes| {
            for _ in 0..passes {
                // SAFETY: indices stay below `vectors`, the buffer's length; one number of `out` for each thread.
                unsafe {
                    read::launch_unchecked::<R>(
                        self.client,
                        CubeCount::Static(CUBES, 1, 1),
                        CubeDim::new_1d(THREADS),
                        ArrayArg::from_raw_parts(values.clone(), vectors as usize),
                        self.out(),
                        vectors,
                    );
                }
            }
        })?;
        Ok(bytes as f64 * f64::from(passes) / seconds)
    }

    fn row_particles_per_second(&self, particles: usize, native_exp2: bool) -> Result<f64, String> {
        // Rates between 2^-3 and 2^3.
        let mut numbers: Vec<f32> = (0..particles).map(|k| -1.5 - 0.1 * k as f32).collect();
        numbers.extend((0..particles).map(|k| 0.2 * k as f32 - 1.0));
        numbers.push(1e-3);
        let uploaded = self.client.create_from_slice(f32::as_bytes(&numbers));
        let (rows, seconds) = self.best(16, 1 << 20, |rows| {
            // SAFETY: 2K + 1 numbers are read, one of `out` is written by each thread.
            unsafe {
                rows_in_registers::launch_unchecked::<R>(
                    self.client,
                    CubeCount::Static(CUBES, 1, 1),
                    CubeDim::new_1d(THREADS),
                    ArrayArg::from_raw_parts(uploaded.clone(), numbers.len()),
                    self.out(),
                    rows,
                    particles,
                    native_exp2,
                );
            }
        })?;
        Ok(f64::from(rows) * f64::from(CUBES * THREADS) * particles as f64 / seconds)
    }

    fn touch(&self, value: f32) {
        // SAFETY: `out` has a first number.
        unsafe {
            touch::launch_unchecked::<R>(
                self.client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(32),
                self.out(),
                value,
            );
        }
    }

    /// Seconds from a launch to its answer, the median.
    fn round_trip_seconds(&self) -> Result<f64, String> {
        self.touch(0.0);
        self.wait()?;
        let mut seconds = Vec::with_capacity(ROUND_TRIPS);
        for i in 0..ROUND_TRIPS {
            let begin = Instant::now();
            self.touch(i as f32);
            self.wait()?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[ROUND_TRIPS / 2])
    }

    /// Seconds of a launch among many that depend on one another, the best of the passes.
    fn launch_seconds(&self) -> Result<f64, String> {
        let (launches, seconds) = self.best(LAUNCHES, LAUNCHES, |launches| {
            for i in 0..launches {
                self.touch(i as f32);
            }
        })?;
        Ok(seconds / f64::from(launches))
    }
}

/// Measures a device, for a run of so many particles.
///
/// # Errors
/// The device's message.
pub(crate) fn measure<R: Runtime>(
    client: &ComputeClient<R>,
    particles: usize,
    of: &DeviceLimits,
) -> Result<Limits, String> {
    client.memory_cleanup();
    let bench = Bench {
        client,
        out: client.empty((4 * CUBES * THREADS) as usize),
        device: &of.device,
    };
    let polynomial = bench.row_particles_per_second(particles, false)?;
    let native = bench.row_particles_per_second(particles, true)?;
    let measured = Limits {
        read_bytes_per_second: bench.read_bytes_per_second(of.largest_buffer, of.memory_bytes)?,
        row_particles_per_second: polynomial.max(native),
        native_exp2_ratio: native / polynomial,
        launch_seconds: bench.launch_seconds()?,
        round_trip_seconds: bench.round_trip_seconds()?,
    };
    drop(bench);
    client.memory_cleanup();
    Ok(measured)
}
