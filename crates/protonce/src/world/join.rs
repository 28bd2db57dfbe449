//! How a process comes to the others: from what a launcher says to connections with all of them.
//!
//! Names are resolved and the meeting place is tried before libtorch is asked, which would only time out
//! without saying why.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::c10d::{Card, Group, Joining};
use super::error::WorldError;
use super::launch::Launch;
use super::{FAILURE, farewell};

/// The most that processes wait for one another before all are there.
const JOINING: Duration = Duration::from_secs(300);

/// Between two looks at what others are to bring about.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Goes to the store, waits for all processes there and connects to each of them.
pub(super) fn join(launch: &Launch, timeout: Duration) -> Result<Group, WorldError> {
    let joining = timeout.min(JOINING);
    let deadline = Instant::now() + joining;
    let serve = launch.rank == 0 && !launch.served;
    let place = resolve(&launch.host, launch.port)?;
    if !serve {
        knock(place, joining)?;
    }
    let ip = place.ip().to_string();
    let described = Joining {
        rank: launch.rank,
        size: launch.size,
        host: &ip,
        port: launch.port,
        serve,
        prefix: &format!("protonce/{}", launch.session),
    };
    let failed = |reason: String| match serve {
        true => WorldError::Port { port: launch.port, reason },
        false => WorldError::Unreachable {
            address: place.to_string(),
            seconds: joining.as_secs(),
            reason,
        },
    };
    let group = Group::join(&described, joining).map_err(failed)?;
    let card = own_address(launch, &group, place, deadline)?;
    wait_for_all("here", launch, &group, joining, deadline)?;
    let named = std::env::var("GLOO_SOCKET_IFNAME").ok().filter(|name| !name.is_empty());
    let card = named.as_deref().map_or(Card::Address(&card), Card::Interface);
    group.connect(&card, timeout).map_err(|reason| {
        let address = match card {
            Card::Address(address) => address,
            Card::Interface(name) => name,
        };
        let error = WorldError::Connect { address: address.to_owned(), reason };
        // Without it the others still notice, though late and not why.
        let _ = group.set(FAILURE, farewell(launch.rank, &error.to_string()).as_bytes());
        error
    })?;
    // Whoever leaves while another still connects would look to that one like a fault of the network.
    wait_for_all("connected", launch, &group, joining, Instant::now() + joining)?;
    Ok(group)
}

/// The address of `host`; that of the fourth version of the protocol, where it has one.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, WorldError> {
    let failed = |source| WorldError::Resolve { host: host.to_owned(), source };
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| failed(std::io::Error::other("no address")))
}

/// Waits until something answers at `place`.
fn knock(place: SocketAddr, patience: Duration) -> Result<(), WorldError> {
    let start = Instant::now();
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let wait = left.clamp(Duration::from_millis(1), Duration::from_secs(10));
        match TcpStream::connect_timeout(&place, wait) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() >= patience => {
                return Err(WorldError::Unreachable {
                    address: place.to_string(),
                    seconds: patience.as_secs(),
                    reason: error.to_string(),
                });
            }
            Err(_) => sleep(LOOK),
        }
    }
}

/// The address of the network card from which `place` is reached, by which the others reach this process.
fn own_address(
    launch: &Launch,
    group: &Group,
    place: SocketAddr,
    deadline: Instant,
) -> Result<String, WorldError> {
    let seen_by = |rank: usize| format!("address of process 0 as process {rank} knows it");
    let unspecified: SocketAddr = match place {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    // Connecting such a socket sends nothing: the system only chooses a card.
    let socket = UdpSocket::bind(unspecified).and_then(|socket| {
        socket.connect(place)?;
        socket.local_addr()
    });
    let address = socket.map_or(place.ip(), |address| address.ip());
    let outside = |ip: IpAddr| !ip.is_loopback();
    // Many a machine knows itself by an address that nobody else can use: the others know a better one.
    let lost = |reason| WorldError::Lost(reason);
    if launch.rank == 0 && launch.local_size < launch.size && !outside(address) {
        for rank in 1..launch.size {
            let left = deadline.saturating_duration_since(Instant::now());
            let told = group.get(&seen_by(rank), left).map_err(lost)?;
            let told = String::from_utf8_lossy(&told).into_owned();
            if told.parse().is_ok_and(outside) {
                return Ok(told);
            }
        }
        // All are on this machine, whatever their launcher said of it.
    }
    if launch.rank > 0 {
        let known = place.ip().to_string();
        group.set(&seen_by(launch.rank), known.as_bytes()).map_err(lost)?;
    }
    Ok(address.to_string())
}

/// Waits until every process has said in the store that it is `ready`.
fn wait_for_all(
    ready: &str,
    launch: &Launch,
    group: &Group,
    joining: Duration,
    deadline: Instant,
) -> Result<(), WorldError> {
    let key = |rank: usize| format!("{ready}/{rank}");
    group.set(&key(launch.rank), b"").map_err(WorldError::Lost)?;
    let mut missing: Vec<usize> = (0..launch.size).collect();
    loop {
        // Asked first: a process that failed only after all were ready does not keep others from going on.
        let failed = group.check(FAILURE).map_err(WorldError::Lost)?;
        let mut still = Vec::new();
        for rank in missing {
            if !group.check(&key(rank)).map_err(WorldError::Lost)? {
                still.push(rank);
            }
        }
        missing = still;
        if missing.is_empty() {
            return Ok(());
        }
        if failed {
            let sentence = group.get(FAILURE, LOOK).map_err(WorldError::Lost)?;
            return Err(WorldError::Ended(String::from_utf8_lossy(&sentence).into_owned()));
        }
        if Instant::now() >= deadline {
            return Err(WorldError::Missing {
                missing,
                size: launch.size,
                seconds: joining.as_secs(),
            });
        }
        sleep(LOOK);
    }
}
