//! The words of the business: money, ids, requests, states, codes. Standard library only, no I/O, no clock.
