//! The journal. Under construction.
