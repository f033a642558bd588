//! What a scanned tail means.
