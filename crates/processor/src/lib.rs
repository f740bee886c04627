//! The CPU: which of the kernels' instruction sets it has ([`InstructionSet`]), and what it is called ([`model_name`], [`processor_name`]).

mod instruction_set;
mod name;

pub use instruction_set::{InstructionSet, InstructionSetMissing};
pub use name::{model_name, processor_name, processor_name_with};
