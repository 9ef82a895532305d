//! What exchanges mean, and the records made of them.

mod botocore;
mod edge_cases;
mod exchanges;
mod golden;
mod hostile;
mod secrets;
mod table;
