//! The last rules that a worker has loaded, kept in the state folder: a bundle that was broken
//! while the agent was away must not leave the host without protection at its next start.
//!
//! `"HFLAST01"`, length of the rules folder's path (u32), path, SHA-256 of the image, image (see
//! [`image`](crate::worker::image)); integers little-endian. INVARIANT: replaced whole or not at
//! all; what is damaged, or was made of another folder, is none. Who may use it is not known here.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Buf;
use sha2::{Digest, Sha256};

use super::bundle::BundleSource;

const MAGIC: &[u8; 8] = b"HFLAST01";

/// Name in the state folder.
const NAME: &str = "rules.last";

/// What stands before the image, at most: `PATH_MAX` and the rest.
const MOST_HEADER: u64 = 8192;

/// The kept rules of one folder.
#[derive(Debug)]
pub(super) struct LastGood {
    state: PathBuf,
    folder: PathBuf,
}

impl LastGood {
    /// Of the rules folder `folder`, in the state folder `state`, which is root's alone.
    pub(super) fn new(state: &Path, folder: &Path) -> Self {
        Self { state: state.to_owned(), folder: folder.to_owned() }
    }

    /// Keeps these rules, if they are not kept already.
    pub(super) fn keep(&self, source: &BundleSource) -> io::Result<()> {
        let image = copy_of(source.image())?;
        let header = self.header(&Sha256::digest(&image));
        let mut kept = vec![0; header.len()];
        let same = File::open(self.state.join(NAME))
            .and_then(|mut file| file.read_exact(&mut kept))
            .is_ok_and(|()| kept == header);
        if same {
            return Ok(());
        }
        crate::durable::replace(&self.state.join(NAME), &[&header, &image])
    }

    /// The kept rules, of at most `limit` bytes.
    pub(super) fn read(&self, limit: u64) -> Option<BundleSource> {
        let file = File::open(self.state.join(NAME)).ok()?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(MOST_HEADER)).read_to_end(&mut bytes).ok()?;
        let image = self.image(&bytes)?;
        BundleSource::of_image(image).ok()
    }

    fn header(&self, digest: &[u8]) -> Vec<u8> {
        let path = self.folder.as_os_str().as_bytes();
        let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
        [&MAGIC[..], &length.to_le_bytes(), path, digest].concat()
    }

    fn image<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        let (path, rest) = rest.split_at_checked(length)?;
        let (digest, image) = rest.split_at_checked(32)?;
        let ours = OsStr::from_bytes(path) == self.folder && Sha256::digest(image)[..] == *digest;
        ours.then_some(image)
    }
}

fn copy_of(image: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // Its offset is shared with nobody who uses it.
    let mut file = File::from(image.as_fd().try_clone_to_owned()?);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(content: &str) -> (tempfile::TempDir, BundleSource) {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("a.md5"), content).expect("rule file");
        let source = BundleSource::read(folder.path(), 1000).expect("bundle");
        (folder, source)
    }

    #[test]
    fn kept_rules_come_back_as_they_were_and_for_their_folder_alone() {
        let state = tempfile::tempdir().expect("state");
        let last = LastGood::new(state.path(), Path::new("/etc/rules"));
        assert!(last.read(1000).is_none(), "nothing is kept yet");
        let (_folder, source) = rules("x");
        last.keep(&source).expect("kept");
        assert_eq!(last.read(1000).expect("kept").digest(), source.digest());
        assert!(LastGood::new(state.path(), Path::new("/etc/other")).read(1000).is_none());
        let (_folder, newer) = rules("y");
        last.keep(&newer).expect("kept");
        last.keep(&newer).expect("kept already");
        assert_eq!(last.read(1000).expect("kept").digest(), newer.digest());
        assert_eq!(std::fs::read_dir(state.path()).expect("state").count(), 1);
    }

    #[test]
    fn one_flipped_bit_or_a_missing_end_makes_it_none() {
        let state = tempfile::tempdir().expect("state");
        let last = LastGood::new(state.path(), Path::new("/r"));
        last.keep(&rules("content").1).expect("kept");
        let file = state.path().join(NAME);
        let good = std::fs::read(&file).expect("read");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&file, bad).expect("write");
            assert!(last.read(1000).is_none(), "byte {at}");
        }
        for length in 0..good.len() {
            std::fs::write(&file, &good[..length]).expect("write");
            assert!(last.read(1000).is_none(), "{length} bytes");
        }
    }
}
