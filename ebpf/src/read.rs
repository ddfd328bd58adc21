//! Reading kernel memory, for programs of every object.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// A kernel address; 0 is "none".
pub type Address = u64;

/// Reads from an address; zeros when it cannot be read.
#[inline(always)]
pub fn at<T: Copy + Default>(address: Address) -> T {
    let mut value = T::default();
    // SAFETY: `value` has the size that is given; the helper checks the address, and fills the
    // value with zeros when it is wrong.
    unsafe {
        bpf_probe_read_kernel(
            core::ptr::from_mut(&mut value).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    value
}
