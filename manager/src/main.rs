//! `holdfast-manager`: the command line.
fn main() {}
