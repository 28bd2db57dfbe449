//! A headless Chromium, driven through its DevTools protocol as a person would use it.
//!
//! The protocol is JSON with a zero byte after each message, over two pipes
//! (`--remote-debugging-pipe`). That needs no port, no driver of the right version and no crate of
//! ten thousand generated lines.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    /// Events that came while an answer was waited for.
    events: VecDeque<Value>,
    number: u64,
    session: Option<String>,
    /// Errors of the console, exceptions and dialogs so far.
    pub complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts Chromium, if there is one; says loudly when there is not. The one that
    /// `PROTONCE_CHROMIUM` names must be there.
    pub fn start() -> Option<Browser> {
        let Some(chromium) = chromium() else {
            eprintln!(
                "SKIPPED: no Chromium was found, so the page was not looked at; install \
                 chromium, or name one in PROTONCE_CHROMIUM"
            );
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let data = format!("--user-data-dir={}", profile.path().display());
        // A shell moves the pipes to where Chromium expects them: 3 to it, 4 from it.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", &chromium])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", &data])
            .args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-pipe", "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (send, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                if let Ok(value) = serde_json::from_slice(&message)
                    && send.send(value).is_err()
                {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Browser {
            child,
            to,
            from,
            events: VecDeque::new(),
            number: 0,
            session: None,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 900);
        Some(browser)
    }

    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        self.to.write_all(&serde_json::to_vec(&message).unwrap()).unwrap();
        self.to.write_all(&[0]).unwrap();
        loop {
            let answer = self.next(method);
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    fn next(&mut self, waiting_for: &str) -> Value {
        let message = self.from.recv_timeout(PATIENCE);
        let message = message.unwrap_or_else(|_| panic!("Chromium is silent: {waiting_for}"));
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string());
            }
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                self.complaints.push(parameters["args"].to_string());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            Some("Page.javascriptDialogOpening") => {
                self.complaints.push(format!("a dialog: {parameters}"));
            }
            Some(_) => self.events.push_back(message.clone()),
            None => {}
        }
        message
    }

    /// Opens an address and waits until it is loaded; seconds from request to the load event.
    pub fn open(&mut self, address: &str) -> f64 {
        self.events.clear();
        let start = Instant::now();
        self.ask("Page.navigate", json!({ "url": address }));
        loop {
            let loaded = |event: &Value| event["method"] == "Page.loadEventFired";
            if self.events.iter().any(loaded) || loaded(&self.next("the page to load")) {
                return start.elapsed().as_secs_f64();
            }
        }
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub fn number(&mut self, expression: &str) -> f64 {
        let value = self.value(expression);
        value.as_f64().unwrap_or_else(|| panic!("{expression} is {value}"))
    }

    pub fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).to_owned()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let start = Instant::now();
        while self.value(expression) != Value::Bool(true) {
            assert!(start.elapsed() < PATIENCE, "never true: {expression}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn size(&mut self, width: u32, height: u32) {
        let parameters = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500
        });
        self.ask("Emulation.setDeviceMetricsOverride", parameters);
    }

    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Scrolls the first element of a selector into view and gives its middle.
    fn middle_of(&mut self, selector: &str) -> (f64, f64) {
        // Two frames later scrolling has come to its end, and with it what scrolling hides.
        let place = self.value(&format!(
            "(async () => {{ const e = document.querySelector({selector:?}); \
             e.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame); \
             const b = e.getBoundingClientRect(); \
             return [b.left + b.width / 2, b.top + b.height / 2]; }})()"
        ));
        (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
    }

    pub fn move_to(&mut self, x: f64, y: f64) {
        self.ask("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": x, "y": y }));
    }

    pub fn hover(&mut self, selector: &str) {
        let (x, y) = self.middle_of(selector);
        self.move_to(x - 1.0, y);
        self.move_to(x, y);
    }

    pub fn click(&mut self, selector: &str) {
        let (x, y) = self.middle_of(selector);
        for kind in ["mousePressed", "mouseReleased"] {
            let parameters = json!({
                "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1
            });
            self.ask("Input.dispatchMouseEvent", parameters);
        }
    }

    pub fn key(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.ask("Input.dispatchKeyEvent", json!({ "type": kind, "key": key }));
        }
    }

    /// Keeps a picture of the page in the folder PROTONCE_SCREENSHOTS, if there is one.
    pub fn picture(&mut self, name: &str, whole: bool) {
        let Ok(folder) = std::env::var("PROTONCE_SCREENSHOTS") else { return };
        let parameters = json!({ "format": "png", "captureBeyondViewport": whole });
        let answer = self.ask("Page.captureScreenshot", parameters);
        let bytes = decode(answer["data"].as_str().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(format!("{folder}/{name}.png"), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chromium() -> Option<String> {
    if let Ok(named) = std::env::var("PROTONCE_CHROMIUM") {
        return Some(named);
    }
    let path = std::env::var_os("PATH")?;
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
        .into_iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
        .map(|file| file.display().to_string())
}

/// Base64.
fn decode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|&digit| digit == byte)) {
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
