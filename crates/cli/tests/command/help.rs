//! `--help` of every verb, as it stands in `snapshots`. Where it changes on purpose, `INSTA_UPDATE=always cargo test` writes them again.

use crate::{code, command, text};

/// What `--help` prints after `arguments`, in lines as wide as without a terminal.
fn help(arguments: &[&str]) -> String {
    let output = command(arguments)
        .arg("--help")
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn help_of_every_verb() {
    let all = help(&[]);
    insta::assert_snapshot!("help", all);
    let commands = all.split("Commands:\n").nth(1).expect("a list of verbs");
    let verbs: Vec<&str> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        // What a verb does goes on further to the right.
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(
        verbs.contains(&"fit") && verbs.contains(&"completions"),
        "{verbs:?}"
    );
    for verb in verbs {
        insta::assert_snapshot!(format!("help_{verb}"), help(&[verb]));
    }
}
