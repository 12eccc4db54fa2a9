//! Wire 2: Python in a process of its own, called through pipes.
