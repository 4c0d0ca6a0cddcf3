//! The gate: what goes when.
