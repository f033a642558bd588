//! Many connections kept full from one thread.
