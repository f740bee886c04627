//! NCCL's library, loaded at run time.
//!
//! By name and not through cudarc's loader, which looks for `libnccl.so`: packages without headers have `libnccl.so.2` alone. Results are
//! plain numbers here, since newer versions have more of them than an enumeration of this build.

use crate::NcclError;
use libloading::{Library as Loaded, Symbol};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

/// The names under which it is looked for, one after another.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// `ncclFloat64`, of all versions.
const FLOAT64: c_int = 8;
/// `ncclInProgress`.
const IN_PROGRESS: c_int = 7;

/// NCCL's id of a run, which its ranks meet by.
pub(crate) type Id = [u8; 128];

/// `ncclUniqueId`, which is passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId(Id);

/// `ncclComm_t`.
type Handle = *mut c_void;

/// The functions that are used, of NCCL 2.
struct Functions {
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: Option<unsafe extern "C" fn(Handle) -> *const c_char>,
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    start: unsafe extern "C" fn(*mut Handle, c_int, UniqueId, c_int) -> c_int,
    start_all: unsafe extern "C" fn(*mut Handle, c_int, *const c_int) -> c_int,
    all_gather: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Handle, *mut c_void) -> c_int,
    async_error: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
    version: c_int,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Library(Arc<Functions>);

/// A function of the library.
///
/// # Safety
/// `F` must be its type.
unsafe fn function<F: Copy>(library: &Loaded, name: &str) -> Result<F, NcclError> {
    // SAFETY: the caller's.
    let symbol: Result<Symbol<'_, F>, _> = unsafe { library.get(name.as_bytes()) };
    symbol
        .map(|symbol| *symbol)
        .map_err(|error| NcclError::Library(format!("it has no {name} ({error})")))
}

impl Library {
    /// Loads it.
    ///
    /// # Errors
    /// [`NcclError::Library`] when it is not here, or is another library.
    pub(crate) fn load() -> Result<Self, NcclError> {
        let mut reason = String::new();
        for name in NAMES {
            // SAFETY: NCCL does nothing but set itself up when it is loaded.
            match unsafe { Loaded::new(name) } {
                Ok(library) => return Self::of(library),
                Err(error) if reason.is_empty() => reason = error.to_string(),
                Err(_) => {}
            }
        }
        Err(NcclError::Library(reason))
    }

    fn of(library: Loaded) -> Result<Self, NcclError> {
        // SAFETY: the types are those of nccl.h, the same in all versions 2; a result is an enumeration of C, which is an int.
        let functions = unsafe {
            let get_version: unsafe extern "C" fn(*mut c_int) -> c_int =
                function(&library, "ncclGetVersion")?;
            let mut version = 0;
            get_version(&raw mut version);
            Functions {
                error_string: function(&library, "ncclGetErrorString")?,
                // From 2.13 on.
                last_error: function(&library, "ncclGetLastError").ok(),
                unique_id: function(&library, "ncclGetUniqueId")?,
                start: function(&library, "ncclCommInitRank")?,
                start_all: function(&library, "ncclCommInitAll")?,
                all_gather: function(&library, "ncclAllGather")?,
                async_error: function(&library, "ncclCommGetAsyncError")?,
                destroy: function(&library, "ncclCommDestroy")?,
                version,
            }
        };
        // Its threads may outlive what is loaded: it stays until the process ends.
        std::mem::forget(library);
        Ok(Library(Arc::new(functions)))
    }

    /// Its version, as `2.28.3`.
    pub(crate) fn version(&self) -> String {
        let code = self.0.version;
        format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100)
    }

    /// What a result says, with what NCCL adds of its own.
    fn in_words(&self, result: c_int, of: Handle) -> String {
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            // SAFETY: a string of the library that is not null ends in a zero, and stays until its next call.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        };
        // SAFETY: they take any result, and a handle that is null or alive.
        let (error, last) = unsafe {
            let last = self.0.last_error.map(|last_error| last_error(of));
            ((self.0.error_string)(result), last)
        };
        let (error, last) = (text(error), last.map(text).unwrap_or_default());
        match last.trim() {
            "" => error,
            last => format!("{error}: {last}"),
        }
    }

    fn check(&self, what: &'static str, result: c_int, of: Handle) -> Result<(), NcclError> {
        match result {
            0 => Ok(()),
            _ => Err(NcclError::Refused {
                what,
                reason: self.in_words(result, of),
            }),
        }
    }

    /// The id of a new run.
    pub(crate) fn new_id(&self) -> Result<Id, NcclError> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: it writes the id.
        let result = unsafe { (self.0.unique_id)(&raw mut id) };
        self.check("makes no id of a run", result, std::ptr::null_mut())?;
        Ok(id.0)
    }

    /// Meets the other ranks of a run, as rank `rank` on the current card.
    pub(crate) fn start(&self, id: Id, rank: usize, size: usize) -> Result<Clique, NcclError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: it writes the handle.
        let result = unsafe { (self.0.start)(&raw mut handle, size as c_int, UniqueId(id), rank as c_int) };
        self.check("does not connect the ranks", result, std::ptr::null_mut())?;
        Ok(self.clique(handle))
    }

    /// Connects these cards of this process, which are the ranks in their order.
    pub(crate) fn start_all(&self, cards: &[usize]) -> Result<Vec<Clique>, NcclError> {
        let mut handles = vec![std::ptr::null_mut(); cards.len()];
        let numbers: Vec<c_int> = cards.iter().map(|card| *card as c_int).collect();
        // SAFETY: it reads and writes an entry for each card.
        let result =
            unsafe { (self.0.start_all)(handles.as_mut_ptr(), cards.len() as c_int, numbers.as_ptr()) };
        self.check("does not connect the cards", result, std::ptr::null_mut())?;
        Ok(handles.into_iter().map(|handle| self.clique(handle)).collect())
    }

    fn clique(&self, handle: Handle) -> Clique {
        Clique {
            library: self.clone(),
            handle,
        }
    }
}

/// A rank's connection to the others, while it is alive.
pub(crate) struct Clique {
    library: Library,
    handle: Handle,
}

// SAFETY: NCCL's communicators may be used from any thread, by one at a time: what uses them has `&mut`.
unsafe impl Send for Clique {}

impl Clique {
    /// Begins to gather `numbers` numbers of every rank at `from` on its card to `to` on each, in the order of the ranks, as the next work of a stream.
    ///
    /// # Safety
    /// `from` must have `numbers` numbers on the card of the rank, and `to` as many for each rank, until the stream has done it; the stream must
    /// be one of the card, which must be current.
    pub(crate) unsafe fn gather(
        &mut self,
        from: *const c_void,
        to: *mut c_void,
        numbers: usize,
        stream: *mut c_void,
    ) -> Result<(), NcclError> {
        // SAFETY: the caller's.
        let result = unsafe { (self.library.0.all_gather)(from, to, numbers, FLOAT64, self.handle, stream) };
        self.library.check("does not gather", result, self.handle)
    }

    /// Whether work under way has failed, on this or another rank.
    pub(crate) fn failure(&mut self) -> Result<(), NcclError> {
        let mut found = 0;
        // SAFETY: it writes a result.
        let result = unsafe { (self.library.0.async_error)(self.handle, &raw mut found) };
        self.library
            .check("does not say how it is", result, self.handle)?;
        match found {
            IN_PROGRESS => Ok(()),
            found => self.library.check("failed", found, self.handle),
        }
    }

    /// Ends the connection. One that has failed is left as it is: to end it may take for ever.
    pub(crate) fn end(self) {
        // SAFETY: it is alive, and not used again.
        unsafe { (self.library.0.destroy)(self.handle) };
    }
}
