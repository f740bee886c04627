//! `checkpoint.bin`: the state of a fit under way, and what it is the fit of.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`CONTAINER_VERSION`], as all numbers here little-endian |
//! | 8 | length of the file |
//! | 8 | length of the header |
//! | | header: JSON, with the program's version, panel, model, request, backend and format of the state |
//! | | the state, in the backend's format |
//! | 32 | SHA-256 of everything before it |
//!
//! A file is replaced by a new one only when that is whole and on the disk.

use crate::panel_description::PanelDescription;
use infermark_atomic_file::{FileError, write_atomically};
use infermark_backend::{Checkpoint, Request};
use infermark_model::Specification;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The file's name in the folder of a fit.
pub const CHECKPOINT_BIN: &str = "checkpoint.bin";

/// The first bytes of every checkpoint.
pub const MAGIC: [u8; 8] = *b"infrmrk\x1a";

/// Version of the container. Magic, version and length at the start and the checksum at the end are the same in all.
pub const CONTAINER_VERSION: u32 = 1;

/// Bytes before the header.
const PREFIX: usize = 8 + 4 + 8 + 8;
/// Bytes of the checksum.
const CHECKSUM: usize = 32;

/// The version of this program with its commit, which reads its own checkpoints only.
const PROGRAM: &str = infermark_machine::LONG_VERSION;

/// What a fit is of: only a fit of the same goes on from its checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitIdentity {
    /// The data as read.
    pub panel: PanelDescription,
    /// The model.
    pub model: Specification,
    /// The request. Threads, shards and devices may differ.
    pub request: Request,
}

/// What the state is preceded by.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    program: String,
    #[serde(flatten)]
    fit: FitIdentity,
    backend: String,
    format: String,
    version: u32,
    completed: u64,
}

/// The part of a header that every version of the program has.
#[derive(Deserialize)]
struct Writer {
    program: String,
}

/// Reasons for not going on from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is none.
    #[error("there is no checkpoint to go on from: {} is missing; begin the fit anew", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is another kind of file.
    #[error("{} is no checkpoint; begin the fit anew, replacing it", .0.display())]
    Foreign(PathBuf),
    /// Its end is missing.
    #[error("the checkpoint {} is truncated: it has {bytes} bytes of {whole}; begin the fit anew, replacing it", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that are there.
        bytes: u64,
        /// Bytes that were written, in words.
        whole: String,
    },
    /// Its contents are not those that were written.
    #[error("the checkpoint {} is damaged: its checksum is not that of its contents; begin the fit anew, replacing it", .0.display())]
    Damaged(PathBuf),
    /// Another version of the program wrote it.
    #[error("the checkpoint {} is of version {found} of the program, and this is {PROGRAM}; go on with that version, or begin the fit anew, replacing it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that wrote it.
        found: String,
    },
    /// The fit is of other data.
    #[error("the checkpoint {} is of another panel: {there}, and this is {here}; go on with that one, or begin the fit anew, replacing it", path.display())]
    Panel {
        /// The file.
        path: PathBuf,
        /// The checkpoint's data, in words.
        there: String,
        /// The data of this fit, in words.
        here: String,
    },
    /// The fit is of another request.
    #[error("the checkpoint {} is of another request: {}; go on with the settings of its fit, or begin anew, replacing it", path.display(), differences.join(", "))]
    Request {
        /// The file.
        path: PathBuf,
        /// The settings that differ, in words.
        differences: Vec<String>,
    },
}

/// Writes a checkpoint of a fit. An earlier one stays until the new one is whole.
///
/// # Errors
/// When the disk is full or fails.
pub fn write_checkpoint(path: &Path, fit: &FitIdentity, checkpoint: &Checkpoint) -> Result<(), FileError> {
    let header = Header {
        program: PROGRAM.to_owned(),
        fit: fit.clone(),
        backend: checkpoint.backend.clone(),
        format: checkpoint.format.clone(),
        version: checkpoint.version,
        completed: checkpoint.completed,
    };
    let header = serde_json::to_vec(&header).map_err(|e| FileError::new("write", path, e.into()))?;
    let length = PREFIX + header.len() + checkpoint.state.len() + CHECKSUM;
    write_atomically(path, |file| {
        let mut digest = Sha256::new();
        for part in [
            &MAGIC[..],
            &CONTAINER_VERSION.to_le_bytes(),
            &(length as u64).to_le_bytes(),
            &(header.len() as u64).to_le_bytes(),
            &header,
            &checkpoint.state,
        ] {
            digest.update(part);
            file.write_all(part)?;
        }
        file.write_all(&digest.finalize())
    })
}

/// Reads the checkpoint of a fit.
///
/// # Errors
/// When there is none, it is not whole, or it is of another fit or version.
pub fn read_checkpoint(path: &Path, fit: &FitIdentity) -> Result<Checkpoint, CheckpointError> {
    let (header, state) = read_container(path)?;
    let damaged = || CheckpointError::Damaged(path.to_owned());
    let writer: Writer = serde_json::from_slice(&header).map_err(|_| damaged())?;
    if writer.program != PROGRAM {
        return Err(CheckpointError::Version {
            path: path.to_owned(),
            found: writer.program,
        });
    }
    let header: Header = serde_json::from_slice(&header).map_err(|_| damaged())?;
    check_same(path, &header.fit, fit)?;
    Ok(Checkpoint {
        backend: header.backend,
        format: header.format,
        version: header.version,
        completed: header.completed,
        state,
    })
}

/// Header and state of a file whose length and checksum are right.
fn read_container(path: &Path) -> Result<(Vec<u8>, Vec<u8>), CheckpointError> {
    let failed = |e: io::Error| CheckpointError::File(FileError::new("read", path, e));
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(CheckpointError::Missing(path.to_owned()));
        }
        file => file.map_err(failed)?,
    };
    let bytes = file.metadata().map_err(failed)?.len();
    let truncated = |whole: String| CheckpointError::Truncated {
        path: path.to_owned(),
        bytes,
        whole,
    };
    let mut prefix = Vec::with_capacity(PREFIX);
    (&mut file)
        .take(PREFIX as u64)
        .read_to_end(&mut prefix)
        .map_err(failed)?;
    let begun = prefix.len().min(MAGIC.len());
    if prefix[..begun] != MAGIC[..begun] {
        return Err(CheckpointError::Foreign(path.to_owned()));
    }
    if prefix.len() < PREFIX {
        return Err(truncated(format!("at least {}", PREFIX + CHECKSUM)));
    }
    let number = |at: usize| u64::from_le_bytes(prefix[at..at + 8].try_into().expect("eight bytes"));
    let (length, header_length) = (number(12), number(20));
    if bytes < length {
        return Err(truncated(length.to_string()));
    }
    // Lengths are compared with what is there before anything is allocated.
    let inside = bytes.checked_sub((PREFIX + CHECKSUM) as u64);
    let Some(state_length) = inside.and_then(|inside| inside.checked_sub(header_length)) else {
        return Err(CheckpointError::Damaged(path.to_owned()));
    };
    let mut digest = Sha256::new();
    digest.update(&prefix);
    let mut part = |length: u64| {
        let mut part = Vec::with_capacity(length as usize);
        (&mut file).take(length).read_to_end(&mut part).map(|_| part)
    };
    let header = part(header_length).map_err(failed)?;
    let state = part(state_length).map_err(failed)?;
    let checksum = part(CHECKSUM as u64).map_err(failed)?;
    digest.update(&header);
    digest.update(&state);
    if bytes != length || checksum[..] != digest.finalize()[..] {
        return Err(CheckpointError::Damaged(path.to_owned()));
    }
    let version = u32::from_le_bytes(prefix[8..12].try_into().expect("four bytes"));
    if version != CONTAINER_VERSION {
        return Err(CheckpointError::Version {
            path: path.to_owned(),
            found: format!("another, which writes checkpoints in version {version},"),
        });
    }
    Ok((header, state))
}

/// Checks that a checkpoint of the fit `there` is one of the fit `here`.
fn check_same(path: &Path, there: &FitIdentity, here: &FitIdentity) -> Result<(), CheckpointError> {
    // The same columns are the same panel, whatever the file's name.
    if there.panel.sha256 != here.panel.sha256 {
        return Err(CheckpointError::Panel {
            path: path.to_owned(),
            there: in_words(&there.panel),
            here: in_words(&here.panel),
        });
    }
    let mut differences = Vec::new();
    if there.model != here.model {
        differences.push(format!(
            "its model is {}, this one is {}",
            there.model.name(),
            here.model.name()
        ));
    }
    let alike = Request {
        devices: here.request.devices.clone(),
        shards: here.request.shards,
        threads: here.request.threads,
        ..there.request.clone()
    };
    let value = |request: &Request| serde_json::to_value(request).unwrap_or_default();
    compare("request", &value(&alike), &value(&here.request), &mut differences);
    if differences.is_empty() && alike != here.request {
        // Numbers that JSON does not have.
        differences.push("a setting that is no number".to_owned());
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(CheckpointError::Request {
        path: path.to_owned(),
        differences,
    })
}

fn in_words(panel: &PanelDescription) -> String {
    format!(
        "{} with {} products and {} rows, fingerprint {}",
        panel.source,
        panel.products,
        panel.rows,
        panel.sha256.get(..12).unwrap_or_default()
    )
}

/// Adds, in words, the entries of `there` and `here` that differ; `name` is theirs.
fn compare(name: &str, there: &Value, here: &Value, differences: &mut Vec<String>) {
    if let (Value::Object(there), Value::Object(here)) = (there, here) {
        let added = here.keys().filter(|key| !there.contains_key(*key));
        for key in there.keys().chain(added) {
            let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
            compare(key, &of(there), &of(here), differences);
        }
    } else if there != here {
        differences.push(format!("its {name} is {there}, this one is {here}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_backend::{DeviceId, Method, MethodKind, SviSettings};
    use infermark_model::{Labels, Panel, PanelPart};

    fn panel(units: u32) -> Panel {
        let mut part = PanelPart::new(1, 2);
        part.push_product(0, None, &[2.0, 2.5], &[7, units]).unwrap();
        let numbered = |n| Labels::numbered("x", n);
        Panel::from_parts(numbered(1), numbered(1), numbered(2), vec![part]).unwrap()
    }

    fn fit() -> FitIdentity {
        FitIdentity {
            panel: PanelDescription::new(&panel(4), "sales.csv"),
            model: Specification::Published,
            request: Request::new(Method::Svi(SviSettings::default())),
        }
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            backend: "svi-cpu".into(),
            format: "svi".into(),
            version: 3,
            completed: 17,
            state: (0..=255).collect(),
        }
    }

    fn written(folder: &Path) -> PathBuf {
        let path = folder.join(CHECKPOINT_BIN);
        write_checkpoint(&path, &fit(), &checkpoint()).unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        assert_eq!(read_checkpoint(&path, &fit()).unwrap(), checkpoint());
        // A file of another name with the same columns, on other hardware.
        let mut elsewhere = fit();
        elsewhere.panel.source = "copy.parquet".into();
        elsewhere.request.shards = 3;
        elsewhere.request.threads = Some(7);
        elsewhere.request.devices = vec![DeviceId::CPU, DeviceId::CPU];
        assert_eq!(read_checkpoint(&path, &elsewhere).unwrap(), checkpoint());
        let none = read_checkpoint(&folder.path().join("none"), &fit());
        assert!(matches!(none, Err(CheckpointError::Missing(_))), "{none:?}");
    }

    #[test]
    fn a_flip_of_any_byte_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut flipped = whole.clone();
                flipped[at] ^= flip;
                std::fs::write(&path, &flipped).unwrap();
                let refused = read_checkpoint(&path, &fit()).unwrap_err();
                let is_named = match at {
                    0..8 => matches!(refused, CheckpointError::Foreign(_)),
                    12..20 => matches!(
                        refused,
                        CheckpointError::Damaged(_) | CheckpointError::Truncated { .. }
                    ),
                    _ => matches!(refused, CheckpointError::Damaged(_)),
                };
                assert!(is_named, "{at}: {refused:?}");
                assert!(refused.to_string().contains(CHECKPOINT_BIN));
            }
        }
    }

    #[test]
    fn a_file_cut_anywhere_or_made_longer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let refused = read_checkpoint(&path, &fit()).unwrap_err();
            assert!(
                matches!(&refused, CheckpointError::Truncated { bytes, .. } if *bytes == length as u64),
                "{length}: {refused:?}"
            );
        }
        let longer = [&whole[..], b"x"].concat();
        std::fs::write(&path, longer).unwrap();
        let refused = read_checkpoint(&path, &fit()).unwrap_err();
        assert!(matches!(refused, CheckpointError::Damaged(_)), "{refused:?}");
    }

    #[test]
    fn another_fit_is_refused_by_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let refused = |change: &dyn Fn(&mut FitIdentity)| {
            let mut other = fit();
            change(&mut other);
            let refused = read_checkpoint(&path, &other).unwrap_err().to_string();
            assert!(
                refused.contains(CHECKPOINT_BIN) && refused.contains("anew"),
                "{refused}"
            );
            refused
        };
        let of_panel = refused(&|other| other.panel = PanelDescription::new(&panel(5), "more.csv"));
        assert!(
            of_panel.contains("another panel") && of_panel.contains("more.csv"),
            "{of_panel}"
        );
        let of_model = refused(&|other| other.model = Specification::Sales);
        assert!(
            of_model.contains("its model is published, this one is sales"),
            "{of_model}"
        );
        let of_seed = refused(&|other| other.request.seed = 12);
        assert!(of_seed.contains("its seed is 0, this one is 12"), "{of_seed}");
        let of_iterations = refused(&|other| {
            other.request.method = Method::Svi(SviSettings {
                iterations: 5,
                ..SviSettings::default()
            });
        });
        assert!(of_iterations.contains("iterations") && of_iterations.contains("this one is 5"));
        let of_priors = refused(&|other| other.request.priors.product_a_sd = 0.75);
        assert!(
            of_priors.contains("its product_a_sd is") && of_priors.contains("this one is 0.75"),
            "{of_priors}"
        );
        let of_method = refused(&|other| other.request.method = MethodKind::Nuts.default_method());
        assert!(of_method.contains("another request"), "{of_method}");
    }

    /// A container whose checksum is right, with another version of the container or of the program.
    fn of_version(path: &Path, container: u32, program: &str) {
        let whole = std::fs::read(path).unwrap();
        let length = u64::from_le_bytes(whole[20..28].try_into().unwrap()) as usize;
        let header = String::from_utf8(whole[PREFIX..PREFIX + length].to_vec()).unwrap();
        let header = header.replace(
            &format!("\"program\":\"{PROGRAM}\""),
            &format!("\"program\":\"{program}\""),
        );
        let mut made = MAGIC.to_vec();
        made.extend(container.to_le_bytes());
        let total = PREFIX + header.len() + 256 + CHECKSUM;
        made.extend((total as u64).to_le_bytes());
        made.extend((header.len() as u64).to_le_bytes());
        made.extend(header.as_bytes());
        made.extend(0..=255u8);
        let checksum = Sha256::digest(&made);
        made.extend(checksum);
        std::fs::write(path, made).unwrap();
    }

    #[test]
    fn other_versions_are_refused_by_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        of_version(&path, CONTAINER_VERSION, PROGRAM);
        assert_eq!(read_checkpoint(&path, &fit()).unwrap(), checkpoint());
        for (container, program, words) in [
            (CONTAINER_VERSION, "0.0.7", "version 0.0.7 of the program"),
            (CONTAINER_VERSION + 1, PROGRAM, "checkpoints in version 2"),
        ] {
            let path = written(folder.path());
            of_version(&path, container, program);
            let refused = read_checkpoint(&path, &fit()).unwrap_err();
            assert!(matches!(refused, CheckpointError::Version { .. }));
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }

    #[test]
    fn lengths_that_are_only_claimed_take_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let mut whole = std::fs::read(&path).unwrap();
        whole[20..28].copy_from_slice(&(u64::MAX - 3).to_le_bytes());
        std::fs::write(&path, whole).unwrap();
        let refused = read_checkpoint(&path, &fit()).unwrap_err();
        assert!(matches!(refused, CheckpointError::Damaged(_)), "{refused:?}");
    }
}
