//! `infermark completions`.

use crate::exit::Exit;
use crate::output::print;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

impl CompletionsArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut command = crate::Arguments::command();
        // Into memory first: it panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "infermark", &mut script);
        print(|out| out.write_all(&script))?;
        Ok(Exit::Done)
    }
}
