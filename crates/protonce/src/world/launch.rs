//! How this process was started: the variables of a launcher in, its place among the processes out.
//!
//! torchrun sets `RANK` and `WORLD_SIZE`, as anyone may by hand; Open MPI's `mpirun` and SLURM's `srun`
//! have variables of their own. They are looked for in this order, and without any the process is alone.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::error::WorldError;

/// The place of this process among those that a launcher has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its number, from 0.
    pub rank: usize,
    /// How many processes there are.
    pub size: usize,
    /// Its number among the processes of its machine.
    pub local_rank: usize,
    /// How many of them are on its machine.
    pub local_size: usize,
    /// The machine of process 0, by name or address.
    pub host: String,
    /// The port there at which all meet.
    pub port: u16,
    /// Whether a launcher's own process serves that port, and not process 0.
    pub served: bool,
    /// Tells this start apart from others that meet at the same place.
    pub session: String,
}

impl Launch {
    /// As the variables of this process tell; none where it is alone.
    ///
    /// # Errors
    /// When some of the variables that belong together are missing or no numbers.
    pub fn of_this_process() -> Result<Option<Launch>, WorldError> {
        Launch::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The same of variables that `get` looks up.
    ///
    /// # Errors
    /// As [`Launch::of_this_process`].
    pub fn from_variables(
        get: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Launch>, WorldError> {
        let launch = if get("RANK").is_some() || get("WORLD_SIZE").is_some() {
            torchrun(get)?
        } else if get("OMPI_COMM_WORLD_SIZE").is_some() {
            open_mpi(get)?
        } else if get("SLURM_STEP_ID").is_some() && get("SLURM_PROCID").is_some() {
            slurm(get)?
        } else {
            return Ok(None);
        };
        if launch.rank >= launch.size || launch.local_rank >= launch.local_size {
            return Err(WorldError::Environment(format!(
                "process {} of {} and {} of {} on this machine is none, for they count from 0",
                launch.rank, launch.size, launch.local_rank, launch.local_size
            )));
        }
        Ok((launch.size > 1).then_some(launch))
    }
}

fn torchrun(get: &dyn Fn(&str) -> Option<String>) -> Result<Launch, WorldError> {
    let (rank, size) = (number(get, "RANK")?, number(get, "WORLD_SIZE")?);
    // By hand: a process per machine, unless it says otherwise.
    let local = |name: &str, usual| match get(name) {
        Some(_) => number(get, name),
        None => Ok(usual),
    };
    // One process needs no place to meet.
    let (host, port) = match size {
        1 => (String::new(), 0),
        _ => (text(get, "MASTER_ADDR")?, number(get, "MASTER_PORT")?),
    };
    Ok(Launch {
        rank,
        size,
        local_rank: local("LOCAL_RANK", 0)?,
        local_size: local("LOCAL_WORLD_SIZE", 1)?,
        host,
        port,
        served: get("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
        session: format!(
            "{}/{}",
            get("TORCHELASTIC_RUN_ID").unwrap_or_default(),
            get("TORCHELASTIC_RESTART_COUNT").unwrap_or_default()
        ),
    })
}

fn open_mpi(get: &dyn Fn(&str) -> Option<String>) -> Result<Launch, WorldError> {
    let size = number(get, "OMPI_COMM_WORLD_SIZE")?;
    let local_size = number(get, "OMPI_COMM_WORLD_LOCAL_SIZE")?;
    let host = match get("MASTER_ADDR") {
        Some(host) => host,
        None if local_size == size => "127.0.0.1".to_owned(),
        None => {
            return Err(WorldError::Environment(
                "mpirun does not tell where process 0 is: add -x MASTER_ADDR=NAME, the name or \
                 address of the first machine"
                    .to_owned(),
            ));
        }
    };
    let job = get("PMIX_NAMESPACE").or_else(|| get("OMPI_MCA_ess_base_jobid")).unwrap_or_default();
    Ok(Launch {
        rank: number(get, "OMPI_COMM_WORLD_RANK")?,
        size,
        local_rank: number(get, "OMPI_COMM_WORLD_LOCAL_RANK")?,
        local_size,
        host,
        port: given_port(get, &job)?,
        served: false,
        session: job,
    })
}

fn slurm(get: &dyn Fn(&str) -> Option<String>) -> Result<Launch, WorldError> {
    let of_step =
        if get("SLURM_STEP_NUM_TASKS").is_some() { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" };
    let size = number(get, of_step)?;
    let node = match get("SLURM_NODEID") {
        Some(_) => number(get, "SLURM_NODEID")?,
        None => 0,
    };
    let tasks = get("SLURM_STEP_TASKS_PER_NODE").or_else(|| get("SLURM_TASKS_PER_NODE"));
    let local_size = match tasks {
        Some(tasks) => tasks_of_node(&tasks, node).ok_or_else(|| {
            WorldError::Environment(format!("SLURM_STEP_TASKS_PER_NODE is \"{tasks}\""))
        })?,
        None => size,
    };
    let host = match get("MASTER_ADDR") {
        Some(host) => host,
        None => first_host(&text(get, "SLURM_STEP_NODELIST")?),
    };
    let job = format!("{}.{}", text(get, "SLURM_JOB_ID")?, text(get, "SLURM_STEP_ID")?);
    Ok(Launch {
        rank: number(get, "SLURM_PROCID")?,
        size,
        local_rank: number(get, "SLURM_LOCALID")?,
        local_size,
        host,
        port: given_port(get, &job)?,
        served: false,
        session: job,
    })
}

/// `MASTER_PORT`, or else one that follows from the job, so that two jobs seldom share it.
fn given_port(get: &dyn Fn(&str) -> Option<String>, job: &str) -> Result<u16, WorldError> {
    if get("MASTER_PORT").is_some() {
        return number(get, "MASTER_PORT");
    }
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    // Below the ports that systems give to outgoing connections.
    Ok(15_000 + (hasher.finish() % 15_000) as u16)
}

/// The tasks of node number `node` in SLURM's short form: `2(x3),1` is 2, 2, 2 and 1.
fn tasks_of_node(tasks: &str, node: usize) -> Option<usize> {
    let mut after = 0;
    for group in tasks.split(',') {
        let (count, nodes) = match group.split_once("(x") {
            Some((count, nodes)) => (count, nodes.strip_suffix(')')?.parse().ok()?),
            None => (group, 1),
        };
        after += nodes;
        if node < after {
            return count.parse().ok();
        }
    }
    None
}

/// The first host of SLURM's short form: `node[003-007,9],other` begins with `node003`.
fn first_host(nodes: &str) -> String {
    let end = nodes.find([',', '[']).unwrap_or(nodes.len());
    let (name, rest) = nodes.split_at(end);
    let Some(numbers) = rest.strip_prefix('[') else { return name.to_owned() };
    let end = numbers.find(['-', ',', ']']).unwrap_or(numbers.len());
    // What follows the numbers belongs to the name too.
    let after = numbers.split_once(']').map_or("", |(_, after)| after);
    let after = after.split(',').next().unwrap_or("");
    format!("{name}{}{after}", &numbers[..end])
}

fn text(get: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<String, WorldError> {
    get(name).ok_or_else(|| {
        WorldError::Environment(format!("{name} is not set, though others of its group are"))
    })
}

fn number<T: std::str::FromStr>(
    get: &dyn Fn(&str) -> Option<String>,
    name: &str,
) -> Result<T, WorldError> {
    let value = text(get, name)?;
    value.trim().parse().map_err(|_| {
        WorldError::Environment(format!("{name} is \"{value}\", which is no number that fits"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Option<Launch>, WorldError> {
        Launch::from_variables(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn launchers_say_where_a_process_stands() {
        assert_eq!(launch(&[("HOME", "/root"), ("SLURM_JOB_ID", "7")]).unwrap(), None);
        let torchrun = [
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "first"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("TORCHELASTIC_RUN_ID", "none"),
        ];
        let found = launch(&torchrun).unwrap().unwrap();
        assert_eq!((found.rank, found.size, found.local_rank, found.local_size), (3, 4, 1, 2));
        assert_eq!((&*found.host, found.port, found.served), ("first", 29_500, true));
        assert_eq!(found.session, "none/2");
        // One process is alone, whoever started it.
        assert_eq!(launch(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);

        let mpi = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("PMIX_NAMESPACE", "prterun-7@1"),
        ];
        let found = launch(&mpi).unwrap().unwrap();
        assert_eq!((&*found.host, found.rank, found.served), ("127.0.0.1", 1, false));
        assert!((15_000..30_000).contains(&found.port));

        let slurm = [
            ("SLURM_JOB_ID", "77"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "6"),
            ("SLURM_STEP_NUM_TASKS", "7"),
            ("SLURM_LOCALID", "0"),
            ("SLURM_NODEID", "3"),
            ("SLURM_STEP_TASKS_PER_NODE", "2(x3),1"),
            ("SLURM_STEP_NODELIST", "gpu[003-005,9]-ib,other"),
        ];
        let found = launch(&slurm).unwrap().unwrap();
        assert_eq!((found.rank, found.size, found.local_size), (6, 7, 1));
        assert_eq!(found.host, "gpu003-ib");
    }

    #[test]
    fn half_of_what_a_launcher_says_is_an_error() {
        for (variables, sentence) in [
            (&[("RANK", "0")][..], "WORLD_SIZE is not set"),
            (&[("RANK", "0"), ("WORLD_SIZE", "2")], "MASTER_ADDR is not set"),
            (&[("RANK", "0"), ("WORLD_SIZE", "two")], "WORLD_SIZE is \"two\""),
            (&[("RANK", "1"), ("WORLD_SIZE", "1")], "count from 0"),
            (
                &[
                    ("OMPI_COMM_WORLD_RANK", "1"),
                    ("OMPI_COMM_WORLD_SIZE", "2"),
                    ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
                    ("OMPI_COMM_WORLD_LOCAL_SIZE", "1"),
                ],
                "-x MASTER_ADDR",
            ),
        ] {
            let error = launch(variables).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        }
    }

    #[test]
    fn the_first_host_is_the_first_of_the_list() {
        for (nodes, first) in [
            ("a", "a"),
            ("a,b", "a"),
            ("n[1-3]", "n1"),
            ("n[09,11],m", "n09"),
            ("n-1,m[1-2]", "n-1"),
        ] {
            assert_eq!(first_host(nodes), first);
        }
        assert_eq!(
            (0..5).map(|n| tasks_of_node("2(x3),1", n)).collect::<Vec<_>>(),
            [Some(2), Some(2), Some(2), Some(1), None]
        );
    }
}
