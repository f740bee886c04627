//! The command under kills, little memory, a full disk and no threads. Apart from the other tests, whose clocks they would disturb.

mod kills;
mod limits;
#[allow(dead_code)] // The other tests of the command use the rest of it.
#[path = "../command/support.rs"]
mod support;
mod threads;

use support::*;
