//! The stream of records: what makes it say itself what is complete.

pub mod chain;
pub mod gaps;
