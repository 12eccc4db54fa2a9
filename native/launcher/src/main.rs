//! Starts what runs Python in a process of its own.

fn main() {}
