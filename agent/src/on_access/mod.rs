//! on_access
