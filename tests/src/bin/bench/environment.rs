//! Where figures were taken, and what else went on there.

use serde::Serialize;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a reader needs to compare figures with other machines'.
#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    kernel: String,
    cpu: String,
    cpus: usize,
    memory: String,
    /// Of one, five and fifteen minutes, before the run.
    load: String,
    /// Each program with what it says of itself.
    versions: Vec<(String, String)>,
}

impl Environment {
    /// Of this machine, with the versions of these programs.
    pub(crate) fn read(programs: Vec<(Command, &'static str)>) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let versions = programs.into_iter().map(|(mut program, argument)| {
            let name = Path::new(program.get_program()).file_name().unwrap_or_default();
            (name.to_string_lossy().into_owned(), said(program.arg(argument)))
        });
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&text("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory: field(&text("/proc/meminfo"), "MemTotal"),
            load: text("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            versions: versions.collect(),
        }
    }

    pub(crate) fn print(&self) {
        let Self { kernel, cpu, cpus, memory, load, versions } = self;
        println!("bench: Linux {kernel}, {cpus} CPUs ({cpu}), {memory}, load {load}");
        for (program, version) in versions {
            println!("bench: {program}: {version}");
        }
    }
}

/// The first line that it prints, wherever it prints it.
fn said(program: &mut Command) -> String {
    let Ok(output) = program.stdout(Stdio::piped()).stderr(Stdio::piped()).output() else {
        return "does not run".to_owned();
    };
    let all = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&all).lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
