//! The protocol, packet by packet, over TCP, in the versions 3.1, 3.1.1 and 5.

mod auth;
mod connect;
mod deliver;
mod properties;
mod publish;
mod retain;
mod session;
mod shared;
mod subscribe;
mod will;
