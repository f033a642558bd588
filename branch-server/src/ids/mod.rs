//! Which transfer ids were ever used, and where their records lie.
