//! The acceptor in front of a stock MQTT 5 client and of peers that do not keep to the protocol.

mod clients;
mod door;
mod files;
mod malformed;
mod rights;
mod support;
mod transports;
