//! The manager as a whole, but for the link: on SQLite, and on a PostgreSQL that the tests start.

mod accounts;
mod alerts;
mod api;
mod audit;
mod backup;
mod cluster;
mod events;
mod hosts;
mod notifications;
mod openapi;
mod policies;
mod schema;
mod search;
mod serve;
mod tasks;
mod totp;
mod world;
