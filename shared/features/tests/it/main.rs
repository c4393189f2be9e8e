//! Windows against a plain reference, and views and events that are wrong.

mod reference;
mod windows;
mod fleet;
mod views;
mod rows;
