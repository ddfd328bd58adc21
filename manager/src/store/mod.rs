//! The database: SQLite inside, or PostgreSQL, by the same statements.
//!
//! Invariants: values reach SQL as parameters only; a change and its audit line are one
//! transaction; what a write answered for is on disk (SQLite runs with `synchronous = FULL`).
//! SQLite has one connection that writes, so that nothing there waits for a lock. This layer
//! judges nothing: rules live in `app`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Row, SqlSafeStr, Transaction};
use uuid::Uuid;

pub mod alerts;
pub mod audit;
pub mod backup;
pub mod deliveries;
pub mod denials;
pub mod events;
pub mod hosts;
pub mod identities;
pub mod index;
pub mod models;
pub mod notifications;
pub mod notify;
pub mod numbers;
pub mod policies;
pub mod quarantine;
pub mod retention;
pub mod search;
pub mod second_factors;
pub mod tasks;
pub mod tokens;
pub mod users;

/// Connections that read, or on PostgreSQL do anything.
const CONNECTIONS: u32 = 8;
/// The newest migration.
pub const SCHEMA: i64 = 11;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded one.
    Sqlite,
    /// A server.
    Postgres,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file; made when it is not there.
    File(PathBuf),
    /// `postgres://…`
    Server(String),
}

/// The database did not do it; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The manager is ending.
    #[error("the store is closed")]
    Closed,
    /// The operation that failed, and how.
    #[error("{operation}: {message}")]
    Failed {
        /// What was to be done.
        operation: &'static str,
        /// The database's words.
        message: String,
    },
    /// A row holds what this version does not understand.
    #[error("{operation}: the database holds {message}")]
    Corrupt {
        /// What was to be done.
        operation: &'static str,
        /// What was found.
        message: String,
    },
}

impl StoreError {
    pub(crate) fn corrupt(operation: &'static str, message: impl std::fmt::Display) -> Self {
        Self::Corrupt { operation, message: message.to_string() }
    }
}

/// For `map_err`: names the operation.
pub(crate) fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |error| match error {
        sqlx::Error::PoolClosed => StoreError::Closed,
        other => StoreError::Failed { operation, message: other.to_string() },
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    readers: AnyPool,
    writer: AnyPool,
    backend: Backend,
    place: Place,
}

/// One transaction. Dropped without [`Tx::commit`] it changes nothing.
#[must_use]
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Any>,
    backend: Backend,
}

impl Tx {
    /// Makes it last.
    ///
    /// # Errors
    /// [`StoreError`]; it is not known then whether it lasts.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await.map_err(failed("commit"))
    }

    pub(crate) fn conn(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    pub(crate) const fn backend(&self) -> Backend {
        self.backend
    }
}

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`]; also when the schema is a newer manager's.
    pub async fn open(place: Place) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (backend, url) = match &place {
            Place::File(path) => (Backend::Sqlite, sqlite_url(path)),
            Place::Server(url) => (Backend::Postgres, url.clone()),
        };
        let options = AnyConnectOptions::from_str(&url)
            .map_err(failed("read the database's address"))?
            .disable_statement_logging();
        let pool = |connections: u32| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(30))
                // SQLite ends a transaction by itself when the disk is full; sqlx counts it as
                // open for ever, and nothing could be begun on that connection again.
                .before_acquire(|connection, _| {
                    let usable = !connection.is_in_transaction();
                    Box::pin(async move { Ok(usable) })
                })
                .after_connect(move |connection, _| {
                    Box::pin(async move { prepare(connection, backend).await })
                })
        };
        let opening = "open the database";
        let (writer, readers) = match backend {
            Backend::Sqlite => (
                pool(1).connect_with(options.clone()).await.map_err(failed(opening))?,
                pool(CONNECTIONS).connect_lazy_with(options),
            ),
            Backend::Postgres => {
                let pool =
                    pool(CONNECTIONS * 2).connect_with(options).await.map_err(failed(opening))?;
                (pool.clone(), pool)
            }
        };
        let store = Self { readers, writer, backend, place };
        store.migrate().await?;
        store.index_tune().await?;
        Ok(store)
    }

    /// SQLite's index of words: parts are put together eight by eight (four otherwise), and words
    /// are collected in 16 MiB (one otherwise), which holds those of one statement. Kept in the
    /// database.
    async fn index_tune(&self) -> Result<(), StoreError> {
        if self.backend == Backend::Postgres {
            return Ok(());
        }
        let tune = "tune the index";
        let tuned = "SELECT COUNT(*) AS n FROM events_text_config \
                     WHERE k = 'hashsize' AND v = 16777216";
        let there = sqlx::query(tuned).fetch_one(&self.readers).await.map_err(failed(tune))?;
        if column::<i64>(&there, "n")? == 0 {
            let settings = "INSERT INTO events_text (events_text, rank) VALUES ('automerge', 8); \
                            INSERT INTO events_text (events_text, rank) \
                            VALUES ('hashsize', 16777216);";
            sqlx::raw_sql(settings).execute(&self.writer).await.map_err(failed(tune))?;
        }
        Ok(())
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let (name, events) = match self.backend {
            Backend::Sqlite => ("sqlite", include_str!("../../migrations/0002_events.sqlite.sql")),
            Backend::Postgres => {
                ("postgres", include_str!("../../migrations/0002_events.postgres.sql"))
            }
        };
        let schema = include_str!("../../migrations/0001_schema.sql");
        let notifications = include_str!("../../migrations/0003_notifications.sql");
        let second_factor = include_str!("../../migrations/0004_second_factor.sql");
        let policies = include_str!("../../migrations/0005_policies.sql");
        let identities = include_str!("../../migrations/0006_identities.sql");
        let quarantine = include_str!("../../migrations/0007_quarantine.sql");
        let shells = include_str!("../../migrations/0008_shells.sql");
        let host_index = include_str!("../../migrations/0009_host_index.sql");
        let model_sets = include_str!("../../migrations/0010_model_sets.sql");
        let denials = include_str!("../../migrations/0011_denials.sql");
        let simple = MigrationType::Simple;
        let migrator = Migrator::with_migrations(vec![
            Migration::new(1, "schema".into(), simple, schema.into_sql_str(), false),
            Migration::new(2, name.into(), simple, events.into_sql_str(), false),
            Migration::new(3, "notifications".into(), simple, notifications.into_sql_str(), false),
            Migration::new(4, "second factor".into(), simple, second_factor.into_sql_str(), false),
            Migration::new(5, "policies".into(), simple, policies.into_sql_str(), false),
            Migration::new(6, "identities".into(), simple, identities.into_sql_str(), false),
            Migration::new(7, "quarantine".into(), simple, quarantine.into_sql_str(), false),
            Migration::new(8, "shells".into(), simple, shells.into_sql_str(), false),
            Migration::new(9, "host index".into(), simple, host_index.into_sql_str(), false),
            Migration::new(10, "model sets".into(), simple, model_sets.into_sql_str(), false),
            Migration::new(11, "denials".into(), simple, denials.into_sql_str(), false),
        ]);
        let mut connection = self.writer.acquire().await.map_err(failed("migrate"))?;
        migrator.run_direct(None, &mut *connection, false).await.map_err(|error| {
            let message = match error {
                sqlx::migrate::MigrateError::VersionMissing(version) => format!(
                    "the database has schema {version}, this manager knows {SCHEMA}: \
                     start the newer manager, or restore a backup"
                ),
                other => other.to_string(),
            };
            StoreError::Failed { operation: "migrate", message }
        })
    }

    /// Begins a change.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let begin = match self.backend {
            Backend::Sqlite => "BEGIN IMMEDIATE",
            Backend::Postgres => "BEGIN",
        };
        let inner = self.writer.begin_with(begin).await.map_err(failed("begin"))?;
        Ok(Tx { inner, backend: self.backend })
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").fetch_one(&self.readers).await.map_err(failed("ping"))?;
        Ok(())
    }

    /// Which database it is.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// Where it is.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Ends all connections, after what they do now.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn prepare(connection: &mut AnyConnection, backend: Backend) -> Result<(), sqlx::Error> {
    let settings = match backend {
        // 64 MiB of cache for each connection that needs it. Pages of 8 KiB (in a new database)
        // waste less behind events of a kilobyte or two. The log goes into the database at 8192
        // pages, so that what is written again and again goes there once, and is cut back to 64
        // MiB.
        Backend::Sqlite => {
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA busy_timeout = 15000; \
             PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY; \
             PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = 8192;"
        }
        // What is searched for decides the plan.
        Backend::Postgres => {
            "SET timezone = 'UTC'; SET lock_timeout = '15s'; \
             SET plan_cache_mode = force_custom_plan;"
        }
    };
    sqlx::raw_sql(settings).execute(connection).await?;
    Ok(())
}

fn sqlite_url(path: &std::path::Path) -> String {
    let mut url = "sqlite://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url + "?mode=rwc"
}

/// A column of a row, by name.
pub(crate) fn column<'r, T>(row: &'r AnyRow, name: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Any> + sqlx::Type<Any>,
{
    row.try_get(name).map_err(|error| StoreError::corrupt("read a row", error))
}

/// An id column.
pub(crate) fn id_column(row: &AnyRow, name: &'static str) -> Result<Uuid, StoreError> {
    let bytes: Vec<u8> = column(row, name)?;
    Uuid::from_slice(&bytes).map_err(|error| StoreError::corrupt(name, error))
}

/// An id column that may be empty.
pub(crate) fn id_column_maybe(
    row: &AnyRow,
    name: &'static str,
) -> Result<Option<Uuid>, StoreError> {
    let bytes: Option<Vec<u8>> = column(row, name)?;
    bytes
        .map(|bytes| Uuid::from_slice(&bytes).map_err(|error| StoreError::corrupt(name, error)))
        .transpose()
}

/// An id as a parameter.
pub(crate) fn id_value(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// PostgreSQL's text takes no NUL; nothing that people read needs one.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// `$2, $3, …`, `count` of them, from `first` on.
pub(crate) fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

/// Places of `count` parameters from `first` on, in their order. Without numbers on SQLite: a
/// number is a name to it, and sqlx looks each parameter's name up in a list of all of them, which
/// takes longer than the work itself where there are hundreds.
pub(crate) fn places(backend: Backend, first: usize, count: usize) -> String {
    match backend {
        Backend::Sqlite => vec!["?"; count].join(", "),
        Backend::Postgres => placeholders(first, count),
    }
}
