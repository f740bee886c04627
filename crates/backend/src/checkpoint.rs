//! The state of a run, to go on from later.

use crate::error::BackendError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Name and version of the format of a state. Backends that share a format read each other's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateFormat {
    /// Its name.
    pub name: &'static str,
    /// Its version: raised when the state changes.
    pub version: u32,
}

/// The state of a run between two calls of [`Run::advance`](crate::Run::advance), from which
/// [`Backend::resume`](crate::Backend::resume) goes on, in another process as well. Panel and request are not in it: whoever
/// resumes gives them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Name of the backend that wrote it.
    pub backend: String,
    /// Name of the state's format.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Steps done.
    pub completed: u64,
    /// The state, in the format.
    pub state: Vec<u8>,
}

impl Checkpoint {
    /// The checkpoint of a run of `backend` after `completed` steps. Every bit of the state's numbers is kept.
    ///
    /// # Errors
    /// When the state cannot be written in this form.
    pub fn new(
        backend: &str,
        format: StateFormat,
        completed: u64,
        state: &impl Serialize,
    ) -> Result<Self, BackendError> {
        let state = postcard::to_allocvec(state)
            .map_err(|error| BackendError::request(format!("the state cannot be written: {error}")))?;
        Ok(Checkpoint {
            backend: backend.to_owned(),
            format: format.name.to_owned(),
            version: format.version,
            completed,
            state,
        })
    }

    /// The state, for the backend `reader`, which knows `format`.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] if the checkpoint is of another format, [`BackendError::Request`] if the state is not
    /// what the format says.
    pub fn state<T: DeserializeOwned>(
        &self,
        reader: &'static str,
        format: StateFormat,
    ) -> Result<T, BackendError> {
        if self.format != format.name || self.version != format.version {
            return Err(BackendError::Unsupported {
                backend: reader,
                what: format!(
                    "a checkpoint of the backend {} in the format {} {}; it reads {} {}",
                    self.backend, self.format, self.version, format.name, format.version
                )
                .into(),
            });
        }
        match postcard::take_from_bytes(&self.state) {
            Ok((state, [])) => Ok(state),
            Ok((_, rest)) => Err(Self::malformed(format!("{} bytes are left over", rest.len()))),
            Err(error) => Err(Self::malformed(error)),
        }
    }

    /// The error for a state that does not fit the run that is to go on from it.
    pub fn malformed(reason: impl std::fmt::Display) -> BackendError {
        BackendError::request(format!("the state in the checkpoint does not fit: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: StateFormat = StateFormat {
        name: "numbers",
        version: 3,
    };

    fn checkpoint(state: &impl Serialize) -> Checkpoint {
        Checkpoint::new("some", FORMAT, 7, state).unwrap()
    }

    #[test]
    fn every_bit_of_a_number_is_kept() {
        let odd = [
            f64::NAN,
            -0.0,
            f64::NEG_INFINITY,
            5e-324,
            f64::from_bits(0x7ff8_0000_dead_beef),
            0.1,
        ];
        let state = (
            odd.to_vec(),
            odd.map(|x| x as f32).to_vec(),
            u64::MAX,
            Some(false),
        );
        let read: (Vec<f64>, Vec<f32>, u64, Option<bool>) =
            checkpoint(&state).state("other", FORMAT).unwrap();
        let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read.0), bits(&state.0));
        assert_eq!(
            read.1.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            state.1.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        );
        assert_eq!((read.2, read.3), (state.2, state.3));
    }

    #[test]
    fn other_formats_and_other_lengths_are_refused() {
        let written = checkpoint(&vec![1.5, 2.5]);
        for format in [
            StateFormat {
                name: "words",
                ..FORMAT
            },
            StateFormat { version: 4, ..FORMAT },
        ] {
            let refused = written.state::<Vec<f64>>("other", format).unwrap_err();
            assert!(matches!(
                refused,
                BackendError::Unsupported { backend: "other", .. }
            ));
            assert!(
                refused
                    .to_string()
                    .contains("the backend some in the format numbers 3"),
                "{refused}"
            );
        }
        for length in 0..written.state.len() {
            let mut cut = written.clone();
            cut.state.truncate(length);
            assert!(cut.state::<Vec<f64>>("other", FORMAT).is_err(), "{length}");
        }
        let mut longer = written;
        longer.state.push(0);
        assert!(longer.state::<Vec<f64>>("other", FORMAT).is_err());
    }
}
