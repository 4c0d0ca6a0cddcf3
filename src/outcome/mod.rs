//! The outcome log: what became of every request, appended durably, read by many from cursors of their own.
pub mod entry;
