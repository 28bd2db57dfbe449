//! The live page: what happens in a run is on it, and nothing else ever is.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::browser::Browser;
use crate::images::{picture, write_classes};
use crate::{protonce, refuse, succeed, tiny_pretrain};

/// A server that ends with the test.
pub struct Server {
    child: Child,
    /// `127.0.0.1:PORT`
    address: String,
}

impl Server {
    pub fn start(runs: &[&Path]) -> Server {
        let runs = runs.iter().map(|run| run.to_str().unwrap());
        let arguments: Vec<&str> =
            ["serve", "--port", "0", "--json", "--quiet"].into_iter().chain(runs).collect();
        let mut child = protonce(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let url = said["address"].as_str().unwrap();
        let address = url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        assert!(address.starts_with("127.0.0.1:"), "loopback unless told otherwise: {address}");
        Server { child, address }
    }

    /// Status and body of a request whose target is sent exactly as it is written here.
    fn get_as(&self, target: &str, host: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer[head + 4..].to_vec())
    }

    pub fn get(&self, target: &str) -> (u16, Vec<u8>) {
        self.get_as(target, &self.address)
    }

    /// Kilobytes of memory that are the process's own.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Server-sent events, as a page receives them.
struct Events(BufReader<TcpStream>);

impl Events {
    fn of(server: &Server) -> Events {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let host = &server.address;
        write!(stream, "GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        Events(BufReader::new(stream))
    }

    /// The next message: what is new, run by run.
    fn next(&mut self) -> Vec<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the server hung up");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// Applies messages until the first run's points fulfil a condition.
    fn until(&mut self, points: &mut Vec<Value>, fulfilled: impl Fn(&[Value]) -> bool) {
        while !fulfilled(points) {
            for news in self.next() {
                let history = &news["history"];
                if news["run"] == 0 && !history.is_null() {
                    points.truncate(history["from"].as_u64().unwrap() as usize);
                    points.extend(history["points"].as_array().unwrap().iter().cloned());
                }
            }
        }
    }
}

fn run_in(folder: &Path, name: &str) -> PathBuf {
    let data = folder.join("data");
    write_classes(&data, &["cats", "dogs"], 20);
    let run = folder.join(name);
    succeed(tiny_pretrain(data.to_str().unwrap(), &run, &["--epochs", "2", "--log-every", "1"]));
    run
}

fn append(run: &Path, text: &str) {
    let file = File::options().append(true).open(run.join("events.jsonl"));
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn step(epoch: usize, step: usize, loss: f64) -> String {
    format!(
        "{{\"event\":\"step\",\"epoch\":{epoch},\"step\":{step},\"steps\":10,\"loss\":{loss},\
         \"instance_loss\":{loss},\"instance_accuracy\":50,\"prototype_loss\":null,\
         \"prototype_accuracy\":null,\"learning_rate\":0.01,\"images\":80,\"seconds\":1,\
         \"images_per_second\":80,\"waited\":0}}\n"
    )
}

#[test]
fn a_point_appears_soon_after_its_event_and_a_resumed_run_replaces_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path(), "run");
    let server = Server::start(&[&run]);
    let mut events = Events::of(&server);
    let mut points = Vec::new();
    events.until(&mut points, |points| points.len() == 10);

    // The log as a kill leaves it: with a line that is not whole.
    let log = run.join("events.jsonl");
    let kept = std::fs::metadata(&log).unwrap().len();
    let start = Instant::now();
    append(&run, &(step(2, 1, 7.0) + &step(2, 2, 7.5)));
    events.until(&mut points, |points| points.len() == 12);
    println!("a point was on its way to the page {:?} after its event", start.elapsed());
    append(&run, "{\"event\":\"step\",\"epoch\":2,\"st");

    // As `pretrain --resume` does it: back to the checkpoint's length, and on from there.
    let file = File::options().write(true).open(&log).unwrap();
    file.set_len(kept).unwrap();
    append(&run, &(step(2, 1, 3.0) + &step(2, 2, 3.5) + &step(2, 3, 3.75)));
    events.until(&mut points, |points| points.len() == 13 && points[12][1] == 3.75);
    assert_eq!((&points[10][1], &points[11][1]), (&Value::from(3.0), &Value::from(3.5)));

    // A page that comes later sees the same.
    let mut later = Vec::new();
    Events::of(&server).until(&mut later, |points| points.len() == 13);
    assert_eq!(later, points);
}

#[test]
fn an_hour_of_events_takes_no_more_memory_than_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path(), "run");
    let server = Server::start(&[&run]);
    let mut events = Events::of(&server);
    let mut points = Vec::new();
    events.until(&mut points, |points| points.len() == 10);
    // Ten a second, an hour long; the first minute fills what may be filled.
    let mut minute = |number: usize| {
        let lines: String =
            (0..600).map(|k| step(2 + number * 60 + k / 10, k % 10 + 1, 5.0)).collect();
        append(&run, &lines);
        let last = (2 + number * 60 + 60) as f64;
        let mut reader = Vec::new();
        std::mem::swap(&mut reader, &mut points);
        events.until(&mut reader, |points| points.last().unwrap()[0].as_f64() == Some(last));
        assert!(reader.len() <= 2048);
        points = reader;
    };
    (0..6).for_each(&mut minute);
    let before = server.memory();
    (6..60).for_each(&mut minute);
    let after = server.memory();
    println!("{before} kB after six minutes, {after} kB after an hour");
    assert!(after < before + 8 * 1024, "{before} kB, then {after} kB");
}

#[test]
fn nothing_but_the_runs_own_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["cats", "dogs"], 10);
    // A picture and a text outside, and links to them inside.
    picture(0, 0).save(folder.path().join("outside.png")).unwrap();
    std::fs::write(folder.path().join("secret.txt"), "the secret").unwrap();
    std::os::unix::fs::symlink(folder.path().join("outside.png"), data.join("cats/link.png"))
        .unwrap();
    let run = folder.path().join("run");
    succeed(tiny_pretrain(data.to_str().unwrap(), &run, &["--epochs", "2"]));
    let server = Server::start(&[&run]);

    let (status, page) = server.get("/");
    assert_eq!(status, 200);
    assert!(page.starts_with(b"<!doctype html>"));
    let (status, image) = server.get("/runs/0/images/0");
    assert_eq!((status, &image[..2]), (200, &b"\xff\xd8"[..]), "a JPEG");
    // Images are in order of name: ten cats, then the link.
    assert_eq!(server.get("/runs/0/images/10").0, 404, "a link out of the data");
    assert_eq!(server.get("/runs/0/images/20").0, 200);

    let outside = folder.path().join("secret.txt").display().to_string();
    for target in [
        "/config.toml",
        "/events.jsonl",
        "/run/config.toml",
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/runs/0/images/../../../secret.txt",
        "/runs/0/images/..%2f..%2fsecret.txt",
        "/runs/0/images/%2e%2e%2fsecret.txt",
        "/runs/0/images/0/../../secret.txt",
        "/runs/0/images/0%00",
        "/runs/0/images/-1",
        "/runs/0/images/21",
        "/runs/0/images/99999999999999999999999",
        "/runs/1/images/0",
        "/runs/../images/0",
        "/runs/0/images/cats%2f000.png",
        "/runs/0/analysis/../../config.toml",
        "/runs/1/analysis",
        &outside,
        &format!("/{outside}"),
        &format!("/runs/0/images/{outside}"),
        "/etc/passwd",
        "//etc/passwd",
        "file:///etc/passwd",
    ] {
        let (status, body) = server.get(target);
        assert!(status == 404 || status == 400, "{target}: {status}");
        assert!(body.is_empty(), "{target}: {}", String::from_utf8_lossy(&body));
    }
    // A page of another site, by a name that it made to point here.
    assert_eq!(server.get_as("/", "evil.example").0, 403);

    // A run whose files lead elsewhere.
    let strange = folder.path().join("strange");
    succeed(tiny_pretrain(data.to_str().unwrap(), &strange, &["--epochs", "1"]));
    std::fs::rename(strange.join("events.jsonl"), folder.path().join("other.jsonl")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("other.jsonl"), strange.join("events.jsonl"))
        .unwrap();
    let server = Server::start(&[&strange, &run]);
    let mut events = Events::of(&server);
    loop {
        let news = events.next();
        let of = |run: u64| news.iter().find(|news| news["run"] == run);
        assert!(
            of(0).is_none_or(|news| news["history"]["points"].as_array().is_none_or(Vec::is_empty))
        );
        if of(1)
            .is_some_and(|news| news["history"]["points"].as_array().is_some_and(|p| !p.is_empty()))
        {
            break;
        }
    }
}

#[test]
fn what_cannot_be_served_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(refuse(protonce(&["serve", path]), 1).contains("no run"));
    let run = run_in(folder.path(), "run");
    let server = Server::start(&[&run]);
    let port = server.address.rsplit_once(':').unwrap().1;
    let text = refuse(protonce(&["serve", run.to_str().unwrap(), "--port", port]), 1);
    assert!(text.contains("cannot listen") && text.contains("--port"), "{text}");
    assert!(refuse(protonce(&["serve"]), 2).contains("RUN"));
}

#[test]
fn a_person_watches_runs_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (run_in(folder.path(), "first"), run_in(folder.path(), "second"));
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::start(&[&first, &second]);
    browser.open(&format!("http://{}/", server.address));
    browser.until("document.getElementById('status').textContent === 'live'");
    browser.until("document.querySelectorAll('#training .chart .legend').length > 0");
    browser.until("document.querySelector('#training .legend').textContent.includes('second')");
    // Prototypes come once they are looked at, with pictures from the server.
    browser.until("document.querySelectorAll('#prototypes .gallery .prototype').length === 4");
    browser.value(
        "document.querySelector('#prototypes .tile').scrollIntoView({ behavior: 'instant' })",
    );
    browser.until("document.querySelector('#prototypes .tile img').naturalWidth === 96");
    browser.hover("#prototypes .prototype .tile");
    browser.until("!tip.hidden && tip.textContent.includes('.png')");
    browser.click("#prototypes .controls + div + p + .gallery .prototype");
    browser.until("document.querySelectorAll('.walk .children .prototype').length > 0");
    browser.picture("live", false);

    // A new point, while somebody reads the settings: nothing is closed under their eyes.
    browser.click("#settings summary");
    let points = "content.runs[0].history.points.length";
    assert_eq!(browser.number(points), 10.0);
    let start = Instant::now();
    append(&first, &step(2, 1, 5.5));
    browser.until(&format!("{points} === 11"));
    let read = "document.querySelector('#training svg').getAttribute('aria-label')";
    browser.until(&format!("{read}.includes('to 2.1:')"));
    println!("a point was on the page {:?} after its event", start.elapsed());
    assert_eq!(browser.value("document.querySelector('#settings details').open"), true);
    assert_eq!(browser.value("document.querySelector('.walk') !== null"), true);

    // The other run's prototypes.
    browser.click("#summary .segments button + button");
    browser.until("document.querySelector('h1').textContent === 'second'");
    browser.until("document.querySelectorAll('#prototypes .gallery .prototype').length === 4");
    assert_eq!(browser.complaints, [""; 0]);

    // The server goes and comes back at the same place; the page finds it again by itself.
    let port = server.address.rsplit_once(':').unwrap().1.to_owned();
    drop(server);
    browser.until("document.getElementById('status').textContent === 'connection lost'");
    let runs = [first.to_str().unwrap(), second.to_str().unwrap()];
    let mut again =
        protonce(&["serve", "--quiet", "--port", &port, runs[0], runs[1]]).spawn().unwrap();
    browser.until("document.getElementById('status').textContent === 'live'");
    let _ = again.kill();
    let _ = again.wait();
}
