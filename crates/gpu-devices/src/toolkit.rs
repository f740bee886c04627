//! Tools for compiling CUDA kernels at run time without a toolkit: NVRTC, wherever it is installed, and the
//! header that CubeCL's sources include.
//!
//! NVRTC has all that the kernels use of `cuda_runtime.h` built in: with an empty file of that name the machine code is the same as with
//! NVIDIA's. The program brings a file of its own, which makes the exponential one instruction. CubeCL looks for it under `CUDA_PATH`, and
//! cudarc asks the loader for `libnvrtc.so` by its name.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The header.
const HEADER: &str = include_str!("../cuda/include/cuda_runtime.h");

/// `CUDA_PATH` as the user set it, where [`choose_header`] set another.
static TOOLKIT: OnceLock<Option<OsString>> = OnceLock::new();

/// What CUDA lacks on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The driver.
    #[error("CUDA's driver (libcuda.so.1) is not here")]
    Driver,
    /// NVRTC.
    #[error(
        "CUDA's driver is here, but not NVRTC (libnvrtc.so), which compiles the kernels: pip install nvidia-cuda-nvrtc, where the python3 of the PATH \
         finds it, or set LD_LIBRARY_PATH to its folder"
    )]
    Compiler,
    /// The folder of the header.
    #[error(
        "CUDA's driver and NVRTC are here, but not the header that the kernels name: {0}; set XDG_CACHE_HOME to a folder that can be written"
    )]
    Header(String),
}

/// Points `CUDA_PATH` to this program's own folder, for its header. Call it as the first statement of `main`, before a GPU is asked
/// for.
///
/// # Safety
/// No other thread may read or write the environment meanwhile: call it before any thread starts.
pub unsafe fn choose_header() {
    if let Some(own) = own_folder(|name| std::env::var_os(name))
        && TOOLKIT.set(std::env::var_os("CUDA_PATH")).is_ok()
    {
        // SAFETY: the caller's.
        unsafe { std::env::set_var("CUDA_PATH", own) };
    }
}

/// `CUDA_PATH` as the user set it: what a program that chooses the header for itself is to find.
pub fn users_cuda_path() -> Option<OsString> {
    match TOOLKIT.get() {
        Some(path) => path.clone(),
        None => std::env::var_os("CUDA_PATH"),
    }
}

/// Whether kernels can be compiled and run; makes what [`choose_header`] chose.
pub(crate) fn is_ready() -> Result<(), Missing> {
    // SAFETY: only asks whether the library can be loaded.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(Missing::Driver);
    }
    if !loads_nvrtc() {
        return Err(Missing::Compiler);
    }
    let folder = cubecl::cuda::install::cuda_path().map(|path| path.join("include"));
    match folder {
        Some(folder) if TOOLKIT.get().is_some() => write_header(&folder)
            .map_err(|error| Missing::Header(format!("{} cannot be made: {error}", folder.display()))),
        Some(folder) if folder.join("cuda_runtime.h").exists() => Ok(()),
        _ if TOOLKIT.get().is_some() => Err(Missing::Header("the user has no folder for caches".into())),
        _ => Err(Missing::Header(
            "CUDA_PATH names no folder with include/cuda_runtime.h, and no other was chosen".into(),
        )),
    }
}

/// Writes the header to a folder, whole or not at all: other processes may read it.
fn write_header(folder: &Path) -> std::io::Result<()> {
    let path = folder.join("cuda_runtime.h");
    if std::fs::read(&path).is_ok_and(|there| there == HEADER.as_bytes()) {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(HEADER.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// Where this program keeps the header.
fn own_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
    Some(cache.join("infermark/cuda"))
}

/// Loads NVRTC, from the folders that it is installed to where the loader does not find it.
fn loads_nvrtc() -> bool {
    // SAFETY: only asks whether the library can be loaded.
    let is_here = || unsafe { cudarc::nvrtc::sys::is_culib_present() };
    if is_here() {
        return true;
    }
    #[cfg(target_os = "linux")]
    for folder in folders(variable) {
        // What it opens by name must be loaded before; the loader knows both by their names from then on.
        for prefix in ["libnvrtc-builtins.so", "libnvrtc.so"] {
            for library in named(&folder, prefix) {
                use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
                // SAFETY: NVIDIA's libraries do nothing but set themselves up when they are loaded.
                if let Ok(library) = unsafe { Library::open(Some(&library), RTLD_NOW | RTLD_GLOBAL) } {
                    std::mem::forget(library);
                }
            }
        }
        if is_here() {
            return true;
        }
    }
    false
}

/// A variable of the environment as the user set it.
#[cfg(target_os = "linux")]
fn variable(name: &str) -> Option<OsString> {
    match name {
        "CUDA_PATH" => users_cuda_path(),
        name => std::env::var_os(name),
    }
}

/// Folders in which NVRTC may lie: those of toolkits, then those of pip's wheels in the environments at hand.
fn folders(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let toolkits = variable("CUDA_PATH").map(PathBuf::from).into_iter();
    let usual = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from);
    for toolkit in toolkits
        .chain(usual)
        .chain(named(Path::new("/usr/local"), "cuda-"))
    {
        found.push(toolkit.join("lib64"));
        found.push(toolkit.join("targets/x86_64-linux/lib"));
    }
    let mut environments: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(|name| variable(name).map(PathBuf::from))
        .collect();
    let path = variable("PATH").unwrap_or_default();
    let with_python = std::env::split_paths(&path).filter(|folder| folder.join("python3").exists());
    environments.extend(with_python.filter_map(|bin| bin.parent().map(Path::to_path_buf)));
    environments.extend(variable("HOME").map(|home| PathBuf::from(home).join(".local")));
    for environment in environments {
        found.push(environment.join("lib"));
        for python in named(&environment.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                let nvidia = python.join(packages).join("nvidia");
                found.extend(["cu13/lib", "cuda_nvrtc/lib"].map(|wheel| nvidia.join(wheel)));
            }
        }
    }
    found
}

/// Entries of a folder whose names have this prefix, the last first.
fn named(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_of_the_environments_at_hand_are_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let (own, on_path) = (folder.path().join("venv"), folder.path().join("other"));
        for environment in [&own, &on_path] {
            std::fs::create_dir_all(environment.join("lib/python3.11/site-packages")).unwrap();
            std::fs::create_dir_all(environment.join("bin")).unwrap();
        }
        std::fs::write(on_path.join("bin/python3"), "").unwrap();
        let found = folders(|name| match name {
            "VIRTUAL_ENV" => Some(own.clone().into()),
            "PATH" => Some(on_path.join("bin").into()),
            _ => None,
        });
        for environment in [&own, &on_path] {
            for wheel in ["cu13/lib", "cuda_nvrtc/lib"] {
                let expected = environment
                    .join("lib/python3.11/site-packages/nvidia")
                    .join(wheel);
                assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
            }
        }
    }

    #[test]
    fn the_header_is_written_whole_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let include = folder.path().join("a/include");
        for before in [None, Some("half of")] {
            if let Some(before) = before {
                std::fs::write(include.join("cuda_runtime.h"), before).unwrap();
            }
            write_header(&include).unwrap();
            let found: Vec<_> = std::fs::read_dir(&include)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(found, ["cuda_runtime.h"]);
            assert_eq!(
                std::fs::read_to_string(include.join("cuda_runtime.h")).unwrap(),
                HEADER
            );
        }
    }

    #[test]
    fn the_header_lies_in_the_users_cache() {
        let of = |cache: Option<&str>, home: Option<&str>| {
            own_folder(|name| match name {
                "XDG_CACHE_HOME" => cache.map(OsString::from),
                "HOME" => home.map(OsString::from),
                _ => None,
            })
        };
        let expected = |path: &str| Some(PathBuf::from(path));
        assert_eq!(of(Some("/c"), Some("/h")), expected("/c/infermark/cuda"));
        assert_eq!(of(None, Some("/h")), expected("/h/.cache/infermark/cuda"));
        // A relative path is invalid, by its specification.
        assert_eq!(of(Some("c"), Some("/h")), expected("/h/.cache/infermark/cuda"));
        assert_eq!(of(None, None), None);
    }
}
