//! One command in several processes, as a launcher such as torchrun, mpirun or srun starts them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use protonce::world::{Backend, Launch, World};
use tch::Cuda;

use crate::plan::Budget;
use crate::threads::share_cores;
use protonce_cli::sentence;

/// How processes work together.
#[derive(Args)]
#[command(next_help_heading = "Several processes")]
pub struct ProcessFlags {
    /// By what the processes that torchrun, mpirun or srun started sum up gradients: `gloo` through the
    /// processor's memory, with the same result for any number of processes; `nccl` from GPU to GPU;
    /// `auto` is `nccl` on NVIDIA GPUs.
    #[arg(long, value_enum, value_name = "NAME", default_value = "auto")]
    dist_backend: Named,

    /// How long a process waits for another before it gives up; to begin with, five minutes at most.
    #[arg(long, value_name = "TIME", default_value = "30m")]
    dist_timeout: Budget,
}

/// A [`Backend`] by its name.
#[derive(Clone, Copy, ValueEnum)]
enum Named {
    Auto,
    Gloo,
    Nccl,
}

/// This process and those that were started with it.
pub struct Processes {
    pub world: World,
    launch: Option<Launch>,
    backend: Backend,
}

impl ProcessFlags {
    /// Joins the processes that a launcher started with this one, if one did, and takes this one's share of
    /// the machine.
    pub fn join(&self) -> anyhow::Result<Processes> {
        let backend = match self.dist_backend {
            Named::Auto => Backend::Auto,
            Named::Gloo => Backend::Gloo,
            Named::Nccl => Backend::Nccl,
        };
        let Budget(timeout) = self.dist_timeout;
        let launch = Launch::of_this_process()?;
        let world = match &launch {
            None => World::alone(),
            Some(launch) => {
                share_cores(launch.local_size)?;
                World::join(launch, timeout.max(Duration::from_secs(1)))?
            }
        };
        Ok(Processes { world, launch, backend })
    }
}

impl Processes {
    /// Does `work`; where it ends with an error, the other processes hear of it.
    pub fn together(
        mut self,
        work: impl FnOnce(&mut Processes) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let ended = work(&mut self);
        if let Err(error) = &ended {
            self.world.leave_with_error(&sentence(error));
        }
        ended
    }

    /// The device that `name` stands for in this process: of several GPUs, each process of a machine has
    /// another one.
    pub fn device(&self, name: &str) -> anyhow::Result<tch::Device> {
        let gpus = Cuda::device_count().max(0) as usize;
        let own = match &self.launch {
            Some(launch) if matches!(name, "auto" | "cuda") && gpus > 1 => {
                format!("cuda:{}", launch.local_rank)
            }
            _ => name.to_owned(),
        };
        Ok(protonce::device::device(&own)?)
    }

    /// Has gradients on `device` summed up as was asked for.
    pub fn sum_on(&mut self, device: tch::Device) -> anyhow::Result<()> {
        self.world.sum_by(self.backend, device)?;
        let backend = self.world.backend().to_owned();
        Ok(self.world.agree(&[("backend that sums up gradients", backend)])?)
    }
}
