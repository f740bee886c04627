//! What the CPU is called.

use crate::InstructionSet;
use std::process::Command;

/// The CPU's name for itself: from `/proc/cpuinfo`, or from `sysctl` on macOS; `None` where neither states one.
pub fn model_name() -> Option<String> {
    let from_proc = || field(&std::fs::read_to_string("/proc/cpuinfo").ok()?, "model name");
    let from_sysctl = || {
        let output = Command::new("sysctl")
            .args(["-n", "machdep.cpu.brand_string"])
            .output()
            .ok()
            .filter(|o| o.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    from_proc().or_else(from_sysctl)
}

fn field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// The CPU in plain words with the instruction set that the kernels use ([`InstructionSet::best`]), for instance
/// `2-core Intel Xeon, AVX-512`.
pub fn processor_name() -> String {
    processor_name_with(InstructionSet::best())
}

/// [`processor_name`] of kernels that use `set`.
pub fn processor_name_with(set: InstructionSet) -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    in_plain_words(model_name().as_deref(), cores, set)
}

fn in_plain_words(model: Option<&str>, cores: usize, set: InstructionSet) -> String {
    let name = model.unwrap_or_default();
    let name = name.replace("(R)", "").replace("(TM)", "").replace("(tm)", "");
    let name = name.split('@').next().unwrap_or("");
    let words: Vec<&str> = name
        .split_whitespace()
        .filter(|word| !matches!(*word, "CPU" | "Processor") && !word.ends_with("-Core"))
        .collect();
    let name = match words.join(" ") {
        name if name.is_empty() => format!("{} processor", std::env::consts::ARCH),
        name => name,
    };
    format!("{cores}-core {name}, {set}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_plain_words() {
        for (model, cores, set, words) in [
            (
                "Intel(R) Xeon(R) Processor",
                2,
                InstructionSet::Avx512,
                "2-core Intel Xeon, AVX-512",
            ),
            (
                "AMD EPYC 7R13 48-Core Processor",
                96,
                InstructionSet::Avx2,
                "96-core AMD EPYC 7R13, AVX2",
            ),
            (
                "Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz",
                12,
                InstructionSet::Avx2,
                "12-core Intel Core i7-8700K, AVX2",
            ),
        ] {
            assert_eq!(in_plain_words(Some(model), cores, set), words);
        }
        let unnamed = in_plain_words(None, 4, InstructionSet::Avx2);
        assert_eq!(
            unnamed,
            format!("4-core {} processor, AVX2", std::env::consts::ARCH)
        );
    }

    #[test]
    fn the_name_ends_with_the_instruction_set() {
        for set in InstructionSet::available() {
            let name = processor_name_with(set);
            assert!(name.ends_with(&set.to_string()), "{name}");
        }
    }

    #[test]
    fn the_model_name_is_found() {
        let text = "processor\t: 0\nmodel\t\t: 5\nmodel name\t: Some CPU @ 2GHz\nflags : a b\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU @ 2GHz"));
        assert_eq!(field("processor : 0\n", "model name"), None);
    }
}
