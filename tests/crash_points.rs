//! The process ends between every two durable steps; nothing is lost or doubled.
