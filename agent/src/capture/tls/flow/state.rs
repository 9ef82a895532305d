//! What is known in front of an instruction, and what an instruction makes of it.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Value {
    Unknown,
    Number(u64),
    /// An argument of the function, the first is 0; so many of its lower bits.
    Argument(u8, u32),
    /// An argument of 64 bits, to which something was added or not.
    From(u8),
    /// The stack pointer at the function's first instruction, and so much added.
    Stack(i64),
}

impl Value {
    fn meet(self, other: Self) -> Self {
        use Value::{Argument, From, Unknown};
        match (self, other) {
            (one, two) if one == two => one,
            (Argument(one, bits), Argument(two, others)) if one == two => Argument(one, bits.min(others)),
            (Argument(one, 64) | From(one), Argument(two, 64) | From(two)) if one == two => From(one),
            _ => Unknown,
        }
    }

    /// Its lower bits, the others being lost.
    fn low(self, bits: u32) -> Self {
        match self {
            Self::Argument(argument, known) => Self::Argument(argument, known.min(bits)),
            Self::Number(number) if bits >= 32 => Self::Number(number & (u64::MAX >> (64 - bits))),
            same if bits == 64 => same,
            _ => Self::Unknown,
        }
    }

    /// With something added or taken away.
    fn moved(self) -> Self {
        match self {
            Self::Argument(argument, 64) | Self::From(argument) => Self::From(argument),
            _ => Self::Unknown,
        }
    }
}

/// What is known in front of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    registers: [Value; 16],
    /// By place on the stack, with their bytes.
    pub slots: BTreeMap<i64, (Value, i64)>,
}

const RESULT: usize = 0;
const SP: usize = 4;
const BP: usize = 5;
/// Those of the arguments, and the others that a call does not keep.
pub(super) const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
const OTHERS_NOT_KEPT: [usize; 3] = [RESULT, 10, 11];

impl State {
    pub fn at_entry() -> Self {
        let mut state = Self { registers: [Value::Unknown; 16], slots: BTreeMap::new() };
        for (argument, register) in (0..).zip(ARGUMENTS) {
            state.set(register, Value::Argument(argument, 64));
        }
        state.set(SP, Value::Stack(0));
        state
    }

    pub fn register(&self, register: usize) -> Value {
        self.registers.get(register).copied().unwrap_or(Value::Unknown)
    }

    fn set(&mut self, register: usize, value: Value) {
        if let Some(place) = self.registers.get_mut(register) {
            *place = value;
        }
    }

    pub fn sp(&self) -> Option<i64> {
        if let Value::Stack(at) = self.register(SP) { Some(at) } else { None }
    }

    /// None: the two have different frames.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        if self.sp() != other.sp() {
            return None;
        }
        let mut met = self.clone();
        for (one, other) in met.registers.iter_mut().zip(other.registers) {
            *one = one.meet(other);
        }
        met.slots.retain(|at, (value, bytes)| match other.slots.get(at) {
            Some((others, of)) if of == bytes => {
                *value = value.meet(*others);
                *value != Value::Unknown
            }
            _ => false,
        });
        Some(met)
    }

    /// `returns_first`: what it was given first comes back as the result.
    pub fn call(&mut self, returns_first: bool) {
        let [first, ..] = ARGUMENTS;
        let result = if returns_first { self.register(first) } else { Value::Unknown };
        for register in ARGUMENTS.into_iter().chain(OTHERS_NOT_KEPT) {
            self.set(register, Value::Unknown);
        }
        self.set(RESULT, result);
        self.cut();
    }

    /// Below the stack pointer nothing lasts.
    fn cut(&mut self) {
        let sp = self.sp().unwrap_or(i64::MAX);
        self.slots.retain(|at, _| *at >= sp);
    }

    /// What a slot has, or so many bytes of it.
    fn load(&self, at: Option<i64>, bytes: i64) -> Value {
        match at.and_then(|at| self.slots.get(&at)) {
            Some((value, known)) if *known >= bytes => value.low(bits_of(bytes)),
            _ => Value::Unknown,
        }
    }

    fn store(&mut self, at: i64, bytes: i64, value: Value) {
        self.slots.retain(|other, (_, length)| *other + *length <= at || at + bytes <= *other);
        let value = value.low(bits_of(bytes));
        if value != Value::Unknown {
            self.slots.insert(at, (value, bytes));
        }
    }

    /// Something was written there, and what is not known; `and_on`: nor how much.
    fn written(&mut self, memory: &UsedMemory, and_on: bool) {
        let base = number(memory.base()).map_or(Value::Unknown, |base| self.register(base));
        let bytes = i64::try_from(memory.memory_size().size()).unwrap_or_default();
        match (base, memory.index(), bytes) {
            (Value::Stack(base), Register::None, 1..) if !and_on => {
                self.store(base.wrapping_add_unsigned(memory.displacement()), bytes, Value::Unknown);
            }
            (Value::Stack(_), ..) => self.slots.clear(),
            _ if number(memory.index()).is_some_and(|index| matches!(self.register(index), Value::Stack(_))) => {
                self.slots.clear();
            }
            _ => {}
        }
    }

    /// The place on the stack that an instruction's memory operand is.
    fn slot(&self, instruction: &Instruction) -> Option<i64> {
        let Value::Stack(base) = self.register(number(instruction.memory_base())?) else { return None };
        let is_plain = instruction.memory_index() == Register::None && instruction.segment_prefix() == Register::None;
        is_plain.then(|| base.wrapping_add_unsigned(instruction.memory_displacement64()))
    }

    /// What an operand has. Bytes of it; None: it is none of those that are followed.
    fn operand(&self, instruction: &Instruction, operand: u32) -> Option<(Value, i64)> {
        match instruction.op_kind(operand) {
            OpKind::Register => {
                let register = instruction.op_register(operand);
                let bytes = i64::try_from(register.size()).ok()?;
                let value = if is_high(register) { Value::Unknown } else { self.register(number(register)?) };
                Some((value.low(bits_of(bytes)), bytes))
            }
            OpKind::Memory => {
                let bytes = i64::try_from(instruction.memory_size().size()).ok()?;
                Some((self.load(self.slot(instruction), bytes), bytes))
            }
            OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32
            | OpKind::Immediate32to64
            | OpKind::Immediate64 => Some((Value::Number(instruction.immediate(operand)), 8)),
            _ => None,
        }
    }

    /// An instruction that goes on to the next one. None: it does what is not understood to the stack pointer.
    pub fn step(
        &mut self,
        instruction: &Instruction,
        infos: &mut InstructionInfoFactory,
        taken: &mut BTreeSet<i64>,
    ) -> Option<()> {
        let first = (instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register)
            .then(|| instruction.op0_register());
        let sp = self.sp()?;
        let known = match instruction.mnemonic() {
            Mnemonic::Push if instruction.stack_pointer_increment() == -8 => {
                let (value, _) = self.operand(instruction, 0).unwrap_or((Value::Unknown, 8));
                self.set(SP, Value::Stack(sp - 8));
                self.store(sp - 8, 8, value);
                return Some(());
            }
            Mnemonic::Pop if instruction.stack_pointer_increment() == 8 && first.is_some() => {
                let value = self.load(Some(sp), 8);
                self.set(SP, Value::Stack(sp + 8));
                self.set(number(first?)?, value);
                self.cut();
                return self.sp().map(|_| ());
            }
            Mnemonic::Leave => {
                let Value::Stack(base) = self.register(BP) else { return None };
                let value = self.load(Some(base), 8);
                self.set(SP, Value::Stack(base + 8));
                self.set(BP, value);
                self.cut();
                return Some(());
            }
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
                let (value, bytes) = self.operand(instruction, 1).unwrap_or((Value::Unknown, 8));
                // A sign that is drawn out makes another number of it.
                let is_signed = matches!(instruction.mnemonic(), Mnemonic::Movsx | Mnemonic::Movsxd);
                let is_number = matches!(value, Value::Number(_));
                let value = if is_signed && is_number { Value::Unknown } else { value.low(bits_of(bytes)) };
                if instruction.op0_kind() == OpKind::Memory {
                    if let Some(at) = self.slot(instruction) {
                        let bytes = i64::try_from(instruction.memory_size().size()).ok()?;
                        self.store(at, bytes, value);
                        return Some(());
                    }
                    None
                } else {
                    Some(value)
                }
            }
            Mnemonic::Lea => {
                let (base, index) = (number(instruction.memory_base()), number(instruction.memory_index()));
                let of = |register: Option<usize>| register.map_or(Value::Unknown, |register| self.register(register));
                let value = match (self.slot(instruction), base, index) {
                    (Some(at), ..) => Value::Stack(at),
                    (None, Some(_), None) => of(base).moved(),
                    // One of the two is an address, and which one the scale tells, or that the other is none.
                    (None, Some(_), Some(_)) => match (of(base).moved(), of(index).moved()) {
                        (one, Value::Unknown) => one,
                        (Value::Unknown, other) if instruction.memory_index_scale() == 1 => other,
                        _ => Value::Unknown,
                    },
                    _ => Value::Unknown,
                };
                if let Value::Stack(at) = value
                    && first != Some(Register::RSP)
                {
                    taken.insert(at);
                }
                // Of an array on the stack: its beginning.
                if let (Value::Stack(base), Some(_)) = (of(base), index) {
                    taken.insert(base.wrapping_add_unsigned(instruction.memory_displacement64()));
                }
                Some(value)
            }
            Mnemonic::Xor | Mnemonic::Sub if first.is_some() && is_of_itself(instruction) => Some(Value::Number(0)),
            Mnemonic::Add | Mnemonic::Sub if first.is_some() => {
                let (value, _) = self.operand(instruction, 0)?;
                let by = self.operand(instruction, 1).map_or(Value::Unknown, |(by, _)| by);
                match (value, by) {
                    (Value::Stack(at), Value::Number(by)) => {
                        let by = by.cast_signed();
                        let by = if instruction.mnemonic() == Mnemonic::Add { by } else { by.checked_neg()? };
                        Some(Value::Stack(at.checked_add(by)?))
                    }
                    (value, by) if value.moved() == Value::Unknown && instruction.mnemonic() == Mnemonic::Add => {
                        Some(by.moved())
                    }
                    // The distance of two places is none.
                    (_, by) if by.moved() != Value::Unknown => Some(Value::Unknown),
                    (value, _) => Some(value.moved()),
                }
            }
            _ => None,
        };
        let info = infos.info(instruction);
        for register in info.used_registers() {
            if is_written(register.access())
                && let Some(number) = number(register.register())
            {
                self.set(number, Value::Unknown);
            }
        }
        for memory in info.used_memory().iter().filter(|memory| is_written(memory.access())) {
            self.written(memory, instruction.is_string_instruction());
        }
        if let (Some(value), Some(register)) = (known, first)
            && let Some(number) = number(register)
            && !is_high(register)
        {
            let bits = bits_of(i64::try_from(register.size()).ok()?);
            self.set(number, value.low(bits));
        }
        self.cut_if_moved(sp)
    }

    fn cut_if_moved(&mut self, before: i64) -> Option<()> {
        if self.sp()? > before {
            self.cut();
        }
        Some(())
    }
}

/// The number of a general register, whichever part of it is meant.
fn number(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}

/// The second byte of a register.
const fn is_high(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

const fn bits_of(bytes: i64) -> u32 {
    match bytes {
        8.. => 64,
        4.. => 32,
        _ => 8,
    }
}

fn is_of_itself(instruction: &Instruction) -> bool {
    instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
        && instruction.op0_register().size() >= 4
}

const fn is_written(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}
