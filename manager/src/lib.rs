//! The manager: hosts, events, alerts and response tasks of a fleet.
//!
//! It reads downward: `api` (HTTP) and `link` (agents) call `app`, which alone calls `store`. The
//! same nouns stand in each. Nothing here trusts what a host says: it is stored, shown and counted
//! as that host's words.

pub mod api;
pub mod app;
pub mod backup;
pub mod config;
pub mod link;
pub mod notify;
pub mod oidc;
pub mod query;
pub mod reach;
pub mod store;

/// A future whose code is in this library. That of an `async fn` is compiled anew in each program
/// that awaits it: for what serves, that is most of the manager, in every test.
pub type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;
