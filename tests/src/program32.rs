//! Programs of a few instructions that enter the kernel by `int 0x80`, as 32-bit programs do: put
//! together byte by byte, since neither compilers nor guests have a 32-bit C library.
//!
//! No product code. What a program does besides calling the kernel is exit with [`EXIT`].

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What every program exits with.
pub const EXIT: u32 = 7;

const LOAD: u32 = 0x0804_8000;
const HEADERS: usize = 52 + 32;
/// The code's place in the file; data come behind it.
const CODE_MAX: usize = 4096 - HEADERS;
const DATA: u32 = LOAD + 4096;

/// A program that is being put together.
#[derive(Debug, Default)]
pub struct Program32 {
    code: Vec<u8>,
    data: Vec<u8>,
}

impl Program32 {
    /// Puts bytes into the program's memory, and gives their address.
    pub fn data(&mut self, bytes: &[u8]) -> u32 {
        let address = DATA + u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.data.extend_from_slice(bytes);
        // Words that are read as such stand at their own multiples.
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        address
    }

    /// A system call with up to five arguments; what it returns is not looked at.
    pub fn call(&mut self, number: u32, arguments: &[u32]) {
        // mov eax, ebx, ecx, edx, esi, edi
        for (register, value) in [0xb8, 0xbb, 0xb9, 0xba, 0xbe, 0xbf]
            .into_iter()
            .zip(std::iter::once(&number).chain(arguments))
        {
            self.code.push(register);
            self.code.extend(value.to_le_bytes());
        }
        self.code.extend([0xcd, 0x80]);
    }

    /// A thread of the same process that for ever changes the case of one letter.
    pub fn flip_case_in_a_thread(&mut self, letter: u32) {
        /// `CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM`
        const THREAD: u32 = 0x5_0f00;
        let stack = self.data(&[0; 4096]) + 4096;
        self.call(120, &[THREAD, stack, 0, 0, 0]);
        // test eax, eax; jnz over the thread; xor byte [letter], 0x20; jmp back
        self.code.extend([0x85, 0xc0, 0x75, 9, 0x80, 0x35]);
        self.code.extend(letter.to_le_bytes());
        self.code.extend([0x20, 0xeb, 0xf7]);
    }

    /// Counts down from a number: time in which a thread can do something.
    pub fn spin(&mut self, rounds: u32) {
        self.code.push(0xb9);
        self.code.extend(rounds.to_le_bytes());
        // dec ecx; jnz back
        self.code.extend([0x49, 0x75, 0xfd]);
    }

    /// Writes the program to an executable file.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write(mut self, path: &Path) -> std::io::Result<()> {
        self.call(1, &[EXIT]);
        assert!(self.code.len() <= CODE_MAX, "too much code");
        let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let half = |file: &mut Vec<u8>, values: &[u16]| {
            values.iter().for_each(|value| file.extend(value.to_le_bytes()));
        };
        let word = |file: &mut Vec<u8>, values: &[u32]| {
            values.iter().for_each(|value| file.extend(value.to_le_bytes()));
        };
        // ET_EXEC, EM_386, EV_CURRENT, entry, program headers at 52
        half(&mut file, &[2, 3]);
        word(&mut file, &[1, LOAD + HEADERS as u32, 52, 0, 0]);
        half(&mut file, &[52, 32, 1, 0, 0, 0]);
        let size = 4096 + u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        // PT_LOAD, the whole file, readable, writable, executable
        word(&mut file, &[1, 0, LOAD, LOAD, size, size, 7, 4096]);
        file.extend(self.code);
        file.resize(4096, 0);
        file.extend(self.data);
        let mut program = std::fs::File::create(path)?;
        program.write_all(&file)?;
        program.set_permissions(std::fs::Permissions::from_mode(0o755))
    }
}
