//! The SQLite file below the journal: schema, batches, bounds, reading.
//!
//! One row an event: the JSON is the event, the other columns are there to find it. WAL mode, so
//! readers never block the writer. Batches with anything but telemetry are synced at commit;
//! telemetry alone survives the death of the agent, and a power loss up to the last sync.
//!
//! INVARIANT: a file of a newer version is left untouched, byte for byte.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_common::event::{Event, EventBody};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::queue::Entry;
use super::{Filter, JournalError};
use crate::config;

/// Version of the schema below, kept in `user_version`.
const VERSION: i64 = 1;
/// Bytes of JSON kept for each telemetry event that the config admits, on average.
const BYTES_PER_TELEMETRY: u64 = 2 << 10;
/// The same for all other events, which carry more.
const BYTES_PER_EVENT: u64 = 16 << 10;
/// Events read in one go; no read transaction is open between two pages.
const PAGE: usize = 200;

const SCHEMA: &str = "
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        time_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        telemetry INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        path TEXT,
        sha256 TEXT,
        json TEXT NOT NULL
    ) STRICT;
    CREATE INDEX event_by_age ON event (telemetry, seq, bytes);
    CREATE INDEX event_by_kind ON event (kind);
    CREATE INDEX event_by_time ON event (time_ms);
    CREATE INDEX event_by_sha256 ON event (sha256) WHERE sha256 IS NOT NULL;
    PRAGMA application_id = 1212564050;
    PRAGMA user_version = 1;
";

/// One row: the journal's own id, and how many events of each class were ever taken out. Earlier
/// agents leave it alone, so it needs no version of its own.
const KEPT: &str = "
    CREATE TABLE IF NOT EXISTS kept (
        id TEXT NOT NULL, other INTEGER NOT NULL, telemetry INTEGER NOT NULL
    ) STRICT;
    INSERT INTO kept SELECT lower(hex(randomblob(16))), 0, 0
        WHERE NOT EXISTS (SELECT 1 FROM kept);
";

/// Where the file is and how much it may hold.
#[derive(Debug, Clone)]
pub(super) struct Place {
    state_dir: PathBuf,
    pub(super) file: PathBuf,
    /// `[other, telemetry]`
    limits: [Totals; 2],
}

/// The writer's connection and what it knows of the file.
#[derive(Debug)]
pub(super) struct Store {
    place: Place,
    connection: Connection,
    totals: [Totals; 2],
    /// The `synchronous` pragma stands at FULL.
    full_sync: bool,
    /// Something was committed that may not be on disk yet.
    unsynced: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    events: u64,
    bytes: u64,
}

/// Why a file was not opened as it is.
enum Refusal {
    Corrupt,
    Error(JournalError),
}

impl Place {
    pub(super) fn new(state_dir: &Path, limits: &config::Journal) -> Self {
        let class = |events: u64, bytes| Totals { events, bytes: events.saturating_mul(bytes) };
        Self {
            state_dir: state_dir.to_owned(),
            file: state_dir.join("journal.db"),
            limits: [
                class(limits.max_events, BYTES_PER_EVENT),
                class(limits.max_telemetry, BYTES_PER_TELEMETRY),
            ],
        }
    }
}

impl Store {
    /// Opens or creates the file. The second value is where a corrupt one now lies.
    pub(super) fn open(place: &Place) -> Result<(Self, Option<PathBuf>), JournalError> {
        let state_dir = &place.state_dir;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|source| JournalError::StateDir { path: state_dir.clone(), source })?;
        let mut moved = None;
        loop {
            match Self::open_as_it_is(place) {
                Ok(store) => return Ok((store, moved)),
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::Corrupt) if moved.is_none() => moved = Some(move_aside(&place.file)?),
                Err(Refusal::Corrupt) => {
                    let source = io::Error::other("a new file is corrupt as well");
                    return Err(JournalError::MoveAside { path: place.file.clone(), source });
                }
            }
        }
    }

    fn open_as_it_is(place: &Place) -> Result<Self, Refusal> {
        let file = &place.file;
        check_header(&place.state_dir, file)?;
        let wrap = |source| refusal("open", file, source);
        let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(wrap)?;
        let found: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(wrap)?;
        if found > VERSION {
            // The version came from the write-ahead log: leave that where it is, too.
            let keep = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            connection.set_db_config(keep, true).map_err(wrap)?;
            return Err(newer(file, found));
        }
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 PRAGMA journal_size_limit = 16777216; PRAGMA temp_store = MEMORY;
                 PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
            )
            .map_err(wrap)?;
        if found == 0 {
            let create = format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;");
            connection.execute_batch(&create).map_err(wrap)?;
        }
        connection.execute_batch(KEPT).map_err(wrap)?;
        let totals = read_totals(&connection).map_err(wrap)?;
        Ok(Self { place: place.clone(), connection, totals, full_sync: true, unsynced: true })
    }

    /// Moves the file aside when it is corrupt beyond use, and begins a new one.
    pub(super) fn begin_anew(&mut self) -> Result<PathBuf, JournalError> {
        let moved = move_aside(&self.place.file)?;
        let (store, _) = Self::open(&self.place)?;
        *self = store;
        Ok(moved)
    }

    pub(super) fn events(&self) -> u64 {
        self.totals.iter().map(|totals| totals.events).sum()
    }

    /// Commits the entries, all or none, and takes out the oldest ones beyond the bounds.
    /// `sync` asks that everything up to here is on disk.
    pub(super) fn insert(&mut self, entries: &[Entry], sync: bool) -> rusqlite::Result<()> {
        let durable = sync || entries.iter().any(|entry| !entry.event.body.is_telemetry());
        if entries.is_empty() && !(sync && self.unsynced) {
            return Ok(());
        }
        if durable != self.full_sync {
            let level = if durable { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.full_sync = durable;
        }
        let mut totals = self.totals;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO event
                 (id, time_ms, kind, telemetry, bytes, path, sha256, json)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for entry in entries {
                let (event, json) = (&entry.event, &entry.json);
                let telemetry = event.body.is_telemetry();
                let (path, sha256) = search_keys(&event.body);
                let bytes = json.len() as u64;
                let id = event.id.to_string();
                let kind = event.body.kind();
                let rows = insert.execute(params![
                    id,
                    event.time_ms,
                    kind,
                    telemetry,
                    bytes as i64,
                    path,
                    sha256,
                    json
                ])?;
                let class = &mut totals[usize::from(telemetry)];
                class.events += rows as u64;
                class.bytes += rows as u64 * bytes;
            }
        }
        for (telemetry, class) in totals.iter_mut().enumerate() {
            trim(&transaction, telemetry, class, self.place.limits[telemetry])?;
        }
        if entries.is_empty() {
            // Any commit at FULL syncs all that came before it.
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()?;
        self.totals = totals;
        self.unsynced = !durable;
        Ok(())
    }
}

/// Takes out the oldest events of a class until both bounds hold.
fn trim(
    connection: &Connection,
    telemetry: usize,
    class: &mut Totals,
    limit: Totals,
) -> rusqlite::Result<()> {
    if class.events <= limit.events && class.bytes <= limit.bytes {
        return Ok(());
    }
    let telemetry = telemetry as i64;
    let before = class.events;
    let mut last = None;
    {
        let mut oldest = connection.prepare_cached(
            "SELECT seq, bytes FROM event WHERE telemetry = ?1 ORDER BY telemetry, seq",
        )?;
        let mut rows = oldest.query([telemetry])?;
        while class.events > limit.events || class.bytes > limit.bytes {
            let Some(row) = rows.next()? else { break };
            last = Some(row.get::<_, i64>(0)?);
            class.events = class.events.saturating_sub(1);
            class.bytes = class.bytes.saturating_sub(row.get::<_, i64>(1)?.unsigned_abs());
        }
    }
    if let Some(last) = last {
        connection
            .prepare_cached("DELETE FROM event WHERE telemetry = ?1 AND seq <= ?2")?
            .execute([telemetry, last])?;
        let column = if telemetry == 1 { "telemetry" } else { "other" };
        let gone = before.saturating_sub(class.events) as i64;
        connection
            .prepare_cached(&format!("UPDATE kept SET {column} = {column} + ?1"))?
            .execute([gone])?;
    }
    Ok(())
}

/// The newest event's number, 0 when there is none.
pub(super) fn newest(file: &Path) -> Result<i64, JournalError> {
    let read = || {
        connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?.query_row(
            "SELECT coalesce(max(seq), 0) FROM event",
            [],
            |row| row.get(0),
        )
    };
    read().map_err(|source| sql("read", file, source))
}

/// Reads events up to number `until`, oldest first, page by page.
pub(super) fn each(
    file: &Path,
    filter: &Filter,
    until: i64,
    visit: &mut dyn FnMut(Event) -> bool,
) -> Result<(), JournalError> {
    let until = until.min(newest(file)?);
    let wrap = |source| sql("read", file, source);
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(wrap)?;
    let mut after = first(&connection, filter, until).map_err(wrap)? - 1;
    loop {
        let page = page(&connection, filter, after, until).map_err(wrap)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        for (seq, json) in &page {
            match serde_json::from_str(json) {
                Ok(event) => {
                    if !visit(event) {
                        return Ok(());
                    }
                }
                Err(error) => tracing::warn!(seq, %error, "an event of the journal is unreadable"),
            }
        }
    }
}

/// The number of the first event to return.
fn first(connection: &Connection, filter: &Filter, until: i64) -> rusqlite::Result<i64> {
    let start = match filter.since_ms {
        // The clock may have been set back: numbers have the order, times only narrow it.
        Some(since) => connection.query_row(
            "SELECT coalesce(min(seq), ?2) FROM event WHERE time_ms >= ?1",
            [since, until.saturating_add(1)],
            |row| row.get(0),
        )?,
        None => 1,
    };
    let Ok(offset @ 0..) = i64::try_from(filter.limit).map(|limit| limit - 1) else {
        return Ok(start);
    };
    let (conditions, mut values) = conditions(filter);
    values.extend([start.into(), until.into(), offset.into()]);
    let newest = format!(
        "SELECT seq FROM event WHERE {conditions} AND seq >= ? AND seq <= ?
         ORDER BY seq DESC LIMIT 1 OFFSET ?"
    );
    let values = rusqlite::params_from_iter(values);
    Ok(connection.query_row(&newest, values, |row| row.get(0)).optional()?.unwrap_or(start))
}

fn page(
    connection: &Connection,
    filter: &Filter,
    after: i64,
    until: i64,
) -> rusqlite::Result<Vec<(i64, String)>> {
    let (conditions, mut values) = conditions(filter);
    values.extend([after.into(), until.into()]);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT seq, json FROM event WHERE {conditions} AND seq > ? AND seq <= ?
         ORDER BY seq LIMIT {PAGE}"
    ))?;
    statement
        .query_map(rusqlite::params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// The `WHERE` clause of a filter. `+` keeps the time from being the index that is walked.
fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let mut clause = String::from("1");
    let mut values = Vec::new();
    if let Some(since) = filter.since_ms {
        clause.push_str(" AND +time_ms >= ?");
        values.push(since.into());
    }
    if let Some(kind) = &filter.kind {
        clause.push_str(" AND kind = ?");
        values.push(kind.clone().into());
    }
    if let Some(id) = filter.id {
        clause.push_str(" AND id = ?");
        values.push(id.to_string().into());
    }
    (clause, values)
}

/// Path and SHA-256 by which an event can be found.
fn search_keys(body: &EventBody) -> (Option<&str>, Option<&str>) {
    match body {
        EventBody::Malware(detection) => (Some(&detection.path), Some(&detection.hashes.sha256)),
        EventBody::Model(detection) => (Some(&detection.process.exe), None),
        EventBody::Failure(failure) => (Some(&failure.path), None),
        EventBody::Quarantine(action) => (Some(&action.path), Some(&action.sha256)),
        EventBody::Exec(exec) => (Some(&exec.process.exe), None),
        EventBody::PacketSocket(socket) => (Some(&socket.process.exe), None),
        EventBody::Activity(activity) => (Some(&activity.process.exe), None),
        EventBody::Network(network) => (Some(&network.process.exe), None),
        EventBody::File(file) => (Some(&file.path), None),
        EventBody::Tampering(tampering) => (Some(&tampering.target), None),
        EventBody::Bundle(bundle) => (Some(&bundle.path), None),
        EventBody::Coverage(coverage) => (Some(&coverage.mount), None),
        EventBody::AgentStarted(_)
        | EventBody::AgentStopped
        | EventBody::ProtectionGap(_)
        | EventBody::Proof(_)
        | EventBody::Isolation(_)
        | EventBody::Shell(_)
        | EventBody::Scan(_)
        | EventBody::Policy(_)
        | EventBody::Loss(_) => (None, None),
    }
}

pub(super) fn connect(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn read_totals(connection: &Connection) -> rusqlite::Result<[Totals; 2]> {
    let mut totals = [Totals::default(); 2];
    for (telemetry, class) in totals.iter_mut().enumerate() {
        *class = connection.query_row(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM event WHERE telemetry = ?1",
            [telemetry as i64],
            |row| {
                let (events, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok(Totals { events: events.unsigned_abs(), bytes: bytes.unsigned_abs() })
            },
        )?;
    }
    Ok(totals)
}

/// Looks at the file before SQLite does (which may write to it), or creates it root-only.
fn check_header(state_dir: &Path, file: &Path) -> Result<(), Refusal> {
    let failed =
        |source| Refusal::Error(JournalError::StateDir { path: state_dir.to_owned(), source });
    let mut options = OpenOptions::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut opened = match options.read(true).write(true).custom_flags(flags).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
            return Ok(());
        }
        // A link, a folder, a socket: whatever it is, it is no journal.
        Err(error) => match error.raw_os_error() {
            Some(libc::ELOOP | libc::EISDIR | libc::ENXIO) => return Err(Refusal::Corrupt),
            _ => return Err(failed(error)),
        },
    };
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(Refusal::Corrupt);
    }
    match header_version(&mut opened).map_err(failed)? {
        Some(found) if found > VERSION => Err(newer(file, found)),
        Some(_) => opened.set_permissions(Permissions::from_mode(0o600)).map_err(failed),
        None => Err(Refusal::Corrupt),
    }
}

/// `user_version` of a database file, at offset 60 (SQLite, "Database File Format"); 0 for an
/// empty file, `None` when it is no database.
fn header_version(file: &mut File) -> io::Result<Option<i64>> {
    let mut header = Vec::with_capacity(100);
    file.take(100).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(Some(0));
    }
    let version = header.get(60..64).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    Ok(version
        .filter(|_| header.len() == 100 && header.starts_with(b"SQLite format 3\0"))
        .map(|bytes| i64::from(i32::from_be_bytes(bytes))))
}

/// Renames the file, and its write-ahead log so that tools still find it beside it.
fn move_aside(file: &Path) -> Result<PathBuf, JournalError> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.6f").to_string();
    let with = |suffix: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(&format!(".corrupt-{time}"));
    std::fs::rename(file, &aside)
        .map_err(|source| JournalError::MoveAside { path: file.to_owned(), source })?;
    for part in ["-wal", "-shm"] {
        match std::fs::rename(with(part), with(&format!(".corrupt-{time}{part}"))) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(JournalError::MoveAside { path: with(part), source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    tracing::error!(path = %aside.display(), "the journal was corrupt and was moved aside");
    Ok(aside)
}

/// Whether there was no room, which may come back.
pub(super) fn is_full(error: &JournalError) -> bool {
    match error {
        JournalError::StateDir { source, .. } => {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        // Without room for the shared memory file SQLite says "I/O error".
        JournalError::Sql { source, .. } => matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure)
        ),
        JournalError::Newer { .. } | JournalError::MoveAside { .. } | JournalError::Thread(_) => {
            false
        }
    }
}

/// Whether SQLite says that the file itself is broken.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn refusal(operation: &'static str, file: &Path, source: rusqlite::Error) -> Refusal {
    if is_corrupt(&source) {
        Refusal::Corrupt
    } else {
        Refusal::Error(sql(operation, file, source))
    }
}

pub(super) fn sql(operation: &'static str, file: &Path, source: rusqlite::Error) -> JournalError {
    JournalError::Sql { operation, path: file.to_owned(), source }
}

fn newer(file: &Path, found: i64) -> Refusal {
    Refusal::Error(JournalError::Newer { path: file.to_owned(), found, known: VERSION })
}
