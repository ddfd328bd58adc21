//! Alerts told to real receivers: a mail server, an HTTPS server, syslog sockets.

mod mail;
mod others;
mod world;
