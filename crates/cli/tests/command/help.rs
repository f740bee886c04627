//! `--help` of every verb, as stored in `snapshots`. After an intended change,
//! `INSTA_UPDATE=always cargo test` updates them.

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
        // The description of a verb continues further to the right.
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
