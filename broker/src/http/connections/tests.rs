use std::io::{Read, Write};
use std::net::TcpStream;

use axum::routing::get;

use super::*;

fn start(bounds: Bounds) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("non-blocking");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/swallow", axum::routing::post(async |body: String| body.len().to_string()));
        runtime.block_on(async {
            serve(TcpListener::from_std(listener).expect("a listener"), router, bounds).await;
        });
    });
    address
}

fn say(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(text.as_bytes()).expect("writes");
    stream
}

fn ending(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A reset is an end, too.
    let _ = stream.read_to_string(&mut text);
    text
}

const SHORT: Bounds =
    Bounds { connections_max: 2, head_time_max: Duration::from_millis(50), quiet_time_max: Duration::from_millis(100) };

#[test]
fn a_head_or_body_that_never_ends_is_cut_off() {
    let address = start(SHORT);
    assert!(!ending(say(address, "GET / HTTP/1.1\r\nHost: a\r\n")).contains("here"));
    assert!(!ending(say(address, "POST /swallow HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")).contains("200"));
    // Nor may one stay that has had its answer.
    ending(say(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
}

#[test]
fn connections_beyond_the_bound_are_closed_and_room_comes_back() {
    let bounds = Bounds {
        connections_max: 4,
        head_time_max: Duration::from_secs(600),
        quiet_time_max: Duration::from_secs(600),
    };
    let address = start(bounds);
    let held = [say(address, "G"), say(address, "G")];
    let beyond = ending(say(address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    assert_eq!(beyond, "", "half of the room is one address's");
    let elsewhere: SocketAddr = ([127, 0, 0, 2], 0).into();
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    other.bind(&elsewhere.into()).expect("another address");
    other.connect(&address.into()).expect("connects");
    let mut other = TcpStream::from(other);
    other.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("writes");
    assert!(ending(other).ends_with("here"), "the rest is others'");
    drop(held);
    while !ending(say(address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).ends_with("here") {}
}
