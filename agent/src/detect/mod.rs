//! Detection models: behaviour that is worth a look, written as Sigma rules.
//!
//! [`fields`] gives events the field names that Sigma rules use, [`models`] holds and evaluates
//! the rules, [`simulate`] does what they look for, harmlessly. Nothing here blocks or responds.

pub mod fields;
pub mod models;
pub mod simulate;

pub use self::models::{Models, ModelsError};
