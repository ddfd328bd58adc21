//! Files of a mounted overlay whose event named the upper layer's own file (kernels from 6.5 on
//! report the layer, with a path that only the overlay's private mount knows).
//!
//! Taking such a file out of the layer behind the overlay's back leaves a stale entry that can
//! still be opened, and a lower file of the same name would show through again. So the overlay
//! makes the change, and the layer is the witness of which inode it moved. A file of a lower layer
//! (a container's image) has no such way: the overlay would only hide it; it goes from the layer.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};

use super::facts::mtime;
use super::locate::{Place, descriptor_path, open_folder, split, unescape};

/// The place as an overlay shows it, when one is mounted above it; else the place as it is.
pub(super) fn through_overlay(place: Place) -> Place {
    let Ok(mounts) = std::fs::read("/proc/self/mountinfo") else { return place };
    let shown = overlays(&mounts).find_map(|(mount, upper)| {
        uppers(&place.path, &upper).find_map(|upper| shown_by(&place, &mount, upper))
    });
    match shown {
        Some((through, path)) => Place { through: Some(through), path, ..place },
        None => place,
    }
}

/// Where an upper layer is that could hold the file. Container engines name it relative to a
/// folder that the options do not tell: then any folder above the file with that end.
fn uppers<'p>(file: &'p Path, upper: &'p Path) -> impl Iterator<Item = &'p Path> {
    let named = upper.is_absolute().then_some(upper);
    let above =
        file.ancestors().filter(move |folder| upper.is_relative() && folder.ends_with(upper));
    named.into_iter().chain(above)
}

fn shown_by(place: &Place, mount: &Path, upper: &Path) -> Option<(OwnedFd, PathBuf)> {
    // As it was given when the overlay was mounted: links in it are the administrator's.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let layer = openat(CWD, upper, flags, Mode::empty()).ok()?;
    let inside = place.path.strip_prefix(descriptor_path(layer.as_fd())?).ok()?.to_owned();
    let path = mount.join(inside);
    let (folder, name) = split(&path)?;
    let through = open_folder(folder).ok()?;
    // Inode numbers differ where a file was copied up; `remove` looks closer.
    let shown = statat(&through, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let real = statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let same = shown.st_size == real.st_size && mtime(&shown) == mtime(&real);
    same.then_some((through, path))
}

/// Mount point and upper layer of each overlay in `/proc/self/mountinfo`.
fn overlays(mounts: &[u8]) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    mounts.split(|&b| b == b'\n').filter_map(|line| {
        let mut fields = line.split(|&b| b == b' ');
        let mount = fields.nth(4)?;
        fields.find(|field| *field == b"-")?;
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let upper = options.split(|&b| b == b',').find_map(|o| o.strip_prefix(b"upperdir="))?;
        let path = |field| PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(field)));
        (kind == b"overlay").then(|| (path(mount), path(upper)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_layer_with_a_relative_name_is_sought_above_the_file() {
        let found = |file, upper| {
            uppers(Path::new(file), Path::new(upper)).map(Path::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(found("/e/9/diff/a/b", "9/diff"), [Path::new("/e/9/diff")]);
        assert_eq!(found("/e/9/diff/9/diff/b", "9/diff").len(), 2);
        assert!(found("/e/19/diff/b", "9/diff").is_empty());
        assert_eq!(found("/e/9/diff/b", "/u"), [Path::new("/u")]);
    }

    #[test]
    fn overlays_with_an_upper_layer_are_found() {
        let text = b"22 1 253:0 / / rw - ext4 /dev/vda rw,upperdir=/no\n\
            40 22 0:40 / /a\\040b rw shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/u\\054v,workdir=/w\n\
            41 22 0:41 / /ro ro - overlay overlay ro,lowerdir=/l:/m\n";
        let found: Vec<_> = overlays(text).collect();
        assert_eq!(found, [(PathBuf::from("/a b"), PathBuf::from("/u,v"))]);
    }
}
