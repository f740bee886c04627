//! Devices and shards that are refused before anything starts, by name.

use infermark_backend::{Backend, BackendError, DeviceId, Method, Precision, Request, SviSettings};
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::SviGpu;
use infermark_svi_sharded::SviSharded;

fn request(devices: &[&str], shards: usize) -> Request {
    Request {
        devices: devices.iter().map(|id| id.parse().unwrap()).collect(),
        shards,
        ..Request::new(Method::Svi(SviSettings::default()))
    }
}

fn refusal(request: &Request) -> String {
    let backend = SviSharded::over(SviCpu::new()).and(SviGpu::new());
    let error = backend.supports(request).unwrap_err();
    assert!(
        matches!(error, BackendError::Unsupported { backend, .. } if backend == infermark_svi_sharded::NAME),
        "{error:?}"
    );
    error.to_string()
}

#[test]
fn devices_that_do_not_go_together_are_named() {
    for (devices, shards, words) in [
        (
            vec!["cpu", "cuda:1"],
            2,
            "the devices cpu and cuda:1 in one run; give devices of one kind",
        ),
        (
            vec!["cuda", "vulkan"],
            2,
            "the devices cuda and vulkan in one run",
        ),
        (vec!["cpu", "cpu"], 2, "the device cpu twice in one run"),
        (vec!["cuda:77"], 2, "the device cuda:77, which is not here"),
    ] {
        let refused = refusal(&request(&devices, shards));
        assert!(refused.contains(words), "{refused}");
    }
}

/// Each engine serves what it serves without shards, whatever the others do.
#[test]
fn what_an_engine_does_not_serve_is_refused_in_the_backends_name() {
    let Some(device) = infermark_test_support::gpu(&SviGpu::new().devices()) else {
        return;
    };
    let on = |device: DeviceId, settings: SviSettings| Request {
        devices: vec![device],
        ..in_shards(settings)
    };
    let precise = SviSettings {
        precision: Precision::F64,
        ..SviSettings::default()
    };
    let many = SviSettings {
        particles: 17,
        ..SviSettings::default()
    };
    let backend = SviSharded::over(SviCpu::new()).and(SviGpu::new());
    assert_eq!(backend.supports(&on(DeviceId::CPU, precise.clone())), Ok(()));
    assert_eq!(backend.supports(&on(DeviceId::CPU, many.clone())), Ok(()));
    assert_eq!(backend.supports(&on(device, SviSettings::default())), Ok(()));
    assert!(refusal(&on(device, precise)).contains("precision f64"));
    assert!(refusal(&on(device, many)).contains("17 particles"));
    assert_eq!(
        backend.devices().len(),
        SviCpu::new().devices().len() + SviGpu::new().devices().len()
    );
}

fn in_shards(settings: SviSettings) -> Request {
    Request {
        shards: 2,
        ..Request::new(Method::Svi(settings))
    }
}

/// As many shards on each device.
#[test]
fn shards_are_spread_evenly_over_devices() {
    let Some(cards) = infermark_test_support::gpus(&SviGpu::new().devices()) else {
        return;
    };
    let two = Request {
        devices: cards[..2].to_vec(),
        ..request(&["cpu"], 3)
    };
    assert!(refusal(&two).contains("3 shards on 2 devices; give as many for each device"));
}
