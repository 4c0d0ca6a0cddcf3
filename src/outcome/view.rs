//! The outcome view. Under construction.
