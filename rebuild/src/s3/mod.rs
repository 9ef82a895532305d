//! What an HTTP exchange meant as an S3 operation: where it pointed, what it asked, who asked, how it ended.

pub mod address;
pub mod caller;
pub mod claims;
pub mod content;
pub mod multi_delete;
pub mod operation;
pub mod outcome;
pub mod post_form;
pub mod query;
pub mod settle;
pub mod sts;
pub mod table;
pub mod xml;
