//! Calls of kernel functions (kfuncs), which aya does not resolve: marks in the object become calls of what this kernel has,
//! or nothing.

use super::btf::KernelTypes;
use s3auditd_common::settings::{PREEMPT_DISABLE, PREEMPT_ENABLE};

/// What a mark stands for. Both or none: they came together (6.10).
const FUNCTIONS: [(usize, &str); 2] =
    [(PREEMPT_DISABLE, "bpf_preempt_disable"), (PREEMPT_ENABLE, "bpf_preempt_enable")];

type Instruction = [u8; 8];
/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, where an instruction has its source register: the immediate is a BTF id.
const KERNEL_FUNCTION: u8 = 2 << 4;
/// `r0 = 0`: a call leaves a value in r0, and so does what stands for none.
const NOTHING: Instruction = [0xb7, 0, 0, 0, 0, 0, 0, 0];

/// The object with every mark replaced. `wanted`: by calls, where the kernel has the functions.
pub(super) fn resolved(object: &[u8], types: &KernelTypes, wanted: bool) -> Vec<u8> {
    let ids = FUNCTIONS.map(|(_, name)| types.function(name).filter(|_| wanted));
    let all = ids.iter().all(Option::is_some);
    let instructions = ids.map(|id| id.filter(|_| all).map_or(NOTHING, |id| instruction(KERNEL_FUNCTION, id)));
    let mut object = object.to_vec();
    // Programs lie aligned as their instructions are.
    for place in object.as_chunks_mut().0 {
        for ((mark, _), instruction) in FUNCTIONS.iter().zip(&instructions) {
            if *place == marked(*mark) {
                *place = *instruction;
            }
        }
    }
    object
}

/// What the compiler made of a mark: the call of a helper with that number.
fn marked(mark: usize) -> Instruction {
    instruction(0, u32::try_from(mark).unwrap_or(0))
}

fn instruction(registers: u8, immediate: u32) -> Instruction {
    let [a, b, c, d] = immediate.to_le_bytes();
    [CALL, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::super::{attach::OBJECT, btf::KERNEL_BTF};
    use super::*;
    use std::path::Path;

    fn count(object: &[u8], instruction: Instruction) -> usize {
        object.as_chunks().0.iter().filter(|place| **place == instruction).count()
    }

    #[test]
    fn every_mark_of_the_object_is_replaced() {
        let [off, on] = FUNCTIONS.map(|(mark, _)| count(OBJECT, marked(mark)));
        assert!(off > 0 && on > 0, "{off} places switch preemption off, {on} on");
        let types = KernelTypes::read(Path::new(KERNEL_BTF)).unwrap();
        let ids = FUNCTIONS.map(|(_, name)| types.function(name));
        for wanted in [false, true] {
            let object = resolved(OBJECT, &types, wanted);
            assert_eq!(object.len(), OBJECT.len());
            assert_eq!(FUNCTIONS.map(|(mark, _)| count(&object, marked(mark))), [0, 0]);
            if let [Some(disable), Some(enable)] = ids {
                let calls = [disable, enable].map(|id| count(&object, instruction(KERNEL_FUNCTION, id)));
                assert_eq!(calls, if wanted { [off, on] } else { [0, 0] });
            }
        }
    }

    #[test]
    fn a_call_of_a_kernel_function_is_marked_as_one() {
        assert_eq!(instruction(KERNEL_FUNCTION, 0x0102_0304), [0x85, 0x20, 0, 0, 4, 3, 2, 1]);
    }
}
