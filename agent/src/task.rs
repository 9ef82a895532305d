//! What became of a task.

use tokio::task::JoinError;

/// A task that panicked takes this one along: what it held cannot be accounted for any more.
pub(crate) fn whole<T>(ended: Result<T, JoinError>) -> T {
    match ended {
        Ok(ended) => ended,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
