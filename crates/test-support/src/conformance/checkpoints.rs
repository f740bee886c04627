//! Runs that go on from a checkpoint.

use super::{Interrupted, assert_near, assert_same, finish, panel, readings, start};
use infermark_backend::{Backend, BackendError, Checkpoint, Interrupt, Request, Run};
use infermark_model::Panel;
use std::sync::Arc;

/// A run that gives checkpoints is resumed from any of them - of the start, between pieces, of an interruption, of the end - to the
/// same bits, or as near as an interrupted search; a damaged one is refused. A backend whose runs give none says so.
pub fn a_checkpoint_is_resumed_or_refused(backend: &dyn Backend, request: &Request, near: Interrupted) {
    let mut run = start(backend, request);
    if run.checkpoint().unwrap().is_none() {
        return refuses_checkpoints(backend, request);
    }
    let whole = finish(start(backend, request));
    let mut moments = vec![checkpoint_of(&*run, backend)];
    for steps in [3, 1, 40] {
        run.advance(steps, &Interrupt::new()).unwrap();
        moments.push(checkpoint_of(&*run, backend));
    }
    let interrupt = Interrupt::new();
    interrupt.set();
    run.advance(u64::MAX, &interrupt).unwrap();
    moments.push(checkpoint_of(&*run, backend));
    moments.push(checkpoint_of(&*finish(run), backend));
    for checkpoint in &moments {
        let mut resumed = backend.resume(panel(), request, checkpoint).unwrap();
        let what = format!("resumed after {} steps", checkpoint.completed);
        if near == Interrupted::ToTheBit {
            assert_eq!(resumed.progress().completed, checkpoint.completed, "{what}");
        }
        // A checkpoint of the resumed run is as good, of its start and of a later moment.
        let again = checkpoint_of(&*resumed, backend);
        let again = backend.resume(panel(), request, &again).unwrap();
        resumed.advance(7, &Interrupt::new()).unwrap();
        let later = checkpoint_of(&*resumed, backend);
        let later = backend.resume(panel(), request, &later).unwrap();
        for resumed in [resumed, again, later] {
            assert_near(&*finish(resumed), &*whole, near, &what);
        }
        refuses_damaged_checkpoints(backend, request, checkpoint);
    }
}

fn checkpoint_of(run: &dyn Run, backend: &dyn Backend) -> Checkpoint {
    let before = readings(run);
    let checkpoint = run.checkpoint().unwrap().expect("the run gave one before");
    assert_same(&readings(run), &before, "a checkpoint was taken");
    assert_eq!(checkpoint.backend, backend.name());
    assert_eq!(checkpoint.completed, run.progress().completed);
    checkpoint
}

fn refuses_checkpoints(backend: &dyn Backend, request: &Request) {
    let none = Checkpoint {
        backend: backend.name().to_owned(),
        format: "none".to_owned(),
        version: 0,
        completed: 3,
        state: Vec::new(),
    };
    let refused = backend.resume(panel(), request, &none).err();
    assert!(
        matches!(refused, Some(BackendError::Unsupported { .. })),
        "{refused:?}"
    );
}

fn refuses_damaged_checkpoints(backend: &dyn Backend, request: &Request, checkpoint: &Checkpoint) {
    let refused = |panel: Arc<Panel>, damaged: Checkpoint| {
        backend
            .resume(panel, request, &damaged)
            .err()
            .unwrap_or_else(|| panic!("{damaged:?} is taken"))
    };
    let with = |format: &str, version: u32| Checkpoint {
        format: format.to_owned(),
        version,
        ..checkpoint.clone()
    };
    for other in [
        with("other", checkpoint.version),
        with(&checkpoint.format, checkpoint.version + 1),
    ] {
        let refused = refused(panel(), other);
        assert!(matches!(refused, BackendError::Unsupported { .. }), "{refused:?}");
    }
    let mut truncated = checkpoint.clone();
    truncated.state.pop();
    let mut longer = checkpoint.clone();
    longer.state.push(0);
    for damaged in [truncated, longer] {
        let refused = refused(panel(), damaged);
        assert!(matches!(refused, BackendError::Request(_)), "{refused:?}");
    }
}
