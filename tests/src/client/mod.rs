//! Clients that make calls and say what each was.

pub mod flood;
pub mod light;
pub mod mc;
pub mod script;
pub mod sign;
