//! The manager as a whole, but for the link: on SQLite, and on a PostgreSQL that the tests start.

mod accounts;
mod alerts;
mod api;
mod audit;
mod backup;
mod cluster;
mod console;
mod denials;
mod events;
mod hosts;
mod models;
mod notifications;
mod oidc;
mod openapi;
mod policies;
mod profile;
mod quarantine;
mod schema;
mod search;
mod serve;
mod shells;
mod tasks;
mod totp;
mod world;
