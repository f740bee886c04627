//! Panics of the Parquet decoder, which panics on some contradictions of damaged files.

use crate::Failure;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside the decoder, where a panic only means that the file is damaged.
    static DECODING: Cell<bool> = const { Cell::new(false) };
    /// Where the last contained panic was, if in code of this project.
    static OWN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a step of the decoder and turns a panic into an error. After a panic, nothing that the step changes
/// may be used.
///
/// # Errors
/// That of the step; [`Failure::Panic`] where the decoder panicked, [`Failure::Own`] where code of this project did.
pub fn contained<T, E: Into<Failure>>(step: impl FnOnce() -> Result<T, E>) -> Result<T, Failure> {
    quieten();
    let before = DECODING.replace(true);
    let done = catch_unwind(AssertUnwindSafe(step));
    DECODING.set(before);
    match done {
        Ok(result) => result.map_err(Into::into),
        Err(payload) => Err(match OWN.take() {
            None => Failure::Panic(message(payload.as_ref())),
            Some(place) => Failure::Own(message(payload.as_ref()), place),
        }),
    }
}

/// Keeps contained panics off the standard error; the previous hook shows all others.
fn quieten() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that is ending no longer has the flag, and decodes nothing.
            if !DECODING.try_with(Cell::get).unwrap_or(false) {
                shown(panic);
                return;
            }
            let place = panic
                .location()
                .filter(|place| place.file().starts_with(sources()));
            OWN.set(place.map(|place| format!("{}:{}", place.file(), place.line())));
        }));
    });
}

/// The path of the project's sources, as in panic messages.
fn sources() -> &'static str {
    let this = file!();
    this.find("checked-parquet/").map_or(this, |end| &this[..end])
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_flag_is_taken_back() {
        let failed = contained::<(), Failure>(|| panic!("index {} of 2", 391)).unwrap_err();
        // It is a panic of this project, which tests of damaged files must not mistake for damage.
        let text = failed.to_string();
        assert!(
            text.starts_with("a fault of this program: index 391 of 2 at "),
            "{text}"
        );
        assert!(
            text.contains("crates/checked-parquet/src/contained.rs:"),
            "{text}"
        );
        assert!(!DECODING.get());
        assert!(contained::<_, Failure>(|| Ok(DECODING.get())).unwrap());
    }
}
