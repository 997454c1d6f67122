//! A small HTTP server that misbehaves as it is told, and the store that reads from it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prolip_loader::config::StoreConfig;
use prolip_loader::error::FetchError;
use prolip_loader::remote::{Fetched, Fetcher};
use prolip_loader::shards::Location;

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub range: Option<(u64, u64)>,
    pub if_match: Option<String>,
    /// Its other headers, with names in lower case.
    pub headers: HashMap<String, String>,
    pub number: usize,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Good,
    /// This status and these headers, without a body.
    Status(u16, String),
    /// This many bytes, then the connection is closed.
    Truncate(usize),
    /// This many bytes, then the connection is reset.
    Reset(usize),
    /// This many bytes, then nothing for this long.
    Stall(usize, Duration),
    Late(Duration),
    /// This many bytes at a time, with a pause after each piece.
    Drip(usize, Duration),
    Endless,
    /// The file is replaced; then the right answer.
    Change(Page),
}

#[derive(Debug, Clone)]
pub struct Page {
    pub bytes: Arc<Vec<u8>>,
    pub etag: Option<String>,
    pub modified: Option<String>,
}

impl Page {
    pub fn new(bytes: Vec<u8>, etag: &str) -> Self {
        Self { bytes: Arc::new(bytes), etag: Some(etag.to_owned()), modified: None }
    }
}

type Behaviour = dyn Fn(&Request) -> Reply + Send + Sync;

struct Inner {
    pages: Mutex<HashMap<String, Page>>,
    ranges: bool,
    behaviour: Box<Behaviour>,
    log: Mutex<Vec<Request>>,
    now: AtomicUsize,
    most: AtomicUsize,
    endless: AtomicUsize,
    stopping: AtomicBool,
}

pub struct Server {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl Server {
    /// A server of `pages`, with or without support for ranges.
    pub fn start(
        pages: Vec<(&str, Page)>,
        ranges: bool,
        behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pages = pages.into_iter().map(|(path, page)| (format!("/{path}"), page));
        let inner = Arc::new(Inner {
            pages: Mutex::new(pages.collect()),
            ranges,
            behaviour: Box::new(behaviour),
            log: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            endless: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, stream) = (Arc::clone(&shared), stream.unwrap());
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { inner, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.inner.log.lock().unwrap().clone()
    }

    pub fn endless_bytes(&self) -> usize {
        self.inner.endless.load(Ordering::SeqCst)
    }

    /// The most requests that were answered at the same time.
    pub fn most_at_once(&self) -> usize {
        self.inner.most.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

impl Inner {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = self.read_request(&mut reader)? {
            self.log.lock().unwrap().push(request.clone());
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let goes_on = self.answer(&stream, &request);
            self.now.fetch_sub(1, Ordering::SeqCst);
            if !goes_on? {
                break;
            }
        }
        Ok(())
    }

    fn read_request(&self, reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut request = Request {
            path: path.split('?').next().unwrap().to_owned(),
            range: None,
            if_match: None,
            headers: HashMap::new(),
            number: self.log.lock().unwrap().len(),
        };
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                return Ok(Some(request));
            };
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    let (first, last) = value["bytes=".len()..].split_once('-').unwrap();
                    request.range = Some((first.parse().unwrap(), last.parse().unwrap()));
                }
                "if-match" => request.if_match = Some(value.to_owned()),
                other => drop(request.headers.insert(other.to_owned(), value.to_owned())),
            }
        }
    }

    /// Whether the connection may be used again.
    fn answer(&self, mut stream: &TcpStream, request: &Request) -> std::io::Result<bool> {
        let reply = (self.behaviour)(request);
        if let Reply::Change(page) = &reply {
            let mut pages = self.pages.lock().unwrap();
            pages.insert(request.path.clone(), page.clone());
        }
        let page = self.pages.lock().unwrap().get(&request.path).cloned();
        let mut status = |line: &str, headers: &str| {
            write!(stream, "HTTP/1.1 {line}\r\n{headers}Content-Length: 0\r\n\r\n").map(|()| true)
        };
        if let Reply::Status(code, headers) = &reply {
            return status(&format!("{code} No"), headers);
        }
        let Some(page) = page else {
            return status("404 Not Found", "");
        };
        if request.if_match.is_some() && self.ranges && request.if_match != page.etag {
            return status("412 Precondition Failed", "");
        }
        if let Reply::Endless = reply {
            return self.answer_endless(stream, &page);
        }
        let size = page.bytes.len() as u64;
        let (head, body) = match request.range.filter(|_| self.ranges) {
            Some((first, _)) if first >= size => {
                return status("416 No", &format!("Content-Range: bytes */{size}\r\n"));
            }
            Some((first, last)) => {
                let last = last.min(size - 1);
                (
                    format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}"),
                    &page.bytes[first as usize..=last as usize],
                )
            }
            None => ("200 OK".to_owned(), &page.bytes[..]),
        };
        let header = |name: &str, value: &Option<String>| {
            let value = value.as_ref();
            value.map_or(String::new(), |value| format!("{name}: {value}\r\n"))
        };
        let head = format!(
            "HTTP/1.1 {head}\r\n{}{}Content-Length: {}\r\n\r\n",
            header("ETag", &page.etag),
            header("Last-Modified", &page.modified),
            body.len()
        );
        if let Reply::Late(pause) = reply {
            std::thread::sleep(pause);
        }
        stream.write_all(head.as_bytes())?;
        let some = |bytes: usize| &body[..bytes.min(body.len())];
        match reply {
            Reply::Truncate(bytes) => stream.write_all(some(bytes))?,
            Reply::Reset(bytes) => {
                stream.write_all(some(bytes))?;
                // Without time to linger, closing a connection resets it.
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
                return Ok(false);
            }
            Reply::Stall(bytes, pause) => {
                stream.write_all(some(bytes))?;
                std::thread::sleep(pause);
            }
            Reply::Drip(bytes, pause) => {
                for piece in body.chunks(bytes) {
                    stream.write_all(piece)?;
                    std::thread::sleep(pause);
                }
                return Ok(true);
            }
            _ => {
                stream.write_all(body)?;
                return Ok(true);
            }
        }
        stream.shutdown(std::net::Shutdown::Both)?;
        Ok(false)
    }
}

impl Inner {
    fn answer_endless(&self, mut stream: &TcpStream, page: &Page) -> std::io::Result<bool> {
        let etag = page.etag.iter().map(|etag| format!("ETag: {etag}\r\n")).collect::<String>();
        write!(stream, "HTTP/1.1 200 OK\r\n{etag}Connection: close\r\n\r\n")?;
        let piece = vec![7; 1 << 16];
        while !self.stopping.load(Ordering::SeqCst) {
            stream.write_all(&piece)?;
            self.endless.fetch_add(piece.len(), Ordering::SeqCst);
        }
        stream.shutdown(std::net::Shutdown::Both)?;
        Ok(false)
    }
}

/// Two whole ranges of 8 MiB and a part of one.
pub const SIZE: usize = (20 << 20) + 12_345;
pub const MIB: usize = 1 << 20;

pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub fn fetch(config: &StoreConfig, location: &Location) -> Result<Vec<u8>, FetchError> {
    let store = Fetcher::open(config).unwrap();
    let fetched = store.fetch(location, &AtomicBool::new(false))?;
    Ok(content(fetched))
}

pub fn content(mut fetched: Fetched) -> Vec<u8> {
    let mut bytes = Vec::new();
    fetched.file.rewind().unwrap();
    fetched.file.read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn one(
    bytes: &[u8],
    ranges: bool,
    behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (Server, Location) {
    let page = Page::new(bytes.to_vec(), "\"one\"");
    let server = Server::start(vec![("a.tar", page)], ranges, behaviour);
    let location = Location::Url(server.url("a.tar"));
    (server, location)
}

/// These replies to the first requests, and right answers after them.
pub fn schedule(replies: Vec<Reply>) -> impl Fn(&Request) -> Reply + Send + Sync {
    let replies = Mutex::new(replies.into_iter());
    move |_| replies.lock().unwrap().next().unwrap_or(Reply::Good)
}
