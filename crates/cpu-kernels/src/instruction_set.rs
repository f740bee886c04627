//! Which instructions the processor has, and kernels run with them.

use crate::simd::{Simd, portable};
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2, avx512};
use std::fmt;

/// An instruction set that the kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust: NEON on AArch64, SSE2 on x86-64.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F and DQ.
    Avx512,
}

/// Work that is generic over the instruction set: [`InstructionSet::run_f32`] picks the token.
pub trait ForSimd {
    /// What it returns.
    type Output;
    /// The work.
    fn run<I: Simd>(self, isa: I) -> Self::Output;
}

impl InstructionSet {
    /// Every instruction set that this processor has, the widest last.
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

    /// The widest that this processor has, or the one that `INFERMARK_INSTRUCTION_SET` names (`portable`, `avx2`,
    /// `avx512`) if the processor has it.
    pub fn best() -> InstructionSet {
        let available = Self::available();
        let wanted = std::env::var("INFERMARK_INSTRUCTION_SET").ok();
        let named = available.iter().find(|set| Some(set.name()) == wanted.as_deref());
        *named
            .or(available.last())
            .expect("the portable set is always there")
    }

    /// The name by which it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            InstructionSet::Portable => "portable",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Avx512 => "avx512",
        }
    }

    fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2::Avx2F32::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => avx512::Avx512F32::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Runs `work` in single precision.
    ///
    /// # Panics
    /// When the processor lacks the instruction set.
    pub fn run_f32<W: ForSimd>(self, work: W) -> W::Output {
        match self {
            InstructionSet::Portable => work.run(portable::PortableF32),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => work.run(avx2::Avx2F32::detect().expect("AVX2 is available")),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => work.run(avx512::Avx512F32::detect().expect("AVX-512 is available")),
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("only the portable set is available"),
        }
    }

    /// Runs `work` in double precision.
    ///
    /// # Panics
    /// When the processor lacks the instruction set.
    pub fn run_f64<W: ForSimd>(self, work: W) -> W::Output {
        match self {
            InstructionSet::Portable => work.run(portable::PortableF64),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => work.run(avx2::Avx2F64::detect().expect("AVX2 is available")),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => work.run(avx512::Avx512F64::detect().expect("AVX-512 is available")),
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("only the portable set is available"),
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
pub(crate) fn for_each_instruction_set(f: impl Fn(InstructionSet)) {
    for set in InstructionSet::available() {
        f(set);
    }
}
