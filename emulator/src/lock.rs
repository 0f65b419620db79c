//! Locking a mutex whose holder cannot leave its data half changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ignores poisoning: every critical section of this crate is one step, so a panic elsewhere leaves the data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
