//! MQTT over TLS with a certificate of the client's: as much of a client as a test of certificates needs.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::certificate::Identity;
use crate::client::End;
use crate::https::client_config;
use crate::time::SOON;
use crate::wire::{self, Connect, Packet, Version};

/// A connection.
pub struct Mqtts {
    stream: StreamOwned<ClientConnection, TcpStream>,
    version: Version,
    buffer: Vec<u8>,
}

impl Mqtts {
    /// Sends CONNECT, trusting an authority and showing a certificate if there is one. Gives the code of the CONNACK; none if the connection
    /// ends without one, as it does where TLS refuses the certificate.
    ///
    /// # Panics
    /// Nobody listens, the files can't be read, or something else than a CONNACK comes.
    #[must_use]
    #[track_caller]
    pub fn open(address: SocketAddr, ca: &Path, identity: Option<&Identity>, connect: &Connect) -> (Self, Option<u8>) {
        let socket = TcpStream::connect_timeout(&address, SOON).expect("it listens");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(client_config(ca, identity)), name).expect("a connection");
        let stream = StreamOwned::new(connection, socket);
        let mut client = Self { stream, version: connect.version, buffer: Vec::new() };
        // What is refused may be so before all is sent.
        let _ = client.stream.write_all(&connect.encode());
        let code = match client.recv_or_end() {
            Some(Packet::ConnAck(ack)) => Some(ack.code),
            Some(other) => panic!("CONNACK expected, not {other:?}"),
            None => None,
        };
        (client, code)
    }

    /// The connection is open: a PINGREQ is answered.
    ///
    /// # Panics
    /// It isn't.
    #[track_caller]
    pub fn ping(&mut self) {
        self.stream.write_all(&wire::PINGREQ).expect("the connection takes bytes");
        match self.recv_or_end() {
            Some(Packet::PingResp) => {}
            other => panic!("PINGRESP expected, not {other:?}"),
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// It doesn't come soon.
    #[must_use]
    #[track_caller]
    pub fn end(&mut self) -> End {
        let mut end = End::Closed;
        while let Some(packet) = self.recv_or_end() {
            if let Packet::Disconnect { code, .. } = packet {
                end = End::Disconnected(code);
            }
        }
        end
    }

    #[track_caller]
    fn recv_or_end(&mut self) -> Option<Packet> {
        loop {
            if let Some((packet, length)) = wire::decode(self.version, &self.buffer) {
                self.buffer.drain(..length);
                return Some(packet);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.buffer.extend(&chunk[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing came within {SOON:?}")
                }
                // An alert or a reset is an end, too.
                Err(_) => return None,
            }
        }
    }
}
