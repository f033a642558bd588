//! How a wire struct is declared: fixed layout, alignment 1, no padding, read in place.
//!
//! Invariant: the offset written in front of each field is where it lies; the compiler asserts it, and
//! docs/PROTOCOL.md is compared with it by a test.

/// Where one field of a wire struct lies: what docs/PROTOCOL.md is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// The field's name in the code and in the document.
    pub name: &'static str,
    /// Bytes in front of it.
    pub offset_bytes: usize,
    /// Bytes that it takes.
    pub len_bytes: usize,
}

/// Declares a wire struct: its size, and for each field its offset, both asserted at compile time.
macro_rules! wire {
    ($(#[$meta:meta])* $name:ident $len:literal { $( $(#[$fmeta:meta])* $offset:literal $field:ident : $ty:ty, )+ }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable, zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )+ }
        const _: () = assert!(size_of::<$name>() == $len);
        $( const _: () = assert!(core::mem::offset_of!($name, $field) == $offset); )+
        impl $name {
            /// Bytes on the wire.
            pub const LEN_BYTES: usize = $len;
            /// Where each field lies.
            pub const FIELDS: &'static [crate::wire::FieldLayout] = &[$(
                crate::wire::FieldLayout {
                    name: stringify!($field),
                    offset_bytes: $offset,
                    len_bytes: size_of::<$ty>(),
                },
            )+];
        }
    };
}
