//! The files of a fit, written and read back: every one whole or not at all, with the digests of the others in the record.
//!
//! | module | holds |
//! |---|---|
//! | [`fit_output`] | the folder as it is written |
//! | [`fit_record`] | `run.json`: request, report, data, system |
//! | [`posterior_csv`], [`trace_csv`], [`draws_parquet`] | the other files |
//! | [`fit_folder`] | a folder read back |
//! | [`checkpoint_file`] | `checkpoint.bin`: the state of a fit under way |
//! | [`given`] | JSON that a user writes: prior settings, and points of the parameters |
//! | [`json_file`] | bounds and versions of JSON that is read |
//! | [`panel_description`] | what a result states of its data, with a fingerprint |
//! | [`digest_writer`], [`mod@file_name`] | digests while writing; parts of file names |

pub mod checkpoint_file;
pub mod digest_writer;
pub mod draws_parquet;
pub mod file_name;
pub mod fit_folder;
pub mod fit_output;
pub mod fit_record;
pub mod given;
pub mod json_file;
pub mod panel_description;
pub mod posterior_csv;
pub mod trace_csv;
