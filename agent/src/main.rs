//! WIP: the daemon's side of the change is elsewhere.
fn main() {}
