//! Sessions of browsers: a cookie that stands for a token which was shown once.

/// Name of the cookie. The prefix binds it to this very host, to HTTPS and to the whole of it.
pub const COOKIE: &str = "__Host-tributary";
