//! Which windows of a view share which boundaries.
