//! A rules folder, read once into a sealed memfd that every worker can be given.
//!
//! INVARIANT: only root decides what a rule is. The folder, the folders above it and every file
//! must belong to root and be writable by nobody else; links, pipes and whatever is not a
//! regular file refuse the bundle. The order is by name, so equal folders have equal digests.
//! What is in the files is not looked at here: that happens inside the cage.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_common::wire::hex;
use rustix::fs::{Dir, MemfdFlags, Mode, OFlags, SealFlags};
use sha2::{Digest, Sha256};

use crate::worker::image::{self, RuleKind};

/// Name of the list of denied content; a folder's files have no brackets in front.
const DENIED: &str = "(denied).sha256";

/// The image of one rules folder.
#[derive(Debug)]
pub struct BundleSource {
    image: File,
    digest: String,
}

/// Why a folder is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A system call failed.
    #[error("cannot read {path}")]
    Read {
        /// Folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody other than root could change it.
    #[error("{path} must belong to root and be writable by root alone")]
    Unsafe {
        /// Folder or file.
        path: PathBuf,
    },
    /// A link, a pipe, a folder, a device.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// Which.
        path: PathBuf,
    },
    /// Its ending is none of ours.
    #[error("{path} is not a rule file (.sha256, .sha1, .md5, .yar, .yara; notes: .md, .txt)")]
    UnknownKind {
        /// Which.
        path: PathBuf,
    },
    /// All files together are too large.
    #[error("{path} holds more than {limit} bytes of rules")]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
    /// The image could not be made.
    #[error("cannot make the rule image")]
    Image(#[source] std::io::Error),
}

impl BundleSource {
    /// Reads a folder whose files hold at most `limit` bytes together. Files whose names begin
    /// with a dot or end in `.md` or `.txt` are notes and are left out.
    ///
    /// # Errors
    /// [`BundleError`] with the path; nothing is half read.
    pub fn read(folder: &Path, limit: u64) -> Result<Self, BundleError> {
        Self::read_with(Some(folder), limit, "")
    }

    /// The same, with a hash list of our own behind the files of the folder. Without both it is
    /// the built-in rules alone.
    ///
    /// # Errors
    /// As [`BundleSource::read`].
    pub fn read_with(folder: Option<&Path>, limit: u64, denied: &str) -> Result<Self, BundleError> {
        let mut writer = ImageWriter::new()?;
        if let Some(folder) = folder {
            let folder_file = open_folder(folder)?;
            let mut left = limit;
            for name in rule_names(folder, &folder_file)? {
                let content = read_file(folder, &folder_file, &name, left)?
                    .ok_or_else(|| BundleError::TooLarge { path: folder.to_owned(), limit })?;
                left -= content.len() as u64;
                writer.add(&name, &content)?;
            }
        }
        if !denied.is_empty() {
            writer.add(DENIED, denied.as_bytes())?;
        }
        writer.seal()
    }

    /// From an image that was made before.
    ///
    /// # Errors
    /// [`BundleError::Image`]; also when it is none.
    pub fn of_image(image: &[u8]) -> Result<Self, BundleError> {
        let files = image.strip_prefix(image::MAGIC).ok_or_else(|| {
            BundleError::Image(std::io::Error::from(std::io::ErrorKind::InvalidData))
        })?;
        let mut writer = ImageWriter::new()?;
        writer.write(files)?;
        writer.seal()
    }

    /// The sealed memfd.
    #[must_use]
    pub fn image(&self) -> BorrowedFd<'_> {
        self.image.as_fd()
    }

    /// SHA-256 over all files with their names, hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

fn read_error<E: Into<std::io::Error>>(path: &Path) -> impl FnOnce(E) -> BundleError {
    move |error| BundleError::Read { path: path.to_owned(), source: error.into() }
}

/// Opens the folder and checks it and everything above it.
fn open_folder(folder: &Path) -> Result<File, BundleError> {
    let real = folder.canonicalize().map_err(read_error(folder))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |path: &Path| {
        rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(read_error(path))
    };
    for above in real.ancestors().skip(1) {
        let mode = open(above)?.metadata().map_err(read_error(above))?;
        // In a sticky folder (/tmp) nobody else can rename what is root's.
        if mode.uid() != 0 || (mode.mode() & 0o022 != 0 && mode.mode() & 0o1000 == 0) {
            return Err(BundleError::Unsafe { path: above.to_owned() });
        }
    }
    let file = open(&real)?;
    check_owner(&file, folder)?;
    Ok(file)
}

fn check_owner(file: &File, path: &Path) -> Result<std::fs::Metadata, BundleError> {
    let metadata = file.metadata().map_err(read_error(path))?;
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(BundleError::Unsafe { path: path.to_owned() });
    }
    Ok(metadata)
}

/// Names of the rule files, sorted.
fn rule_names(folder: &Path, folder_file: &File) -> Result<Vec<String>, BundleError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder_file).map_err(read_error(folder))? {
        let entry = entry.map_err(read_error(folder))?;
        let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
        let note = [".md", ".txt"].iter().any(|ending| name.ends_with(ending));
        if name.starts_with('.') || note {
            continue;
        }
        if name.as_bytes() != entry.file_name().to_bytes() || RuleKind::of(&name).is_none() {
            return Err(BundleError::UnknownKind { path: folder.join(name) });
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// The content of one file; `None` when it holds more than `left` bytes.
fn read_file(
    folder: &Path,
    folder_file: &File,
    name: &str,
    left: u64,
) -> Result<Option<Vec<u8>>, BundleError> {
    let path = folder.join(name);
    // Non-blocking, or a pipe would hold us until somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder_file, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
            return Err(BundleError::NotRegular { path });
        }
        Err(error) => return Err(read_error(&path)(error)),
    };
    let metadata = check_owner(&file, &path)?;
    if !metadata.is_file() {
        return Err(BundleError::NotRegular { path });
    }
    if metadata.len() > left {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(left + 1).read_to_end(&mut content).map_err(read_error(&path))?;
    Ok((content.len() as u64 <= left).then_some(content))
}

struct ImageWriter {
    image: File,
    hash: Sha256,
}

impl ImageWriter {
    fn new() -> Result<Self, BundleError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let image = rustix::fs::memfd_create("holdfast-rules", flags)
            .map_err(|error| BundleError::Image(error.into()))?;
        let mut writer = Self { image: File::from(image), hash: Sha256::new() };
        writer.write(image::MAGIC)?;
        Ok(writer)
    }

    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), BundleError> {
        self.write(&image::entry_header(name, content.len() as u64))?;
        self.write(content)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.hash.update(bytes);
        self.image.write_all(bytes).map_err(BundleError::Image)
    }

    fn seal(self) -> Result<BundleSource, BundleError> {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&self.image, seals)
            .map_err(|error| BundleError::Image(error.into()))?;
        Ok(BundleSource { image: self.image, digest: hex(&self.hash.finalize()) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use rustix::fs::FileType;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("file");
        }
        folder
    }

    fn refusal(folder: &tempfile::TempDir) -> String {
        BundleSource::read(folder.path(), 1000).expect_err("refused").to_string()
    }

    #[test]
    fn equal_folders_have_equal_digests_and_a_sealed_image() {
        let files = [("b.md5", "x"), ("a.yar", "y"), ("README.md", "z"), (".hidden", "")];
        let one = BundleSource::read(folder(&files).path(), 1000).expect("one");
        let two = BundleSource::read(folder(&[files[1], files[0]]).path(), 1000).expect("two");
        assert_eq!(one.digest(), two.digest());
        let mut image = Vec::new();
        let mut file = one.image.try_clone().expect("clone");
        std::io::Seek::rewind(&mut file).expect("rewind");
        file.read_to_end(&mut image).expect("read");
        let names: Vec<_> =
            image::read(&image).expect("image").iter().map(|file| file.name).collect();
        assert_eq!(names, ["a.yar", "b.md5"]);
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
        let swapped = folder(&[("b.md5", "y"), ("a.yar", "x")]);
        let swapped = BundleSource::read(swapped.path(), 1000).expect("swapped");
        assert_ne!(one.digest(), swapped.digest());
    }

    #[test]
    fn a_missing_folder_is_an_error_and_an_empty_one_is_not() {
        let empty = BundleSource::read(folder(&[]).path(), 1000).expect("empty");
        assert_eq!(
            empty.digest(),
            BundleSource::read_with(None, 0, "").expect("built in").digest()
        );
        let error = BundleSource::read(Path::new("/nonexistent/rules"), 1000).expect_err("missing");
        assert_eq!(error.to_string(), "cannot read /nonexistent/rules");
    }

    #[test]
    fn denied_content_is_one_more_list() {
        let plain = BundleSource::read_with(None, 0, "").expect("plain");
        let denied = BundleSource::read_with(None, 0, "ab Holdfast.Denied.X\n").expect("denied");
        assert_ne!(plain.digest(), denied.digest());
    }

    #[test]
    fn links_pipes_and_folders_are_refused() {
        let links = folder(&[]);
        symlink("/etc/passwd", links.path().join("a.md5")).expect("link");
        assert!(refusal(&links).ends_with("a.md5 is not a regular file"));
        let pipes = folder(&[]);
        let pipe = pipes.path().join("p.md5");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).expect("pipe");
        assert!(refusal(&pipes).ends_with("p.md5 is not a regular file"));
        let folders = folder(&[]);
        std::fs::create_dir(folders.path().join("d.md5")).expect("folder");
        assert!(refusal(&folders).ends_with("d.md5 is not a regular file"));
        assert!(refusal(&folder(&[("a.yra", "")])).contains("a.yra is not a rule file"));
    }

    #[test]
    fn what_others_can_write_is_refused() {
        for mode in [0o664, 0o602] {
            let files = folder(&[("a.md5", "")]);
            let path = files.path().join("a.md5");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
            assert!(refusal(&files).contains("a.md5 must belong to root"));
        }
        let owned = folder(&[("a.md5", "")]);
        chown(owned.path().join("a.md5"), Some(65534), None).expect("chown");
        assert!(refusal(&owned).contains("a.md5 must belong to root"));
        let inner = folder(&[]);
        let rules = inner.path().join("rules");
        std::fs::create_dir(&rules).expect("folder");
        std::fs::set_permissions(inner.path(), PermissionsExt::from_mode(0o777)).expect("chmod");
        let error = BundleSource::read(&rules, 1000).expect_err("folder above").to_string();
        assert!(error.contains("must belong to root"), "{error}");
    }

    #[test]
    fn all_files_together_are_bounded() {
        let fits = folder(&[("a.md5", &"x".repeat(500)), ("b.md5", &"x".repeat(500))]);
        assert!(BundleSource::read(fits.path(), 1000).is_ok());
        let over = folder(&[("a.md5", &"x".repeat(500)), ("b.md5", &"x".repeat(501))]);
        assert!(refusal(&over).ends_with("more than 1000 bytes of rules"));
    }
}
