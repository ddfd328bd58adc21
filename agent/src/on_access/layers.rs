//! The layers of an overlay, and where they are.
//!
//! Container engines name layers relative to a folder of their own (`lowerdir=l/X:l/Y`), since
//! mount options are short; the kernel shows the options as they were given. That folder is
//! looked for among those above the mount point, above layers with a full name, and where engines
//! are known to keep theirs.
//! INVARIANT: a folder that was guessed is used only when every layer is there and the overlay
//! itself shows what lies in them, by times that nobody can set.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags};

use crate::on_access::mounts::{path, unescape};

/// Folders that are tried as the one that relative names start at.
const MOST_BASES: usize = 64;

/// Layers, and entries of each, that are compared with what the overlay shows.
const WITNESSES: (usize, usize) = (8, 64);

/// Engines that mount a container's root elsewhere than above its layers.
const ENGINES: &[&str] = &[
    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
    "/var/lib/rancher/k3s/agent/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
    "/var/lib/docker/overlay2",
    "/var/lib/containers/storage/overlay",
];

/// Said where no folder fits.
pub(super) const UNKNOWN_BASE: &str = "its layers are named relative to a folder that is not known";

/// Opens a folder as `O_PATH`; how far paths are trusted is the caller's to know.
pub(super) type Open<'o> = &'o dyn Fn(&Path) -> Result<OwnedFd, String>;

/// What an overlay lies on, in the words of its mount options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    upper: Option<PathBuf>,
    lower: Vec<PathBuf>,
}

impl Layers {
    /// From the options of the super block.
    #[must_use]
    pub fn of(options: &[u8]) -> Self {
        let mut layers = Self::default();
        for option in split_unescaped(options, b',') {
            let unescaped = unescape(&option);
            if let Some(upper) = unescaped.strip_prefix(b"upperdir=") {
                layers.upper = Some(path(drop_backslashes(upper)));
            } else if let Some(lower) = unescaped.strip_prefix(b"lowerdir=") {
                // `a:b::c` and, from 6.5, `lowerdir+=` lines below.
                let names =
                    split_unescaped(lower, b':').into_iter().filter(|name| !name.is_empty());
                layers.lower.extend(names.map(|name| path(drop_backslashes(&name))));
            } else if let Some(lower) =
                unescaped.strip_prefix(b"lowerdir+=").or(unescaped.strip_prefix(b"datadir+="))
            {
                layers.lower.push(path(lower.to_vec()));
            }
        }
        layers
    }

    /// From the top down.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.upper.iter().chain(&self.lower).map(PathBuf::as_path)
    }

    /// True when some are named relative to a folder that the options do not tell.
    #[must_use]
    pub fn any_relative(&self) -> bool {
        self.all().any(Path::is_relative)
    }

    /// The folder that relative names start at. `shown` is the overlay's mount point, open;
    /// `inside` the folder of the overlay that is mounted there. Names in it are looked up only
    /// where `trusted`: a user's overlay may lie on a server that never answers.
    pub(super) fn base(
        &self,
        point: &Path,
        shown: BorrowedFd<'_>,
        inside: &Path,
        open: Open<'_>,
        trusted: bool,
    ) -> Option<PathBuf> {
        self.candidates(point).into_iter().find(|base| {
            let here = |layer: &Path| open(&base.join(layer));
            self.all().filter(|layer| layer.is_relative()).all(|layer| here(layer).is_ok())
                && (self.top_is_shown(shown, inside, &here, true)
                    || (trusted && self.witness(shown, inside, &here)))
        })
    }

    fn candidates(&self, point: &Path) -> Vec<PathBuf> {
        let absolute = self.all().filter(|layer| layer.is_absolute());
        let mut bases: Vec<PathBuf> = Vec::new();
        let above = std::iter::once(point).chain(absolute).flat_map(Path::ancestors);
        for base in above.chain(ENGINES.iter().map(Path::new)) {
            if bases.len() < MOST_BASES && !bases.iter().any(|known| known == base) {
                bases.push(base.to_owned());
            }
        }
        bases
    }

    /// A merged folder has the times of its topmost layer. With `relative_only` a layer with a
    /// full name proves nothing.
    pub(super) fn top_is_shown(
        &self,
        shown: BorrowedFd<'_>,
        inside: &Path,
        open: Open<'_>,
        relative_only: bool,
    ) -> bool {
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        let top = self.all().find_map(|layer| Some((layer, open(&layer.join(inside)).ok()?)));
        let top = top.filter(|(layer, _)| !relative_only || layer.is_relative());
        let Some((_, folder)) = top else { return false };
        // Somebody may make an entry between the two looks.
        (0..3).any(|_| {
            let face = Face::of(shown, Path::new(""));
            face.is_some() && face == Face::of(folder.as_fd(), Path::new(""))
        })
    }

    /// An entry of a relative layer that the overlay shows as it is there: none above it covers it.
    fn witness(&self, shown: BorrowedFd<'_>, inside: &Path, open: Open<'_>) -> bool {
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        let relative = self.all().filter(|layer| layer.is_relative());
        relative.take(WITNESSES.0).filter_map(|layer| open(&layer.join(inside)).ok()).any(|layer| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(list) = rustix::fs::openat(&layer, c".", flags, Mode::empty()) else {
                return false;
            };
            let entries = Dir::read_from(list).into_iter().flatten().flatten();
            let names = entries.map(|entry| path(entry.file_name().to_bytes().to_vec()));
            names
                .filter(|name| name != Path::new(".") && name != Path::new(".."))
                .take(WITNESSES.1)
                .any(|name| {
                    let face = Face::of(layer.as_fd(), &name);
                    face.is_some() && face == Face::of(shown, &name)
                })
        })
    }
}

/// What an overlay shows of a folder or file of one layer as it is there. The change time is the
/// kernel's alone to set.
#[derive(Debug, PartialEq, Eq)]
struct Face {
    mode: u16,
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
    born: (i64, u32),
}

impl Face {
    /// Of an entry, or of the open folder itself. Asks no server.
    fn of(folder: BorrowedFd<'_>, name: &Path) -> Option<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let statx = rustix::fs::statx(folder, name, flags, wanted).ok()?;
        Some(Self {
            mode: statx.stx_mode,
            size: statx.stx_size,
            modified: (statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec),
            changed: (statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
            born: (statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec),
        })
    }
}

fn split_unescaped(bytes: &[u8], at: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut escaped = false;
    for byte in bytes {
        if *byte == at && !escaped {
            parts.push(Vec::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(*byte);
        }
        escaped = *byte == b'\\' && !escaped;
    }
    parts
}

fn drop_backslashes(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut escaped = false;
    for byte in bytes {
        if *byte == b'\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            kept.push(*byte);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_from_the_top_down_with_their_escapes() {
        let layers = Layers::of(b"rw,lowerdir=/l1:l/b\\:c::/d,upperdir=ID/diff,workdir=ID/work");
        let all: Vec<_> = layers.all().collect();
        assert_eq!(all, ["ID/diff", "/l1", "l/b:c", "/d"].map(Path::new));
        assert!(layers.any_relative());
        assert!(!Layers::of(b"rw,lowerdir=/a:/b").any_relative());
    }

    #[test]
    fn folders_above_the_mount_and_above_full_names_are_tried_nearest_first_and_once() {
        let layers = Layers::of(b"lowerdir=7/fs,upperdir=/e/s/9/fs,workdir=/e/s/9/work");
        let bases = layers.candidates(Path::new("/run/c/rootfs"));
        let expected =
            ["/run/c/rootfs", "/run/c", "/run", "/", "/e/s/9/fs", "/e/s/9", "/e/s", "/e"];
        assert_eq!(bases[..expected.len()], expected.map(PathBuf::from));
        assert!(bases.len() <= MOST_BASES);
    }
}
