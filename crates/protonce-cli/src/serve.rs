//! `protonce serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use protonce_report::{ServeOptions, serve};

use crate::output::print_line;

/// The report of one or more runs, live: points appear as they are logged, prototypes after every
/// expectation step.
#[derive(Args)]
pub struct Arguments {
    /// Run folders, in progress or finished; several are compared side by side.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The runs' images, if they have moved since.
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Port to listen at; 0 takes any free one.
    #[arg(long, default_value_t = 7755)]
    port: u16,
    /// Address to listen at. Only this machine can connect unless another is given: 0.0.0.0 shows
    /// the runs and their images to everybody who can reach this machine.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Images in a run's map, at most: it is laid out anew after every expectation step, beside
    /// training.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    map: usize,
    /// Print one JSON object with the address on stdout.
    #[arg(long)]
    json: bool,
    /// Do not tell the address on stderr.
    #[arg(long, short)]
    quiet: bool,
}

/// Serves the page until it is interrupted.
///
/// # Errors
/// When there is no run, or nothing can listen at the address.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = ServeOptions {
        runs: arguments.runs.clone(),
        data: arguments.data.clone(),
        address: SocketAddr::new(arguments.host, arguments.port),
        map: arguments.map,
    };
    serve(options, |address| {
        let url = format!("http://{address}/");
        if !arguments.quiet {
            say!("serving at {url} until Ctrl-C");
        }
        if arguments.json {
            let address = print_line(serde_json::json!({ "address": url }));
            // The pages are there all the same.
            if let Err(error) = address {
                say!("warning: {error}");
            }
        }
    })?;
    Ok(())
}
