//! Work that is generic over the instruction set, run with the one that is chosen at run time.

use crate::simd::{Simd, portable};
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2, avx512};
use infermark_processor::InstructionSet;

/// Work that is generic over the instruction set: [`SimdDispatch::run_f32`] picks the token.
pub trait ForSimd {
    /// What it returns.
    type Output;
    /// The work.
    fn run<I: Simd>(self, isa: I) -> Self::Output;
}

/// Runs work with the vectors of an [`InstructionSet`].
pub trait SimdDispatch {
    /// Runs `work` in single precision.
    ///
    /// # Panics
    /// When the processor lacks the instruction set.
    fn run_f32<W: ForSimd>(self, work: W) -> W::Output;

    /// Runs `work` in double precision.
    ///
    /// # Panics
    /// When the processor lacks the instruction set.
    fn run_f64<W: ForSimd>(self, work: W) -> W::Output;
}

impl SimdDispatch for InstructionSet {
    fn run_f32<W: ForSimd>(self, work: W) -> W::Output {
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

    fn run_f64<W: ForSimd>(self, work: W) -> W::Output {
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

#[cfg(test)]
pub(crate) fn for_each_instruction_set(f: impl Fn(InstructionSet)) {
    for set in InstructionSet::available() {
        f(set);
    }
}
