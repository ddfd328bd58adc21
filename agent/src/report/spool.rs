//! Files on their way to the manager: zips in a folder of the state folder, within a limit.
//!
//! INVARIANT: no writer goes beyond what the limit leaves. What no task names is removed at the
//! start. Content that is collected is encrypted, so that no other scanner or person trips over it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_common::wire::hex;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zip::write::SimpleFileOptions;
use zip::{AesMode, CompressionMethod, ZipWriter};

use super::store::Spooled;

/// The folder.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    limit: u64,
}

impl Spool {
    /// Makes it, and removes what none of these tasks needs.
    pub(super) fn open(state_dir: &Path, limit: u64, needed: &[PathBuf]) -> io::Result<Self> {
        let folder = state_dir.join("spool");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if !needed.contains(&entry.path()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder, limit })
    }

    /// A new file for a task, in place of what an interrupted try left. It fails when it becomes
    /// larger than there is room.
    pub(super) fn create(&self, task: Uuid) -> io::Result<SpoolFile> {
        let path = self.folder.join(format!("{task}.zip"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut used = 0;
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            used += entry.metadata()?.len();
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let room = self.limit.saturating_sub(used);
        Ok(SpoolFile { file, path, room, at: 0, kept: false })
    }
}

/// A file that is being written; removed unless it was finished.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: File,
    path: PathBuf,
    room: u64,
    at: u64,
    kept: bool,
}

impl SpoolFile {
    /// It is whole: synced and hashed.
    pub(super) fn finish(mut self, observed: String) -> io::Result<Spooled> {
        self.file.sync_all()?;
        self.file.rewind()?;
        let (mut digest, mut size) = (Sha256::new(), 0);
        let mut chunk = vec![0; 256 << 10];
        loop {
            let read = self.file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            digest.update(&chunk[..read]);
            size += read as u64;
        }
        self.kept = true;
        Ok(Spooled { path: self.path.clone(), size, sha256: hex(&digest.finalize()), observed })
    }
}

impl Write for SpoolFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.at.saturating_add(bytes.len() as u64) > self.room {
            return Err(io::Error::other("there is no room left in the spool"));
        }
        let written = self.file.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for SpoolFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if !self.kept {
            // The next start sweeps what is left.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes one entry, encrypted with AES-256 (WinZip AE-2), and returns its content's length and
/// SHA-256. `limit` bounds the content.
pub(super) fn pack_encrypted(
    out: &mut SpoolFile,
    name: &str,
    password: &str,
    content: impl Read,
    limit: u64,
) -> io::Result<(u64, String)> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .large_file(limit >= u64::from(u32::MAX) - (1 << 20))
        .unix_permissions(0o600)
        .with_aes_encryption(AesMode::Aes256, password);
    let mut zip = ZipWriter::new(&mut *out);
    zip.start_file(name, options)?;
    let (mut digest, mut length) = (Sha256::new(), 0);
    let mut content = content.take(limit.saturating_add(1));
    let mut chunk = vec![0; 256 << 10];
    loop {
        let read = content.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        if length > limit {
            return Err(io::Error::other(format!("it is larger than {limit} bytes")));
        }
        digest.update(&chunk[..read]);
        zip.write_all(&chunk[..read])?;
    }
    zip.finish()?.flush()?;
    Ok((length, hex(&digest.finalize())))
}

/// Writes texts, not encrypted.
pub(super) fn pack_texts(out: &mut SpoolFile, entries: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(0o600);
    let mut zip = ZipWriter::new(&mut *out);
    for (name, text) in entries {
        zip.start_file(*name, options)?;
        zip.write_all(text)?;
    }
    zip.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_packed_within_limits_and_what_is_not_finished_is_gone() {
        let folder = tempfile::tempdir().expect("folder");
        let spool = Spool::open(folder.path(), 4096, &[]).expect("spool");
        let id = Uuid::now_v7();
        let mut out = spool.create(id).expect("file");
        let content = [7_u8; 3000];
        let (length, sha256) =
            pack_encrypted(&mut out, "a.bin", "infected", &content[..], 3000).expect("packed");
        assert_eq!((length, sha256), (3000, hex(&Sha256::digest(content))));
        let spooled = out.finish("seen".to_owned()).expect("finished");
        let zip = std::fs::read(&spooled.path).expect("read");
        assert_eq!((spooled.size, spooled.sha256), (zip.len() as u64, hex(&Sha256::digest(&zip))));
        let mut archive = zip::ZipArchive::new(io::Cursor::new(zip)).expect("zip");
        let mut read = Vec::new();
        archive
            .by_index_decrypt(0, b"infected")
            .expect("opens")
            .read_to_end(&mut read)
            .expect("read");
        assert_eq!(read, content);

        let mut large = spool.create(Uuid::now_v7()).expect("file");
        let error = pack_encrypted(&mut large, "b", "p", &content[..], 2999).expect_err("larger");
        assert!(error.to_string().contains("larger than 2999"), "{error}");
        let noise: Vec<u8> = (0..8192_u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
        let error = pack_encrypted(&mut large, "b", "p", &noise[..], 1 << 30).expect_err("no room");
        assert!(error.to_string().contains("no room"), "{error}");
        drop(large);
        let left = || std::fs::read_dir(folder.path().join("spool")).expect("list").count();
        assert_eq!(left(), 1);
        Spool::open(folder.path(), 4096, std::slice::from_ref(&spooled.path)).expect("again");
        assert_eq!(left(), 1);
        Spool::open(folder.path(), 4096, &[]).expect("nobody needs it");
        assert_eq!(left(), 0);
    }
}
