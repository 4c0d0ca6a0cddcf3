//! A request that crashes the process is set aside; the rest is paid.
