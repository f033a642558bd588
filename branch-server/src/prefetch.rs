//! Starting a cache miss early. A worker takes several requests at a time and asks for all their lines
//! before it needs the first, so that the misses overlap.

/// Starts to bring the cache line at `address` into the first-level cache. Never faults, whatever the
/// address; does nothing on machines where we know no instruction for it.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is a hint; it does not access memory in the sense of the language and ignores
    // addresses that are not mapped. SSE is part of x86-64's base.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
