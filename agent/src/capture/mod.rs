//! From kernel programs to samples: load, attach, drain.

pub mod status;
