//! What exchanges mean, and the records made of them.

mod edge_cases;
mod exchanges;
mod golden;
mod hostile;
mod secrets;
mod table;
