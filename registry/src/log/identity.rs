//! Whose log this is.

/// Written when a node's folder is made, and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The bank's control plane, drawn when its first node was made.
    pub cluster_id: u128,
    /// This node's number in it.
    pub node_id: u64,
    /// Drawn with the folder: a node that comes back with an empty one is another node, whatever its number.
    pub incarnation: u128,
}
