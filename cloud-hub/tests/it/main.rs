//! The hub as a whole, in this process: its web API on a free port, its data in a temporary folder.

mod support;
mod offline;
mod package_file;
mod access;
mod http;
mod https;
mod models;
mod repository;
mod chain;
mod served;
mod mirror;
