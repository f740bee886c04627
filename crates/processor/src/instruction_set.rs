//! Which instructions the CPU has, and which of them the environment asks for.

use std::fmt;

/// The environment variable that requests an instruction set.
const VARIABLE: &str = "INFERMARK_INSTRUCTION_SET";

/// The requested instruction set is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE} is '{wanted}'; the instruction sets of this machine are {here}")]
pub struct InstructionSetMissing {
    /// The requested name.
    pub wanted: String,
    /// Names of the available ones.
    pub here: String,
}

/// An instruction set that the kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust: NEON on AArch64, SSE2 on x86-64.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F and DQ, with AVX2, FMA, BMI2 and POPCNT.
    Avx512,
}

impl InstructionSet {
    /// Every instruction set that this CPU has, the widest last.
    pub fn available() -> Vec<InstructionSet> {
        [
            InstructionSet::Portable,
            InstructionSet::Avx2,
            InstructionSet::Avx512,
        ]
        .into_iter()
        .filter(|set| set.is_available())
        .collect()
    }

    /// The one that `INFERMARK_INSTRUCTION_SET` names (`portable`, `avx2`, `avx512`), or the CPU's widest if
    /// the variable is not set, or empty.
    ///
    /// # Errors
    /// When the variable names none that this CPU has.
    pub fn from_environment() -> Result<InstructionSet, InstructionSetMissing> {
        let wanted = std::env::var_os(VARIABLE).unwrap_or_default();
        Self::asked_for(&wanted.to_string_lossy())
    }

    /// [`InstructionSet::from_environment`], or the widest if that is an error: for code that must not fail
    /// after a backend has reported the error.
    pub fn best() -> InstructionSet {
        Self::from_environment().unwrap_or_else(|_| Self::widest())
    }

    fn widest() -> InstructionSet {
        *Self::available()
            .last()
            .expect("the portable set is always there")
    }

    fn asked_for(wanted: &str) -> Result<InstructionSet, InstructionSetMissing> {
        if wanted.is_empty() {
            return Ok(Self::widest());
        }
        let available = Self::available();
        let named = available.iter().find(|set| set.name() == wanted);
        named.copied().ok_or_else(|| InstructionSetMissing {
            wanted: wanted.to_owned(),
            here: available
                .iter()
                .map(|set| set.name())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The name by which it is requested.
    pub const fn name(self) -> &'static str {
        match self {
            InstructionSet::Portable => "portable",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Avx512 => "avx512",
        }
    }

    /// Whether this CPU has all the instructions that the kernels of this set are compiled for. Unsafe code relies on it.
    #[inline]
    pub fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InstructionSet::Portable if cfg!(target_arch = "aarch64") => "NEON",
            InstructionSet::Portable => "portable SIMD",
            InstructionSet::Avx2 => "AVX2",
            InstructionSet::Avx512 => "AVX-512",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_is_not_here_is_an_error_that_lists_those_that_are() {
        for set in InstructionSet::available() {
            assert_eq!(InstructionSet::asked_for(set.name()), Ok(set));
        }
        assert_eq!(InstructionSet::asked_for(""), Ok(InstructionSet::widest()));
        for wanted in ["avx-2", "AVX2", "portable ", "neon"] {
            let error = InstructionSet::asked_for(wanted).unwrap_err().to_string();
            assert!(error.contains(&format!("'{wanted}'")), "{error}");
            assert!(error.contains("portable"), "{error}");
        }
    }
}
