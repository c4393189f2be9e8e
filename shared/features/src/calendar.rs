//! Weekends and nights in a view's time zone.
