//! What the manager does, by noun. The only caller of the store.
//!
//! Invariant: what is answered as stored is on disk. It knows nothing of HTTP or gRPC.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Boxed;
use crate::oidc::Provider;
use crate::reach::address::Allowed;
use crate::store::{Place, Store};

mod alerts;
mod audit;
mod beats;
mod change;
mod counters;
mod denials;
mod detection;
mod events;
mod files;
mod health;
mod hosts;
mod models;
mod notifications;
mod oidc;
mod overview;
mod passwords;
mod policies;
pub mod profile;
mod quarantine;
mod reconcile;
mod retention;
mod rollout;
mod secret;
mod shells;
mod sign_in;
mod tasks;
mod tell;
mod tokens;
mod totp;
mod users;
mod vault;
mod writer;

pub use alerts::{AlertDetail, AlertEdit};
pub use audit::{AuditFault, AuditVerdict, audit_verify};
pub use change::Change;
pub use counters::{Counters, LinkCounters};
pub use denials::NewDenial;
pub use events::EventPage;
pub use files::ChunkAnswer;
pub use health::Reason;
pub use hosts::{AdmitError, Admitted, EnrollError};
pub use models::{Model, ModelState, Reach};
pub use notifications::{ChannelState, NewChannel, TestAnswer};
pub use oidc::{OidcRefusal, RoleRule};
pub use overview::Overview;
pub use policies::{Content, Course, PolicyDetail, Put, RolloutState, Steer};
pub use quarantine::ITEM_STATES;
pub use retention::{Keep, Retention};
pub use shells::{NewShell, Pen, Person, ShellError, ShellStream, Shown, Viewer};
pub use sign_in::{SignIn, SignInError};
pub(crate) use tasks::redacted;
pub use tasks::{Filed, NewOrder, TaskOrder, TaskSignal};
pub use tokens::{Entrance, NewToken};
pub use totp::{TotpOffer, TotpState};
pub use users::{FirstAdmin, MIN_PASSWORD, Principal, Role, Scope, UserEdit};
use vault::Vault;
pub use vault::VaultError;

pub use crate::store::StoreError;

/// Longest silence of a host before it is red.
pub const SILENCE: Duration = Duration::from_secs(50);
/// Between two looks at what time alone changes.
const RECONCILE: Duration = Duration::from_secs(5);

/// What an `App` is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the database is.
    pub place: Place,
    /// Folder for files that tasks deliver, and for the audit log's last hash.
    pub data_dir: PathBuf,
    /// What is kept how long.
    pub retention: Retention,
    /// Bytes of all delivered files together.
    pub max_files: u64,
    /// Where notifications may go beside the usual.
    pub notify: Allowed,
    /// Who else may say who somebody is, and what role follows.
    pub providers: Vec<(Provider, RoleRule)>,
}

/// Why something that a person asked for was not done.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no such thing.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// It stands in the way of what is there.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be taken as it is.
    #[error("{0}")]
    Invalid(String),
    /// Not by this user.
    #[error("{0}")]
    Forbidden(String),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret was not sealed or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The data folder did not do it.
    #[error("{operation}")]
    File {
        /// What was to be done.
        operation: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The manager's whole state. Cloning shares it.
#[derive(Clone, Debug)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    settings: Settings,
    /// Numbers this process among the managers of one database.
    instance: i64,
    jobs: mpsc::Sender<writer::Job>,
    changes: broadcast::Sender<Change>,
    signals: Mutex<HashMap<Uuid, watch::Sender<u64>>>,
    names: RwLock<HashMap<Uuid, hosts::HostRef>>,
    counters: Counters,
    beats: beats::Beats,
    /// A host runs or refuses something else.
    rollouts: Notify,
    passwords: passwords::Passwords,
    uploads: files::Uploads,
    shells: shells::Shells,
    vault: Vault,
    audit_head: Mutex<i64>,
    entrance: OnceLock<Entrance>,
    ending: watch::Sender<bool>,
    running: Mutex<Option<JoinSet<()>>>,
}

impl App {
    /// Opens the database and starts what runs beside requests.
    ///
    /// # Errors
    /// [`AppError`]
    pub fn start(settings: Settings) -> Boxed<Result<Self, AppError>> {
        Box::pin(Self::begin(settings))
    }

    async fn begin(settings: Settings) -> Result<Self, AppError> {
        let (app, waiting) = Self::make(settings).await?;
        app.partitions_ahead().await?;
        let mut running = JoinSet::new();
        writer::spawn(&app, waiting, &mut running);
        running.spawn(reconcile::run(app.clone()));
        running.spawn(retention::run(app.clone()));
        running.spawn(change::listen(app.clone()));
        running.spawn(tell::run(app.clone()));
        running.spawn(policies::run(app.clone()));
        *app.0.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(app)
    }

    /// Opens the database for one command, beside a manager that may run: nothing is started, and
    /// what agents send is refused.
    ///
    /// # Errors
    /// [`AppError`]
    pub fn open(settings: Settings) -> Boxed<Result<Self, AppError>> {
        Box::pin(async { Ok(Self::make(settings).await?.0) })
    }

    async fn make(settings: Settings) -> Result<(Self, mpsc::Receiver<writer::Job>), AppError> {
        files::folders_make(&settings.data_dir)?;
        let store = Store::open(settings.place.clone()).await?;
        let (jobs, waiting) = mpsc::channel(writer::JOBS);
        let app = Self(Arc::new(Inner {
            instance: secret::number()?,
            passwords: passwords::Passwords::new(),
            uploads: files::Uploads::default(),
            shells: shells::Shells::default(),
            vault: Vault::open(&settings.data_dir)?,
            store,
            settings,
            jobs,
            changes: broadcast::channel(1024).0,
            signals: Mutex::default(),
            names: RwLock::default(),
            counters: Counters::default(),
            beats: beats::Beats::default(),
            rollouts: Notify::new(),
            audit_head: Mutex::new(0),
            entrance: OnceLock::new(),
            ending: watch::channel(false).0,
            running: Mutex::new(None),
        }));
        Ok((app, waiting))
    }

    /// Tells everything that waits that the manager ends: live views close.
    pub fn end(&self) {
        self.0.ending.send_replace(true);
    }

    /// Ends what runs beside requests, after what was accepted is stored, and closes the database.
    pub async fn stop(&self) {
        self.end();
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut running) = running {
            while running.join_next().await.is_some() {}
        }
        self.0.signals.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.0.store.close().await;
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.0.store.ping().await
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    /// Becomes true when the manager ends.
    #[must_use]
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.0.ending.subscribe()
    }
}

/// Milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Cuts text to a number of bytes, at a character.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
