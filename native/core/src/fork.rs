//! Children that Python code forked, in the node for the moments until they run another program. They have none of
//! our threads, and what another thread had locked when they were forked is locked in them for ever: nothing that
//! takes a lock of ours or of the BEAM's runs there, and what Python's collector would free that way is left.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process is such a child.
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// This process has just been forked, and is to be such a child.
pub fn become_child() {
    IS_CHILD.store(true, Ordering::SeqCst);
}
