//! Builds the kernel programs and leaves the object where `include_bytes_aligned!` finds it.

use anyhow::Context as _;

#[expect(unsafe_code, reason = "setting an environment variable is unsafe once there are threads")]
fn main() -> anyhow::Result<()> {
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf");
    // `-Z build-std=core` is the one unstable thing needed, and only the nested build for the BPF target needs it.
    // SAFETY: a build script's `main` has started no thread.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    println!("cargo:rerun-if-changed={}", concat!(env!("CARGO_MANIFEST_DIR"), "/../common"));
    let package = aya_build::Package { name: "s3auditd-ebpf", root_dir, ..Default::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom("1.95.0"))
        .context("building the kernel programs; `cargo xtask setup` brings what this needs")
}
