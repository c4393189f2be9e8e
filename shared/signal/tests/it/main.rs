//! Features and scores against 64-bit floating point, and their exact values.

mod exact;
mod features;
mod model;
mod signals;
