//! The naive oracle: one plain function an op, never optimised. Every backend is compared with these.
