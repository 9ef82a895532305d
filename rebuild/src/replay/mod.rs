//! What replays offline: conversations written as text, and recordings of live samples.
//!
//! Both end as samples, so that everything behind is the same code as live. `docs/replay.md` is the reference of both
//! formats. Pure like the rest: lines and bytes in, samples out; who calls reads and writes the files.

pub mod conversation;
pub mod recording;
pub mod scrub;
