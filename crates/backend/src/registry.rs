//! Backends by name, method and device.

use crate::Backend;
use crate::device::{Device, DeviceId};
use crate::error::BackendError;
use crate::method_kind::MethodKind;
use crate::remedy::{Cause, Remedy};
use crate::request::Request;
use std::sync::Arc;

/// The backends that a program has. Look-ups by name, method or device use only what the backends declare of
/// themselves: another backend is another entry.
#[derive(Clone, Default)]
pub struct Registry {
    backends: Vec<Arc<dyn Backend>>,
}

impl Registry {
    /// A registry without backends.
    pub fn new() -> Self {
        Self::default()
    }

    /// The registry with `backend` as its last. The order is that of tables, and of preference where several backends
    /// serve a request.
    ///
    /// # Panics
    /// When it has a backend of that name already: their results could not be distinguished.
    #[must_use]
    pub fn with(mut self, backend: impl Backend + 'static) -> Self {
        let name = backend.name();
        assert!(self.named(name).is_none(), "there is a backend {name} already");
        self.backends.push(Arc::new(backend));
        self
    }

    /// The registry with `backend` as its first: in tables, speeds are compared with its own.
    ///
    /// # Panics
    /// When it has a backend of that name.
    #[must_use]
    pub fn with_first(self, backend: impl Backend + 'static) -> Self {
        let mut registry = Registry::new().with(backend);
        for other in self.backends {
            assert!(
                registry.named(other.name()).is_none(),
                "there is a backend {} already",
                other.name()
            );
            registry.backends.push(other);
        }
        registry
    }

    /// All backends, in their order.
    pub fn all(&self) -> &[Arc<dyn Backend>] {
        &self.backends
    }

    /// The backend with this name.
    pub fn named(&self, name: &str) -> Option<Arc<dyn Backend>> {
        self.backends
            .iter()
            .find(|backend| backend.name() == name)
            .cloned()
    }

    /// The available GPUs, each once, in the order in which the backends list them.
    pub fn gpus(&self) -> Vec<Device> {
        let mut gpus: Vec<Device> = Vec::new();
        for device in self.backends.iter().flat_map(|backend| backend.devices()) {
            if device.id != DeviceId::CPU && gpus.iter().all(|known| known.id != device.id) {
                gpus.push(device);
            }
        }
        gpus
    }

    /// The first backend that serves `request`, except references ([`Backend::is_reference`]).
    ///
    /// # Errors
    /// When none does: the reason of the one that comes closest, as [`Registry::check`] gives it.
    pub fn choose(&self, request: &Request) -> Result<Arc<dyn Backend>, BackendError> {
        request.validate()?;
        let candidates = || self.of_method(request.method.kind());
        if let Some(backend) = candidates().find(|backend| self.check(&***backend, request).is_ok()) {
            return Ok(backend.clone());
        }
        // One that takes as many devices and shards says what else is wrong with them.
        let nearest = candidates()
            .find(|backend| backend.capabilities().takes(request))
            .or_else(|| candidates().find(|backend| backend.capabilities().covers(&request.devices)))
            .or_else(|| candidates().next())
            .ok_or_else(|| {
                BackendError::request(format!(
                    "no backend of this program has the method {}",
                    request.method.name()
                ))
            })?;
        self.check(&**nearest, request).map(|()| nearest.clone())
    }

    /// Checks, before a panel is read, that `backend` serves `request` on available devices.
    ///
    /// # Errors
    /// What is not served, and which of the registry's backends serve it.
    pub fn check(&self, backend: &dyn Backend, request: &Request) -> Result<(), BackendError> {
        let here: Vec<DeviceId> = backend.devices().into_iter().map(|device| device.id).collect();
        if let Some(absent) = request.devices.iter().find(|device| !here.contains(device)) {
            let here: Vec<String> = here.iter().map(DeviceId::to_string).collect();
            return Err(BackendError::request(Cause::new(
                format!(
                    "{} cannot run on {absent}; devices: {}",
                    backend.name(),
                    here.join(", ")
                ),
                self.methods_on_gpus(backend),
            )));
        }
        match backend.supports(request) {
            Err(BackendError::Unsupported {
                backend: name,
                mut what,
            }) if !what.remedies.contains(&Remedy::CPU) && self.has_it_on_the_cpu(request) => {
                what.remedies.push(Remedy::CPU);
                Err(BackendError::Unsupported { backend: name, what })
            }
            found => found,
        }
    }

    /// The backends of a method, except references.
    fn of_method(&self, method: MethodKind) -> impl Iterator<Item = &Arc<dyn Backend>> {
        let is_of_it = move |backend: &&Arc<dyn Backend>| backend.method() == method;
        self.backends
            .iter()
            .filter(is_of_it)
            .filter(|backend| !backend.is_reference())
    }

    /// Whether a request that is refused on another device is served on the CPU.
    fn has_it_on_the_cpu(&self, request: &Request) -> bool {
        let there = Request {
            devices: vec![DeviceId::CPU],
            ..request.clone()
        };
        request.devices != there.devices
            && self
                .of_method(request.method.kind())
                .any(|backend| backend.supports(&there).is_ok())
    }

    /// The methods that run on GPUs, for a `backend` that does not.
    fn methods_on_gpus(&self, backend: &dyn Backend) -> Vec<Remedy> {
        if backend.capabilities().has_gpus() {
            return Vec::new();
        }
        let has_gpus = |method: &MethodKind| {
            self.of_method(*method)
                .any(|backend| backend.capabilities().has_gpus())
        };
        MethodKind::ALL
            .into_iter()
            .filter(has_gpus)
            .map(Remedy::method)
            .collect()
    }
}
