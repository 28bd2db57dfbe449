//! What can come between processes that train together.

use std::io;

/// What can come between processes that train together.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The launcher's variables do not say how to join.
    #[error("cannot tell how to join the other processes: {0}")]
    Environment(String),
    /// The name of rank 0's machine means nothing here.
    #[error(
        "the machine of process 0 is called \"{host}\" (MASTER_ADDR), which has no address here ({source}): give a name or an address that all machines know"
    )]
    Resolve {
        /// The name.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing answers where the processes are to meet.
    #[error(
        "nothing answers at {address} for {seconds} s, where process 0 is to be (MASTER_ADDR, MASTER_PORT): is it running, and does no firewall stand between? ({reason})"
    )]
    Unreachable {
        /// Address and port.
        address: String,
        /// For how long it was tried.
        seconds: u64,
        /// What the system said last.
        reason: String,
    },
    /// The store cannot be opened.
    #[error("cannot open the port {port} at which all processes meet (MASTER_PORT): {reason}")]
    Port {
        /// Its number.
        port: u16,
        /// What libtorch says.
        reason: String,
    },
    /// Processes that were started with this one have not come.
    #[error("{} of {size} did not come within {seconds} s (--dist-timeout)", processes(.missing))]
    Missing {
        /// Their numbers.
        missing: Vec<usize>,
        /// How many processes there are.
        size: usize,
        /// How long they were waited for.
        seconds: u64,
    },
    /// Two processes have no connection.
    #[error(
        "processes cannot connect to one another, here at {address} (GLOO_SOCKET_IFNAME names another network card): {reason}"
    )]
    Connect {
        /// This process's address or network card.
        address: String,
        /// What libtorch says.
        reason: String,
    },
    /// The processes are not about to do the same.
    #[error(
        "process {rank} has another {what} than process 0, \"{own}\" where that has \"{first}\": all must be the same"
    )]
    Differs {
        /// What differs.
        what: String,
        /// This process.
        rank: usize,
        /// What it has.
        own: String,
        /// What process 0 has.
        first: String,
    },
    /// As many groups of batch norm cannot be dealt to as many processes.
    #[error(
        "{groups} groups of batch norm (--bn-splits) cannot be dealt evenly to {processes} processes: start {}",
        divisors(*.groups)
    )]
    Groups {
        /// Groups.
        groups: i64,
        /// Processes.
        processes: usize,
    },
    /// Another process ended with an error.
    #[error("{0}")]
    Ended(String),
    /// Another process is gone without a word.
    #[error(
        "another process has ended or cannot be reached any more: its own message, if it left one, has the cause ({0})"
    )]
    Lost(String),
    /// Another process does not answer.
    #[error(
        "another process has not answered for {seconds} s (--dist-timeout): it is stopped, or its machine cannot be reached"
    )]
    Silent {
        /// How long it was waited for.
        seconds: u64,
    },
    /// What is to be sent cannot be brought into the processor's memory.
    #[error("cannot copy what other processes are to get into memory: {0}")]
    Memory(String),
    /// What another process has sent makes no sense.
    #[error("what process {0} has sent cannot be understood: is it another version of protonce?")]
    Garbled(usize),
}

/// "process 1", "processes 1 and 2", "processes 1, 2 and 5 others".
fn processes(numbers: &[usize]) -> String {
    match numbers {
        [one] => format!("process {one}"),
        [one, other] => format!("processes {one} and {other}"),
        [one, other, rest @ ..] => format!("processes {one}, {other} and {} others", rest.len()),
        [] => "no process".to_owned(),
    }
}

/// The numbers of processes that `groups` can be dealt to.
fn divisors(groups: i64) -> String {
    let fitting: Vec<String> =
        (1..=groups).filter(|n| groups % n == 0).map(|n| n.to_string()).collect();
    match fitting.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => fitting.concat(),
    }
}
