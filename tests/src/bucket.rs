//! An S3 for tests: moto, installed by `tests/setup`, and what stands between it and the broker.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::{Answer, Http};
use crate::peers::{Peer, python_with_moto};
use crate::time::{SOON, until};

/// What moto asks for where an object isn't public; it doesn't look at it unless it demands credentials.
const ANYBODY: &str = "authorization: AWS4-HMAC-SHA256 Credential=anybody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";

/// A running S3 that anybody may use until [`Server::demand_credentials`].
pub struct Server {
    address: SocketAddr,
    _peer: Peer,
}

impl Server {
    /// Starts it, without any bucket.
    ///
    /// # Panics
    /// It doesn't start.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let mut peer = Peer::start(python_with_moto("s3_server.py"));
        let port = peer.line().parse::<u16>().expect("a port");
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), _peer: peer }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn http(&self) -> Http {
        Http { address: self.address, token: None }
    }

    /// A request without credentials.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str) -> Answer {
        // What isn't public may be changed by whoever shows anything, as long as no credentials are demanded.
        self.http().request_with(method, path, if method == "DELETE" { ANYBODY } else { "" }, "")
    }

    /// Makes a bucket.
    #[track_caller]
    pub fn make(&self, bucket: &str) {
        let answer = self.ask("PUT", &format!("/{bucket}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Whether requests are held against credentials from now on; it knows none.
    #[track_caller]
    pub fn demand_credentials(&self, demands: bool) {
        let free = if demands { "0" } else { "1000000000" };
        let answer = self.http().post("/moto-api/reset-auth", "text/plain", free);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Names of all objects.
    #[must_use]
    #[track_caller]
    pub fn objects(&self, bucket: &str) -> Vec<String> {
        texts(&self.ask("GET", &format!("/{bucket}?list-type=2")), "Key")
    }

    /// Numbers of all uploads that haven't been completed.
    #[must_use]
    #[track_caller]
    pub fn unfinished(&self, bucket: &str) -> Vec<String> {
        texts(&self.ask("GET", &format!("/{bucket}?uploads")), "UploadId")
    }

    /// What is in an object.
    ///
    /// # Panics
    /// It isn't there.
    #[must_use]
    #[track_caller]
    pub fn content(&self, bucket: &str, name: &str) -> Vec<u8> {
        let answer = self.http().send("GET", &format!("/{bucket}/{name}"), ANYBODY, "");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        assert!(answer[..end].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..end]));
        answer[end + 4..].to_vec()
    }
}

/// What is in all elements of a name.
#[track_caller]
fn texts(answer: &Answer, element: &str) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let rest = answer.body.split(begin.as_str()).skip(1);
    rest.filter_map(|rest| rest.split_once(end.as_str())).map(|(text, _)| text.to_owned()).collect()
}

/// Stands before a server, and can be shut.
pub struct Gate {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    /// A request with this in it doesn't get through, nor does anything after it.
    stop_at: Option<String>,
    has_stopped: bool,
    /// Beginnings of requests.
    seen: Vec<String>,
    open: Vec<TcpStream>,
}

impl Gate {
    /// Opens one before a server.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<Mutex<State>>::default();
        let gate = Self { address, state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect(server) {
                    pass(&state, client, server);
                }
            }
        });
        gate
    }

    /// Where it stands.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nobody gets through any more.
    pub fn shut(&self) {
        let mut state = lock(&self.state);
        state.is_shut = true;
        close(&mut state);
    }

    /// Everybody gets through again.
    pub fn open(&self) {
        let mut state = lock(&self.state);
        (state.is_shut, state.stop_at, state.has_stopped) = (false, None, false);
        close(&mut state);
    }

    /// Lets everything through up to a request with this text, and nothing from then on; the connections stay open.
    pub fn stop_at(&self, text: &str) {
        lock(&self.state).stop_at = Some(text.to_owned());
    }

    /// Waits until such a request has come.
    #[track_caller]
    pub fn wait_until_stopped(&self) {
        until("the request comes", SOON, || lock(&self.state).has_stopped.then_some(()));
    }

    /// How many requests have begun so.
    #[must_use]
    pub fn seen(&self, beginning: &str) -> usize {
        lock(&self.state).seen.iter().filter(|seen| seen.starts_with(beginning)).count()
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(state: &mut State) {
    for stream in state.open.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn pass(state: &Arc<Mutex<State>>, client: TcpStream, server: TcpStream) {
    let mut held = lock(state);
    if held.is_shut {
        return;
    }
    let clones = [&client, &server].map(|stream| stream.try_clone().expect("a descriptor"));
    held.open.extend(clones.iter().map(|stream| stream.try_clone().expect("a descriptor")));
    drop(held);
    let [client_again, server_again] = clones;
    let state = Arc::clone(state);
    std::thread::spawn(move || copy(client, server, |bytes| may_pass(&state, bytes)));
    std::thread::spawn(move || copy(server_again, client_again, |_| true));
}

/// Copies until an end, or until something may not pass: then it holds on to both, and says nothing.
fn copy(mut from: TcpStream, mut to: TcpStream, may_pass: impl Fn(&[u8]) -> bool) {
    let mut bytes = [0; 64 << 10];
    let mut passes = true;
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        passes = passes && may_pass(&bytes[..read]);
        if passes && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn may_pass(state: &Mutex<State>, bytes: &[u8]) -> bool {
    let mut state = lock(state);
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let is_request = ["GET ", "PUT ", "POST ", "HEAD ", "DELETE "].iter().any(|method| begin.starts_with(method));
    if !is_request {
        return true;
    }
    if state.stop_at.as_ref().is_some_and(|text| begin.contains(text.as_str())) {
        state.has_stopped = true;
    }
    state.seen.push(begin);
    !state.has_stopped
}
