//! The ways to hook sockets, and what of the running kernel decides whether one can be tried.

use super::btf::KernelTypes;
use crate::config::BackendChoice;
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FExit, KProbe, ProgramError},
};
use s3auditd_common::counters::CHANCES;

/// Every way, best first. They are tried by loading, not by kernel version.
pub(super) const BACKENDS: &[Backend] = &[
    Backend {
        choice: BackendChoice::SocketTracepoints,
        hooks: &[
            Hook::tracepoint("socket_received", "sock_recv_length"),
            Hook::tracepoint("socket_sent", "sock_send_length"),
        ],
        knows_types: true,
        reads_registers: true,
    },
    Backend {
        choice: BackendChoice::Fexit,
        hooks: &[
            Hook { walks: true, ..Hook::new("function_received", Place::End, "tcp_recvmsg") },
            Hook { walks: true, ..Hook::new("function_sent", Place::End, "tcp_sendmsg") },
            Hook { optional: true, ..Hook::new("function_sent_pages", Place::End, "tcp_sendpage") },
        ],
        knows_types: true,
        reads_registers: false,
    },
    Backend {
        choice: BackendChoice::Kprobe,
        // Returns before entries: what an entry has noted must find its return.
        hooks: &[
            Hook { walks: true, ..Hook::new("probe_received", Place::Probe, "tcp_recvmsg") },
            Hook { walks: true, ..Hook::new("probe_sent", Place::Probe, "tcp_sendmsg") },
            Hook { optional: true, ..Hook::new("probe_sent_pages", Place::Probe, "tcp_sendpage") },
            Hook::new("probe_receive", Place::Probe, "tcp_recvmsg"),
            Hook::new("probe_send", Place::Probe, "tcp_sendmsg"),
            Hook { optional: true, ..Hook::new("probe_send_pages", Place::Probe, "tcp_sendpage") },
            Hook { optional: true, ..Hook::tracepoint("thread_ended", "sched_process_exit") },
        ],
        knows_types: false,
        reads_registers: false,
    },
    Backend {
        choice: BackendChoice::Syscall,
        hooks: &[Hook { walks: true, ..Hook::tracepoint("system_call_ended", "sys_exit") }],
        knows_types: false,
        reads_registers: true,
    },
];

/// Connections opened and closed: the same for all.
const LIFECYCLE: &[Hook] = &[
    Hook::tracepoint("socket_state_changed", "inet_sock_set_state"),
    Hook::tracepoint("socket_destroyed", "tcp_destroy_sock"),
];

/// One way to hook sockets.
pub(super) struct Backend {
    pub choice: BackendChoice,
    hooks: &'static [Hook],
    /// Its programs get sockets as typed pointers, of which the kernel tells the cookie.
    knows_types: bool,
    /// It finds buffers in x86-64 registers.
    reads_registers: bool,
}

/// A program of the object and where it goes.
struct Hook {
    program: &'static str,
    place: Place,
    target: &'static str,
    /// It walks through buffers: there is a second one, `_bounded`, for kernels without `bpf_loop`.
    walks: bool,
    /// Left out where the kernel has no such function.
    optional: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A typed tracepoint.
    Tracepoint,
    /// The end of a function.
    End,
    /// Its entry or its return, as the program's section says.
    Probe,
}

impl Hook {
    const fn new(program: &'static str, place: Place, target: &'static str) -> Self {
        Self { program, place, target, walks: false, optional: false }
    }

    const fn tracepoint(program: &'static str, target: &'static str) -> Self {
        Self::new(program, Place::Tracepoint, target)
    }

    fn exists(&self, types: &KernelTypes) -> bool {
        match self.place {
            Place::Tracepoint => types.has_tracepoint(self.target),
            Place::End | Place::Probe => types.parameters(self.target).is_some(),
        }
    }

    fn attach(&self, ebpf: &mut Ebpf, btf: &Btf, types: &KernelTypes) -> Result<(), ProgramError> {
        let bounded = if self.walks && !has_helper(types, "bpf_loop") { "_bounded" } else { "" };
        self.attach_one(&format!("{}{bounded}", self.program), ebpf, btf)?;
        if self.place == Place::Tracepoint && chances(types) > 1 {
            // Not every program has further ones.
            let further = FURTHER.map(|further| format!("{}{further}", self.program));
            for program in further.iter().filter(|program| ebpf.program(program).is_some()).collect::<Vec<_>>() {
                self.attach_one(program, ebpf, btf)?;
            }
        }
        Ok(())
    }

    fn attach_one(&self, program: &str, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
        let program = ebpf.program_mut(program).ok_or(ProgramError::NotLoaded)?;
        match self.place {
            Place::Tracepoint => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(self.target, btf)?;
                program.attach()?;
            }
            Place::End => {
                let program: &mut FExit = program.try_into()?;
                program.load(self.target, btf)?;
                program.attach()?;
            }
            Place::Probe => {
                let program: &mut KProbe = program.try_into()?;
                program.load()?;
                program.attach(self.target, 0)?;
            }
        }
        Ok(())
    }
}

impl Backend {
    /// Why it need not be tried on this kernel, if that is known.
    pub fn ruled_out(&self, types: &KernelTypes) -> Option<String> {
        if self.reads_registers && !cfg!(target_arch = "x86_64") {
            return Some("it reads x86-64 registers".to_owned());
        }
        let missing = |hook: &&Hook| !hook.optional && !hook.exists(types);
        if let Some(hook) = self.hooks.iter().chain(LIFECYCLE).find(missing) {
            let what = if hook.place == Place::Tracepoint { "typed tracepoint" } else { "function" };
            return Some(format!("this kernel has no {what} {}", hook.target));
        }
        let ends_functions = self.hooks.iter().any(|hook| hook.place == Place::End);
        (ends_functions && may_run_inside_itself(types)).then(|| {
            "this kernel (5.11) lets such a program be preempted and run inside itself, which would mix connections"
                .to_owned()
        })
    }

    /// Whether it notes at a call's entry what it needs at the return.
    pub fn notes_calls(&self) -> bool {
        self.choice == BackendChoice::Kprobe
    }

    /// Whether sockets need numbers of our own.
    pub fn needs_own_numbers(&self, types: &KernelTypes) -> bool {
        !self.knows_types || !has_helper(types, "bpf_get_socket_ptr_cookie")
    }

    /// Loads and attaches every program.
    pub fn attach(&self, ebpf: &mut Ebpf, btf: &Btf, types: &KernelTypes) -> Result<(), String> {
        for hook in self.hooks.iter().chain(LIFECYCLE).filter(|hook| hook.exists(types)) {
            hook.attach(ebpf, btf, types)
                .map_err(|error| format!("{}: {}", hook.target, super::attach::chain(&error)))?;
        }
        Ok(())
    }
}

/// How the programs of further chances end in name.
const FURTHER: [&str; CHANCES as usize - 1] = ["_second", "_third"];

/// The program that is the first chance of the same event.
pub(super) fn first_of(program: &str) -> &str {
    FURTHER.iter().find_map(|further| program.strip_suffix(further)).unwrap_or(program)
}

/// How many programs are attached to a tracepoint: several where the kernel skips one that it has preempted on the same
/// CPU. Such tracepoints wait by SRCU in its fast kind (docs/decisions/0006-programs-alone.md); earlier ones had SRCU only
/// beside what switches preemption off.
pub(super) fn chances(types: &KernelTypes) -> u32 {
    let preemptible =
        types.has_variable("tracepoint_srcu_srcu_data") && types.parameters("init_srcu_struct_fast").is_some();
    if preemptible { CHANCES } else { 1 }
}

/// Whether the kernel has a helper, by the name of the function behind it.
fn has_helper(types: &KernelTypes, function: &str) -> bool {
    types.parameters(function).is_some()
}

/// Since 5.11 programs at functions may be preempted; since 5.12 the kernel does not run one inside itself
/// (docs/decisions/0006-programs-alone.md).
fn may_run_inside_itself(types: &KernelTypes) -> bool {
    types.offset("task_struct", "migration_disabled").is_some() && types.offset("bpf_prog", "active").is_none()
}
