//! Memory of an idle connection over TLS: handshakes one after another, kept open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turnpike_mqtt::{Connect, ConnectProperties, Packet, encode};

use super::brokers::Broker;
use crate::cpu;
use crate::spec::Spec;

pub(super) fn bytes(spec: &Spec, broker: &Broker, connections: usize) -> anyhow::Result<f64> {
    let (address, ca) = broker.tls.as_ref().context("no TLS listener")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("{} can't be read", ca.display()))? {
        roots.add(certificate?)?;
    }
    let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let before = cpu::private_bytes(broker.pid()).context("the broker's memory can't be read")?;
    let mut kept = Vec::with_capacity(connections);
    for index in 0..connections {
        kept.push(connect(spec, *address, &config, index)?);
    }
    let after = cpu::private_bytes(broker.pid()).context("the broker's memory can't be read")?;
    Ok((after as f64 - before as f64) / kept.len() as f64)
}

fn connect(
    spec: &Spec,
    address: std::net::SocketAddr,
    config: &Arc<ClientConfig>,
    index: usize,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    let login = spec.login(index);
    let connect = Connect {
        version: spec.version,
        bridge: false,
        clean_start: true,
        keep_alive_s: spec.keep_alive_s,
        client_id: &login.client_id,
        will: None,
        user_name: login.user_name.as_deref(),
        password: login.password.as_deref().map(str::as_bytes),
        properties: ConnectProperties::default(),
    };
    let mut bytes = Vec::new();
    encode(spec.version, &Packet::Connect(Box::new(connect)), &mut bytes);
    stream.write_all(&bytes)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).with_context(|| format!("client {index} got no CONNACK"))?;
    anyhow::ensure!(answer == [0x20, 2, 0, 0], "client {index} was refused: {answer:02x?}");
    Ok(stream)
}
