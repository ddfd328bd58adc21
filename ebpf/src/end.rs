//! What every object needs: an end for panics, which the compiler proves away, and the licence that
//! the kernel's helpers ask for.

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: the kernel reads this section by its name; no other item claims it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
