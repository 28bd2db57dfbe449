//! A web server and object store for tests: parts of files, ETags and S3's lists, and faults when asked for.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer is 503.
    Busy,
    /// The connection ends in the middle of the bytes.
    Cut,
    /// The connection ends without an answer.
    Dropped,
    /// The answer is 403.
    Denied,
    /// The whole file is the answer to a question for a part.
    Whole,
}

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// Time that passes before each answer.
    pub latency: Duration,
    /// Every so many requests one goes wrong.
    pub fault: Option<(usize, Fault)>,
    /// Whether nothing is had without a signature: `?sig=secret`, or S3's header.
    pub signed: bool,
}

#[derive(Default)]
struct State {
    behaviour: Mutex<Behaviour>,
    /// By path; of a store, bucket and key.
    files: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
    requests: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    stopped: AtomicBool,
}

/// A server on this machine, for as long as this lives.
pub struct Server {
    pub address: String,
    state: Arc<State>,
}

impl Server {
    pub fn start(behaviour: Behaviour) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { behaviour: Mutex::new(behaviour), ..State::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&shared);
                // A client that goes away is no error.
                std::thread::spawn(move || drop(state.serve(&stream)));
            }
        });
        Server { address, state }
    }

    /// Puts a file at `path`, which begins with a slash; the address that it is had at.
    pub fn put(&self, path: &str, contents: Vec<u8>) -> String {
        self.state.files.lock().unwrap().insert(path.to_owned(), Arc::new(contents));
        format!("{}{path}", self.address)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// The most requests that were waiting for their answers at once.
    pub fn most_under_way(&self) -> usize {
        self.state.most_under_way.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
    }
}

impl State {
    /// Answers the requests of one connection.
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_under_way.fetch_max(under_way, Ordering::Relaxed);
            let answered = self.answer(&lines, stream);
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            if !answered? {
                return Ok(());
            }
        }
    }

    /// Answers one request; says whether the connection goes on.
    fn answer(&self, lines: &[String], mut stream: &TcpStream) -> io::Result<bool> {
        let behaviour = *self.behaviour.lock().unwrap();
        std::thread::sleep(behaviour.latency);
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let fault =
            behaviour.fault.filter(|(every, _)| number.is_multiple_of(*every)).map(|fault| fault.1);
        let target = lines[0].split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let header = |name: &str| {
            let is_it = |line: &&String| line.to_ascii_lowercase().starts_with(name);
            lines.iter().find(is_it).map(|line| line[name.len()..].trim().to_owned())
        };
        let mut plain = |status: &str, body: &str| {
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")?;
            Ok(true)
        };
        let is_signed = query.contains("sig=secret") || header("authorization:").is_some();
        let denied = behaviour.signed && !is_signed;
        match fault {
            _ if denied => {
                return plain("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>");
            }
            Some(Fault::Denied) => return plain("403 Forbidden", ""),
            Some(Fault::Busy) => return plain("503 Service Unavailable", "<Code>SlowDown</Code>"),
            Some(Fault::Dropped) => return Ok(false),
            _ => {}
        }
        if query.contains("list-type=2") {
            let (status, body) = self.list(path, query);
            return plain(status, &body);
        }
        let found = self.files.lock().unwrap().get(&unescaped(path)).cloned();
        let Some(file) = found else {
            return plain("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>");
        };
        let range = header("range: bytes=").filter(|_| fault != Some(Fault::Whole));
        let (begin, end) = match range.as_deref().and_then(|range| range.split_once('-')) {
            Some((begin, end)) => (begin.parse().unwrap(), end.parse::<usize>().unwrap() + 1),
            None => (0, file.len()),
        };
        if range.is_some() && begin >= file.len() {
            return plain("416 Range Not Satisfiable", "");
        }
        let (end, whole) = (end.min(file.len()), file.len());
        let part = &file[begin..end];
        let mut e_tag = DefaultHasher::new();
        e_tag.write(&file);
        let e_tag = e_tag.finish();
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {begin}-{}/{whole}\r\n\
             ETag: \"{e_tag:x}\"\r\nLast-Modified: Sun, 29 Nov 2026 12:00:00 GMT\r\n\r\n",
            part.len(),
            end.saturating_sub(1),
        )?;
        if fault == Some(Fault::Cut) {
            stream.write_all(&part[..part.len() / 2])?;
            return Ok(false);
        }
        stream.write_all(part)?;
        Ok(true)
    }

    /// S3's list of the keys of a bucket.
    fn list(&self, bucket: &str, query: &str) -> (&'static str, String) {
        let bucket = format!("{}/", bucket.trim_end_matches('/'));
        let files = self.files.lock().unwrap();
        if !files.keys().any(|path| path.starts_with(&bucket)) {
            return ("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>".to_owned());
        }
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
        let prefix = format!("{bucket}{}", unescaped(prefix.unwrap_or_default()));
        let entry = |(path, file): (&String, &Arc<Vec<u8>>)| {
            let key = path.strip_prefix(&bucket).filter(|_| path.starts_with(&prefix))?;
            Some(format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><ETag>x</ETag>\
                 <LastModified>2026-11-29T12:00:00.000Z</LastModified></Contents>",
                file.len()
            ))
        };
        let entries: String = files.iter().filter_map(entry).collect();
        (
            "200 OK",
            format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
            ),
        )
    }
}

/// Undoes `%2F` and the like.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2.min(part.len()));
        plain.push(u8::from_str_radix(code, 16).unwrap_or(b'?').into());
        plain.push_str(rest);
    }
    plain
}
