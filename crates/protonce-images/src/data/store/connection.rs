//! The way to the stores: clients with the credentials of the environment, and what they are fetching.
//!
//! Enters: an address. Leaves: bytes and what the store says of the object. All of it is done on two threads,
//! for the threads that read images to wait for. A forked process, in which these threads do not run, makes
//! itself another connection.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::address::{Address, Service};
use super::{StoreError, StoreProblem};

/// Requests for blocks at once: enough for a distant store, and what they hold fits in memory.
const AT_ONCE: usize = 32;

/// Of what panicked.
const UNFINISHED: StoreProblem = StoreProblem::Bug("a request ended without a result");

/// Threads, clients and requests of this process.
pub(super) struct Connection {
    process: u32,
    runtime: Runtime,
    web: WebConnector,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    /// Blocks that are being fetched, by the file that each will be kept in.
    flights: Mutex<HashMap<PathBuf, Arc<Flight>>>,
    /// Stores that were tried for long and in vain: when that ended, and why.
    given_up: Mutex<HashMap<String, (Instant, StoreProblem)>>,
    permits: Semaphore,
}

/// A block that is being fetched.
#[derive(Debug, Default)]
pub(in crate::data) struct Flight {
    result: Mutex<Option<Result<Bytes, StoreError>>>,
    landed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// The connection of this process.
    pub fn current() -> Result<Arc<Connection>, StoreProblem> {
        static CURRENT: Mutex<Option<Arc<Connection>>> = Mutex::new(None);
        let mut current = lock(&CURRENT);
        if let Some(connection) = &*current
            && connection.process == std::process::id()
        {
            return Ok(Arc::clone(connection));
        }
        let connection = Connection::new().map_err(|error| no_answer(&error))?;
        let connection = Arc::new(connection);
        // The threads of a parent are not there to be stopped.
        std::mem::forget(current.replace(Arc::clone(&connection)));
        Ok(connection)
    }

    fn new() -> io::Result<Connection> {
        // An error says that there is one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        Ok(Connection {
            process: std::process::id(),
            runtime: runtime.worker_threads(2).thread_name("objects").enable_all().build()?,
            web: WebConnector::default(),
            stores: Mutex::default(),
            flights: Mutex::default(),
            given_up: Mutex::default(),
            permits: Semaphore::new(AT_ONCE),
        })
    }

    /// The client for what is at an address.
    pub fn store(&self, address: &Address) -> Result<Arc<dyn ObjectStore>, StoreProblem> {
        if let Some(store) = lock(&self.stores).get(&address.store) {
            return Ok(Arc::clone(store));
        }
        // What no retry helps against is told soon; how long to hold out is up to the caller.
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..Default::default() },
            max_retries: 3,
            retry_timeout: Duration::from_secs(60),
        };
        let options = ClientOptions::new().with_allow_http(true);
        let url = &address.store;
        let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match address.service {
            Service::S3 => AmazonS3Builder::from_env()
                .with_url(url)
                .with_allow_http(true)
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
            Service::Google => GoogleCloudStorageBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
            Service::Azure => MicrosoftAzureBuilder::from_env()
                .with_url(url)
                .with_allow_http(true)
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
            Service::Web => HttpBuilder::new()
                .with_url(url)
                .with_client_options(options)
                .with_http_connector(self.web.clone())
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        };
        let store = store.map_err(|error| problem(&error))?;
        lock(&self.stores).insert(url.clone(), Arc::clone(&store));
        Ok(store)
    }

    /// Notes that the store of an address was tried for long and in vain.
    pub fn give_up(&self, address: &Address, problem: &StoreProblem) {
        let now = (Instant::now(), problem.clone());
        lock(&self.given_up).insert(address.store.clone(), now);
    }

    /// Why the store of an address was given up less than `recently` ago, if it was: whoever reads
    /// thousands of images need not wait for it thousands of times.
    pub fn given_up(&self, address: &Address, recently: Duration) -> Option<StoreProblem> {
        let given_up = lock(&self.given_up);
        let (then, problem) = given_up.get(&address.store)?;
        (then.elapsed() < recently).then(|| problem.clone())
    }

    /// What `work` ends with, for a thread that waits for it.
    pub fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreProblem>> + Send + 'static,
    ) -> Result<T, StoreProblem> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let _ = sender.send(work.await);
        });
        receiver.recv().unwrap_or(Err(UNFINISHED))
    }

    /// Begins to fetch the block that will be kept in `file` by `work`, unless that is going on already.
    pub fn fetch<W>(
        self: &Arc<Connection>,
        file: PathBuf,
        address: &str,
        work: impl FnOnce() -> W,
    ) -> Arc<Flight>
    where
        W: Future<Output = Result<Bytes, StoreProblem>> + Send + 'static,
    {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&file) {
            return Arc::clone(flight);
        }
        let flight = Arc::new(Flight::default());
        flights.insert(file.clone(), Arc::clone(&flight));
        drop(flights);
        let (connection, address) = (Arc::clone(self), address.to_owned());
        let mut landing =
            Landing { connection, file, address, flight: Arc::clone(&flight), result: None };
        let work = work();
        self.runtime.spawn(async move {
            let connection = Arc::clone(&landing.connection);
            // An error would say that there are no more permits, ever.
            let _permit = connection.permits.acquire().await;
            landing.with(work.await);
        });
        flight
    }
}

/// Ends a flight, also where what fetches it panics.
struct Landing {
    connection: Arc<Connection>,
    file: PathBuf,
    address: String,
    flight: Arc<Flight>,
    result: Option<Result<Bytes, StoreProblem>>,
}

impl Landing {
    fn with(&mut self, result: Result<Bytes, StoreProblem>) {
        self.result = Some(result);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.connection.flights).remove(&self.file);
        let result = self.result.take().unwrap_or(Err(UNFINISHED));
        let address = std::mem::take(&mut self.address);
        let result = result.map_err(|problem| StoreError { address, problem });
        *lock(&self.flight.result) = Some(result);
        self.flight.landed.notify_all();
    }
}

impl Flight {
    /// Waits for the block.
    pub fn block(&self) -> Result<Bytes, StoreError> {
        let mut result = lock(&self.result);
        loop {
            if let Some(result) = &*result {
                return result.clone();
            }
            result = self.landed.wait(result).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until it is fetched, or cannot be.
    pub fn has_landed(&self) {
        // Whoever reads the block will meet the error.
        let _ = self.block();
    }
}

/// One client for all web servers, so that the files of a set share its connections.
#[derive(Clone, Debug, Default)]
struct WebConnector(Arc<Mutex<Option<HttpClient>>>);

impl HttpConnector for WebConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut client = lock(&self.0);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let made = ReqwestConnector::default().connect(options)?;
        Ok(client.insert(made).clone())
    }
}

/// What an error of a client means to who typed the address.
pub(super) fn problem(error: &object_store::Error) -> StoreProblem {
    const ANSWER: &str = "Server returned non-2xx status code: ";
    let mut causes: Vec<&(dyn std::error::Error + 'static)> = vec![error];
    while let Some(cause) = causes.last().and_then(|error| error.source()) {
        causes.push(cause);
    }
    let answers = causes.iter().map(ToString::to_string);
    let answer = answers.rev().find_map(|text| text.strip_prefix(ANSWER).map(str::to_owned));
    if let object_store::Error::NotSupported { .. } = error {
        return StoreProblem::NoRanges;
    }
    let Some(answer) = answer else {
        return match error {
            object_store::Error::NotFound { .. } => StoreProblem::Missing,
            _ => causes.last().map_or(StoreProblem::Missing, |cause| no_answer(*cause)),
        };
    };
    // Of a body only the code is told: the rest may repeat what was sent.
    let (status, body) = answer.split_once(": ").unwrap_or((&answer, ""));
    let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    let told = if code.is_empty() { status.to_owned() } else { format!("{status}, {code}") };
    match (status.get(..3), code) {
        (_, "NoSuchBucket" | "ContainerNotFound") => StoreProblem::MissingBucket,
        (Some("404" | "405" | "410"), _) => StoreProblem::Missing,
        (Some("401" | "403"), _) => StoreProblem::Denied(told),
        _ => StoreProblem::Refused(told),
    }
}

/// The reason at the bottom of an error, which has no address in it.
fn no_answer(error: &(dyn std::error::Error + 'static)) -> StoreProblem {
    StoreProblem::NoAnswer(error.to_string())
}
