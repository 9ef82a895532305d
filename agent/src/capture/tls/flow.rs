//! Where a function (x86-64) has its arguments at each of its calls: in which callee-saved register, or in which slot of its stack frame.
//!
//! Its instructions are followed along all ways at once. Known of a register or slot is what is known on every way that leads there;
//! whatever is not understood makes what it writes unknown. What is assumed of compilers:
//! - a call keeps `rbx`, `rbp` and `r12` to `r15` (System V ABI), and writes no slot of its caller whose address was never taken. A slot in
//!   which a compiler keeps a value is no object of the program's, so no address of an object before it leads there;
//! - a pointer that does not come from the stack pointer does not point to such a slot either.

mod state;

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, OpKind};
pub(super) use state::Value;
use state::{ARGUMENTS, State};
use std::collections::{BTreeMap, BTreeSet};

/// No function that is followed takes so many steps: the largest of OpenSSL takes 3,000.
const MAX_STEPS: usize = 100_000;

/// Instructions in memory before relocation.
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    pub address: u64,
    pub bytes: &'a [u8],
}

impl<'a> Code<'a> {
    fn from(&self, address: u64) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(address.checked_sub(self.address)?).ok()?..)
    }
}

/// Where an argument is at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By the processor's number.
    Register(u8),
    /// So many bytes above the stack pointer.
    Slot(i64),
}

/// What a function that is called hands back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    Something,
    /// What it was given first, as `memcpy` does.
    ItsFirst,
    Never,
}

/// A call in a function.
#[derive(Debug)]
pub(super) struct Call {
    pub at: u64,
    pub to: u64,
    state: State,
}

/// What is known of a function's calls.
#[derive(Debug)]
pub(super) struct Flow {
    pub calls: Vec<Call>,
    /// Places on the stack whose address was taken.
    taken: BTreeSet<i64>,
}

impl Flow {
    /// Follows the function that begins there. `is_function` tells where others begin, `returns` what those hand back that are
    /// called. None: it does
    /// what is not understood.
    pub(super) fn of(
        code: Code<'_>,
        begin: u64,
        is_function: impl Fn(u64) -> bool,
        returns: impl Fn(u64) -> Returns,
    ) -> Option<Self> {
        let mut known = BTreeMap::from([(begin, State::at_entry())]);
        let mut calls = BTreeMap::new();
        let (mut taken, mut open) = (BTreeSet::new(), vec![begin]);
        let mut infos = InstructionInfoFactory::new();
        for _ in 0..MAX_STEPS {
            let Some(at) = open.pop() else {
                let call = |(at, to): (u64, u64)| Some(Call { at, to, state: known.get(&at)?.clone() });
                return Some(Self { calls: calls.into_iter().map(call).collect::<Option<_>>()?, taken });
            };
            let instruction = Decoder::with_ip(64, code.from(at)?, at, DecoderOptions::NONE).decode();
            if instruction.is_invalid() {
                return None;
            }
            let mut state = known.get(&at)?.clone();
            let target = instruction.near_branch_target();
            let next = match instruction.flow_control() {
                FlowControl::Next => {
                    state.step(&instruction, &mut infos, &mut taken)?;
                    [Some(instruction.next_ip()), None]
                }
                FlowControl::Call if instruction.op0_kind() == OpKind::NearBranch64 => {
                    calls.insert(at, target);
                    let returns = returns(target);
                    state.call(returns == Returns::ItsFirst);
                    [(returns != Returns::Never).then_some(instruction.next_ip()), None]
                }
                FlowControl::IndirectCall => {
                    state.call(false);
                    [Some(instruction.next_ip()), None]
                }
                FlowControl::ConditionalBranch => [Some(instruction.next_ip()), Some(target)],
                FlowControl::UnconditionalBranch if instruction.op0_kind() == OpKind::NearBranch64 => {
                    // Into a part of the function that stands elsewhere, unless it ends by calling another one.
                    let is_last_call = state.sp() == Some(0) && (is_function(target) || code.from(target).is_none());
                    [None, (!is_last_call).then_some(target)]
                }
                FlowControl::Return => [None, None],
                FlowControl::Exception | FlowControl::Interrupt => [None, None],
                _ => return None,
            };
            for next in next.into_iter().flatten() {
                let joined = match known.get(&next) {
                    Some(before) => before.meet(&state)?,
                    None => state.clone(),
                };
                if known.get(&next) != Some(&joined) {
                    known.insert(next, joined);
                    open.push(next);
                }
            }
        }
        None
    }

    /// Where so many lower bits of an argument of the function are at a call, if that is known.
    pub(super) fn place(&self, call: &Call, argument: u8, bits: u32) -> Option<Place> {
        const KEPT: [u8; 6] = [3, 5, 12, 13, 14, 15];
        let is = |value: Value| matches!(value, Value::Argument(of, known) if of == argument && known >= bits);
        let register = KEPT.into_iter().find(|kept| is(call.state.register(usize::from(*kept))));
        let slot = || {
            let mut slots = call.state.slots.iter();
            let is_taken = |at: i64, bytes: i64| self.taken.range(at..at + bytes).next().is_some();
            let (at, _) = slots.find(|(at, (value, bytes))| is(*value) && !is_taken(**at, *bytes))?;
            Some(Place::Slot(at - call.state.sp()?))
        };
        register.map(Place::Register).or_else(slot)
    }
}

impl Call {
    /// What it is given as its argument, of those that registers are for.
    pub(super) fn given(&self, argument: usize) -> Value {
        ARGUMENTS.get(argument).map_or(Value::Unknown, |register| self.state.register(*register))
    }
}
