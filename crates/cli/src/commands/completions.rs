//! `infermark completions`.

use crate::exit::Exit;
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
        clap_complete::generate(self.shell, &mut command, "infermark", &mut std::io::stdout());
        Ok(Exit::Done)
    }
}
