//! The arithmetic of the kernels on an available device, against double precision.

use super::math::{exp2, ln, normals, softplus};
use super::two_float::{Barrier, Two, add, exp2_two, multiply, two_product, two_sum};
use crate::SviGpu;
use crate::backend::MachineSetup;
use cubecl::prelude::*;
use infermark_gpu_devices::{self as devices, DeviceRuntime};
use infermark_model::Parameterization;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_svi::{Chart, NoiseSource};
use infermark_test_support::iterations::{Form, svi_request};
use infermark_test_support::random_panel;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Results of a probe for each pair of numbers.
const WIDTH: usize = 18;

#[cube(launch_unchecked)]
fn probe(x: &Array<f32>, y: &Array<f32>, out: &mut Array<f32>, zero: u32, #[comptime] needed: bool) {
    let i = ABSOLUTE_POS;
    if i < x.len() {
        let barrier = Barrier { zero, needed };
        let (a, b) = (x[i], y[i]);
        let to = i * WIDTH;
        let sum = two_sum(a, b, barrier);
        out[to] = sum.hi;
        out[to + 1] = sum.lo;
        let product = two_product(a, b, barrier);
        out[to + 2] = product.hi;
        out[to + 3] = product.lo;
        let both = add(sum, product, barrier);
        out[to + 4] = both.hi;
        out[to + 5] = both.lo;
        let square = multiply(sum, sum, barrier);
        out[to + 6] = square.hi;
        out[to + 7] = square.lo;
        let power = exp2_two(
            Two {
                hi: a,
                lo: a * 2.0e-8f32,
            },
            barrier,
        );
        out[to + 8] = power.hi;
        out[to + 9] = power.lo;
        out[to + 10] = exp2(a);
        out[to + 11] = ln(a.abs());
        let (sigma, slope) = softplus(b);
        out[to + 12] = sigma;
        out[to + 13] = slope;
        let (n0, n1, n2, n3) = normals(i as u32, 1u32, 77u32, 5u32, 9u32);
        out[to + 14] = n0;
        out[to + 15] = n1;
        out[to + 16] = n2;
        out[to + 17] = n3;
    }
}

fn run<R: Runtime>(client: &ComputeClient<R>, needed: bool, x: &[f32], y: &[f32]) -> Vec<f32> {
    let upload = |values: &[f32]| client.create_from_slice(f32::as_bytes(values));
    let (a, b, out) = (upload(x), upload(y), upload(&vec![0.0; x.len() * WIDTH]));
    // SAFETY: lengths are those of the buffers.
    unsafe {
        probe::launch_unchecked::<R>(
            client,
            CubeCount::Static(x.len().div_ceil(64) as u32, 1, 1),
            CubeDim::new_1d(64),
            ArrayArg::from_raw_parts(a, x.len()),
            ArrayArg::from_raw_parts(b, y.len()),
            ArrayArg::from_raw_parts(out.clone(), x.len() * WIDTH),
            0,
            needed,
        );
    }
    client.flush().unwrap();
    f32::from_bytes(&client.read_one(out).unwrap()).to_vec()
}

#[test]
fn arithmetic_survives_the_compiler() {
    let here: Vec<_> = devices::found().iter().map(|f| f.device.clone()).collect();
    let Some(id) = infermark_test_support::gpu(&here) else {
        return;
    };
    let found = devices::named(id, crate::NAME).unwrap();
    let mut rng = StdRng::seed_from_u64(8);
    let n = 2000;
    let x: Vec<f32> = (0..n).map(|_| rng.random_range(-30.0f32..30.0)).collect();
    // Orders from far below to far above.
    let y: Vec<f32> = (0..n)
        .map(|_| rng.random_range(-1.0f32..1.0) * f32::powi(2.0, rng.random_range(-20..12)))
        .collect();
    let out = match &found.runtime {
        #[cfg(feature = "cuda")]
        DeviceRuntime::Cuda(index) => run(
            &cubecl::cuda::CudaRuntime::client(&cubecl::cuda::CudaDevice::new(*index)),
            // As a run has it there.
            false,
            &x,
            &y,
        ),
        #[cfg(feature = "wgpu")]
        DeviceRuntime::Wgpu(adapter, instance) => {
            let device = devices::open_wgpu(found.device.id, adapter, instance).unwrap();
            run(&cubecl::wgpu::WgpuRuntime::client(&device), true, &x, &y)
        }
    };
    let near = |found: f64, expected: f64, relative: f64, what: &str| {
        let off = (found - expected).abs();
        assert!(
            off <= relative * expected.abs().max(1e-30),
            "{what}: {found} {expected}"
        );
    };
    for i in 0..n {
        let (a, b) = (f64::from(x[i]), f64::from(y[i]));
        let at = |k: usize| f64::from(out[i * WIDTH + k]);
        let pair = |k: usize| at(k) + at(k + 1);
        // Error-free: equal, not near.
        assert_eq!(pair(0), a + b, "two_sum of {a} {b}");
        assert_eq!(pair(2), a * b, "two_product of {a} {b}");
        let scale = (a + b).abs().max((a * b).abs());
        assert!(
            (pair(4) - (a + b + a * b)).abs() <= 1e-13 * scale,
            "add of {a} {b}"
        );
        near(pair(6), (a + b) * (a + b), 1e-13, "multiply");
        let fine = a + f64::from(x[i] * 2.0e-8);
        near(pair(8), fine.exp2(), 2e-9, "exp2_two");
        near(at(10), a.exp2(), 3e-7, "exp2");
        assert!(
            (at(11) - a.abs().ln()).abs() < 3e-7 * a.abs().ln().abs().max(0.3),
            "ln {a}"
        );
        // The exponential's argument is rounded, in proportion to its size.
        let rounded = 5e-7 * (1.0 + b.abs());
        near(at(12), infermark_model::guide::softplus(b), rounded, "softplus");
        near(at(13), infermark_model::guide::sigmoid(b), rounded, "sigmoid");
        let stream = Stream {
            seed: 5 + (9 << 32),
            iteration: 77,
        };
        for (k, expected) in stream.normals(i as u64, 1).iter().enumerate() {
            assert!(
                (at(14 + k) - f64::from(*expected)).abs() < 1e-5,
                "normal {k} of {i}"
            );
        }
    }
}

/// After its first iterations, what is timed makes steps of rate zero.
#[test]
fn a_profile_moves_nothing_while_it_times() {
    let here: Vec<_> = devices::found().iter().map(|f| f.device.clone()).collect();
    let Some(id) = infermark_test_support::gpu(&here) else {
        return;
    };
    let panel = random_panel(&mut StdRng::seed_from_u64(2), 20, 2, 12, 0.0, 30);
    for form in [Parameterization::Centered.into(), Form::ORTHOGONAL] {
        let request = svi_request(id, form, 1, Objective::Elbo);
        let chart = Chart::of(&panel, &request);
        let guide = chart.start(&panel, &request);
        let noise = NoiseSource::Philox { seed: 3 };
        let mut machine = SviGpu::new()
            .machine(MachineSetup::whole(&panel, &request, &chart, &guide, noise))
            .unwrap();
        machine.prepare(&guide).unwrap();
        machine.profile().unwrap();
        let first = machine.guide().unwrap();
        assert_ne!(first, guide);
        machine.profile().unwrap();
        assert_eq!(machine.guide().unwrap(), first);
    }
}
