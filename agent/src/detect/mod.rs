//! Detection models: behaviour that is worth a look, written as Sigma rules.
//!
//! ```text
//!  event → view (fields as Sigma names them) → engine (prefilter, rsigma) → correlate
//!        → models (on, off, suppressed, kept back) → detections, for respond
//! ```
//!
//! [`rules`] reads them, [`book`] numbers them and [`reach`] tells which can fire here;
//! [`simulate`] does what the shipped ones look for, harmlessly. Nothing here blocks or responds.

mod audit;
pub mod book;
pub mod correlate;
pub mod engine;
pub mod models;
pub mod names;
mod prefilter;
mod reach;
pub mod rules;
pub mod simulate;
pub mod state;
mod texts;
pub mod view;
mod watched;
mod witness;

pub use self::models::{Models, ModelsError};
