//! A fanotify notification group (`FAN_CLASS_NOTIF`): tells what happened to marked files and
//! folders, by handle and name, and who did it. It holds nobody.
//!
//! Invariant: every pidfd that the kernel hands over is owned the moment it is parsed. The queue
//! is bounded by `fs.fanotify.max_queued_events` (16,384); beyond it the kernel says
//! [`NoticeEvent::Overflow`] once and not how much was dropped. Handles with names need 5.9,
//! pidfds 5.15, `FAN_RENAME` and handles of a folder's entries 5.17 (fanotify(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags};

/// `struct fanotify_event_metadata`
const METADATA_LENGTH: usize = 24;

/// `struct fanotify_event_info_header`
const HEADER_LENGTH: usize = 4;

const READ_SIZE: usize = 64 << 10;

/// What happened, as `FAN_*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened(pub u64);

impl Happened {
    /// Opened, for whatever.
    pub const OPEN: u64 = libc::FAN_OPEN;
    /// Written, cut or filled (not through a mapping).
    pub const MODIFY: u64 = libc::FAN_MODIFY;
    /// Closed by somebody who could write.
    pub const CLOSE_WRITE: u64 = libc::FAN_CLOSE_WRITE;
    /// Closed by somebody who could not.
    pub const CLOSE_NOWRITE: u64 = libc::FAN_CLOSE_NOWRITE;
    /// Mode, owner, times, extended attributes or number of names.
    pub const ATTRIB: u64 = libc::FAN_ATTRIB;
    /// A name was made.
    pub const CREATE: u64 = libc::FAN_CREATE;
    /// A name was taken away.
    pub const DELETE: u64 = libc::FAN_DELETE;
    /// A name became another one.
    pub const RENAME: u64 = libc::FAN_RENAME;
    /// The inode itself is gone.
    pub const DELETE_SELF: u64 = libc::FAN_DELETE_SELF;
    /// The inode itself has moved.
    pub const MOVE_SELF: u64 = libc::FAN_MOVE_SELF;
    /// It is a folder.
    pub const ON_DIR: u64 = libc::FAN_ONDIR;
    /// For a folder's mark: what happens to its files, too.
    pub const ON_CHILD: u64 = libc::FAN_EVENT_ON_CHILD;

    /// Whether any of these bits is set.
    #[must_use]
    pub const fn any(self, bits: u64) -> bool {
        self.0 & bits != 0
    }
}

/// What names an inode for as long as it lives: its file system's id and its handle there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fid(Box<[u8]>);

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: Fid,
    /// The name; `.` for the folder itself.
    pub name: Vec<u8>,
}

/// One event.
#[derive(Debug)]
pub struct Notice {
    /// What happened; several things when the kernel has put them together.
    pub happened: Happened,
    /// Thread group that did it, 0 when it is not of our pid namespace.
    pub pid: u32,
    /// That process; `None` when it was gone, or none was free.
    pub process: Option<OwnedFd>,
    /// Where, as the doer named it; after it, for a rename.
    pub place: Option<Place>,
    /// Where before, for a rename out of a marked folder.
    pub former: Option<Place>,
    /// The file or folder itself.
    pub file: Option<Fid>,
}

/// What a group tells.
#[derive(Debug)]
pub enum NoticeEvent {
    /// Something happened.
    Notice(Box<Notice>),
    /// The queue was full: at least one event was dropped.
    Overflow,
    /// An event that could not be understood.
    Unknown,
}

/// The group.
#[derive(Debug)]
pub struct NoticeGroup(OwnedFd);

impl NoticeGroup {
    /// Opens a group that watches nothing yet.
    ///
    /// # Errors
    /// As `fanotify_init(2)`; `EINVAL` before 5.17.
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_REPORT_PIDFD
            | libc::FAN_REPORT_DFID_NAME_TARGET;
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::fanotify_init(flags, libc::O_RDONLY.cast_unsigned()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a file or folder, by an `O_PATH` descriptor too. Adds to what was asked before.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODEV` or `EXDEV` where the file system has no handles or ids.
    pub fn watch(&self, object: BorrowedFd<'_>, what: u64) -> io::Result<()> {
        self.mark(libc::FAN_MARK_ADD, object, what)
    }

    /// Watches a whole file system, in every mount namespace.
    ///
    /// # Errors
    /// As [`NoticeGroup::watch`].
    pub fn watch_file_system(&self, inside: BorrowedFd<'_>, what: u64) -> io::Result<()> {
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM, inside, what)
    }

    fn mark(&self, flags: u32, object: BorrowedFd<'_>, what: u64) -> io::Result<()> {
        // An O_PATH descriptor itself is not taken; what its magic link leads to is.
        let link = format!("/proc/self/fd/{}\0", object.as_raw_fd());
        // SAFETY: `link` ends in a null byte and outlives the call.
        let status = unsafe {
            libc::fanotify_mark(
                self.0.as_raw_fd(),
                flags,
                what,
                libc::AT_FDCWD,
                link.as_ptr().cast(),
            )
        };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Hands events that wait to `take`: one buffer full of them. Returns false when none wait.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn read(&self, mut take: impl FnMut(NoticeEvent)) -> io::Result<bool> {
        let mut buffer = vec![0; READ_SIZE];
        let length = match rustix::io::read(&self.0, &mut buffer[..]) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer[..length];
        while let Some(size) = word(rest, 0) {
            let size = size as usize;
            if size < METADATA_LENGTH || size > rest.len() {
                take(NoticeEvent::Unknown);
                break;
            }
            let (record, next) = rest.split_at(size);
            take(parse(record, adopt).unwrap_or(NoticeEvent::Unknown));
            rest = next;
        }
        Ok(true)
    }
}

impl AsFd for NoticeGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The id of an open file or folder, as events tell it. `O_PATH` will do.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has no handles.
pub fn fid_of(object: BorrowedFd<'_>) -> io::Result<Fid> {
    // Two 32-bit numbers, which the call puts together low one first (statvfs(3)).
    let both = rustix::fs::fstatvfs(object)?.f_fsid;
    let mut handle = RawHandle { head: [MAX_HANDLE as u32, 0], data: [0; MAX_HANDLE] };
    // Overlays have handles that name and cannot be opened; they are told by AT_HANDLE_FID alone
    // (6.6), which earlier kernels refuse.
    let told = name_to_handle(object, &mut handle, libc::AT_EMPTY_PATH | libc::AT_HANDLE_FID)
        .or_else(|_| {
            handle.head = [MAX_HANDLE as u32, 0];
            name_to_handle(object, &mut handle, libc::AT_EMPTY_PATH)
        });
    told?;
    let content = handle.data.get(..handle.head[0] as usize).unwrap_or(&handle.data);
    let mut bytes = Vec::with_capacity(16 + content.len());
    bytes.extend(((both & 0xffff_ffff) as u32).to_ne_bytes());
    bytes.extend(((both >> 32) as u32).to_ne_bytes());
    bytes.extend(handle.head[0].to_ne_bytes());
    bytes.extend(handle.head[1].to_ne_bytes());
    bytes.extend(content);
    Ok(Fid(bytes.into_boxed_slice()))
}

/// True when this process has not ended: what /proc says of its pid before this call is about it.
#[must_use]
pub fn lives(process: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut asked, Some(&at_once)) == Ok(0)
}

/// Largest handle of any file system (`MAX_HANDLE_SZ`, linux/fs.h).
const MAX_HANDLE: usize = libc::MAX_HANDLE_SZ as usize;

/// `struct file_handle` with room for the largest handle: length and type, then the handle.
#[repr(C)]
struct RawHandle {
    head: [u32; 2],
    data: [u8; MAX_HANDLE],
}

fn name_to_handle(object: BorrowedFd<'_>, handle: &mut RawHandle, flags: i32) -> io::Result<()> {
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the path is an empty C string, `handle` is laid out as the kernel's struct with as
    // much room behind it as it says, and both outlive the call.
    let status = unsafe {
        libc::name_to_handle_at(
            object.as_raw_fd(),
            c"".as_ptr(),
            std::ptr::from_mut(handle).cast(),
            &raw mut mount_id,
            flags,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One record: the metadata and its information records.
fn parse(record: &[u8], adopt: impl Fn(RawFd) -> Option<OwnedFd>) -> Option<NoticeEvent> {
    let mask = u64::from(word(record, 8)?) | (u64::from(word(record, 12)?) << 32);
    if mask & libc::FAN_Q_OVERFLOW != 0 {
        return Some(NoticeEvent::Overflow);
    }
    let mut notice = Notice {
        happened: Happened(mask),
        pid: word(record, 20)?,
        process: None,
        place: None,
        former: None,
        file: None,
    };
    let mut rest = &record[METADATA_LENGTH..];
    let mut understood = true;
    while let Some([kind, _, low, high]) = rest.first_chunk::<HEADER_LENGTH>().copied() {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        if length < HEADER_LENGTH || length > rest.len() {
            understood = false;
            break;
        }
        let (info, next) = rest.split_at(length);
        rest = next;
        let body = &info[HEADER_LENGTH..];
        match kind {
            libc::FAN_EVENT_INFO_TYPE_FID => notice.file = fid(body).map(|(fid, _)| fid),
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => {
                notice.place = place(body);
            }
            libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => notice.former = place(body),
            libc::FAN_EVENT_INFO_TYPE_PIDFD => {
                // First of all errors: a descriptor that is not taken would leak.
                notice.process = word(body, 0).and_then(|fd| adopt(fd.cast_signed()));
            }
            // Kinds that later kernels may add say more, not something else.
            _ => {}
        }
    }
    understood.then(|| NoticeEvent::Notice(Box::new(notice)))
}

/// A file system id and a handle, and what follows them.
fn fid(body: &[u8]) -> Option<(Fid, &[u8])> {
    let length = word(body, 8)? as usize;
    let (fid, rest) = body.split_at_checked(length.checked_add(16)?)?;
    Some((Fid(fid.into()), rest))
}

fn place(body: &[u8]) -> Option<Place> {
    let (folder, rest) = fid(body)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(Place { folder, name: rest[..end].to_vec() })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Owns a descriptor that an event has brought; `None` for the numbers that stand for none.
fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the kernel made this descriptor for the reader of the event, which we are.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;

    fn info(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend(u16::try_from(body.len() + 4).expect("length").to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn fid_bytes(number: u8) -> Vec<u8> {
        let mut bytes = vec![7; 8];
        bytes.extend(4_u32.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend([number; 4]);
        bytes
    }

    fn record(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
        let infos = infos.concat();
        let mut bytes =
            u32::try_from(METADATA_LENGTH + infos.len()).expect("length").to_ne_bytes().to_vec();
        bytes.extend([3, 0, 24, 0]);
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.extend(42_u32.to_ne_bytes());
        bytes.extend(infos);
        bytes
    }

    #[test]
    fn a_rename_has_both_places_and_the_file() {
        let named = |number, name: &[u8]| [fid_bytes(number), name.to_vec()].concat();
        let bytes = record(
            Happened::RENAME,
            &[
                info(libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, &named(1, b"old\0\0\0")),
                info(libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, &named(2, b"new\0")),
                info(libc::FAN_EVENT_INFO_TYPE_FID, &fid_bytes(3)),
                info(libc::FAN_EVENT_INFO_TYPE_PIDFD, &(-1_i32).to_ne_bytes()),
            ],
        );
        let Some(NoticeEvent::Notice(notice)) = parse(&bytes, |_| None) else {
            panic!("no notice")
        };
        let is = |place: &Option<Place>, number, name: &[u8]| {
            place.as_ref().is_some_and(|place| {
                place.name == name && place.folder == Fid(fid_bytes(number).into())
            })
        };
        assert!(is(&notice.former, 1, b"old") && is(&notice.place, 2, b"new"));
        assert_eq!(notice.file, Some(Fid(fid_bytes(3).into())));
        assert_eq!((notice.pid, notice.happened), (42, Happened(Happened::RENAME)));
    }

    #[test]
    fn an_overflow_and_a_broken_record_are_told_apart() {
        let overflow = record(libc::FAN_Q_OVERFLOW, &[]);
        assert!(matches!(parse(&overflow, |_| None), Some(NoticeEvent::Overflow)));
        let mut broken = record(Happened::OPEN, &[info(1, &fid_bytes(1))]);
        let at = METADATA_LENGTH + 2;
        broken[at..at + 2].copy_from_slice(&500_u16.to_ne_bytes());
        assert!(parse(&broken, |_| None).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 24..200)) {
            let _ = parse(&bytes, |_| None);
        }
    }

    #[test]
    fn an_event_names_the_file_and_the_folder_as_they_are_asked_for() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "content").expect("write");
        let group = NoticeGroup::new().expect("group");
        let file = File::open(&path).expect("open");
        group.watch(file.as_fd(), Happened::ATTRIB | Happened::OPEN).expect("mark");
        drop(File::open(&path).expect("open"));
        let mut seen = Vec::new();
        assert!(group.read(|event| seen.push(event)).expect("read"));
        let [NoticeEvent::Notice(notice)] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(notice.pid, std::process::id());
        assert_eq!(notice.file, Some(fid_of(file.as_fd()).expect("id")));
        let place = notice.place.as_ref().expect("place");
        let parent = File::open(folder.path()).expect("open");
        assert_eq!(place.folder, fid_of(parent.as_fd()).expect("id"));
        assert_eq!(place.name, b"file");
        assert!(notice.process.as_ref().is_some_and(|process| lives(process.as_fd())));
        assert!(!group.read(|_| {}).expect("read"), "nothing more");
    }
}
