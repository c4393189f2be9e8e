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
mod patches;
mod keys;
mod labels;
mod training;
mod monitor;
mod rollouts;
mod routes;
mod sessions;
mod openapi;
mod pages;
mod command_line;
mod orders;
mod audit;
mod devices;
mod identity;
