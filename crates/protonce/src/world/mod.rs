//! The processes that train together.
//!
//! Everything that crosses from one process to another goes through a [`World`]. Each process has one, and
//! all call the same operations in the same order, with what they have agreed on: a process that decides
//! by what it alone knows leaves the others waiting. A process that is alone hands back what it was given.
//!
//! Bytes travel through the processor's memory, by gloo. Nothing depends on which of two messages comes
//! first, so that any number of processes comes to the same bits; the exception is [`World::sum`] by NCCL
//! on GPUs. A launcher such as torchrun starts the processes: see [`Launch`].

mod c10d;
mod error;
mod join;
mod launch;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use protonce_kmeans::{Collective, CollectiveError};
use protonce_run::Dtype;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};

use crate::tensors;
use c10d::{Group, Received, Sent};
pub use error::WorldError;
pub use launch::Launch;

/// A group of processes, of which this one is number `rank` of `size`.
#[derive(Clone)]
pub struct World {
    rank: usize,
    size: usize,
    others: Option<Arc<Others>>,
}

/// What connects this process to the others.
struct Others {
    group: Group,
    timeout: Duration,
    /// Whether this process holds the store.
    serves: bool,
    /// Whether sums are computed on GPUs.
    on_gpu: bool,
    /// Whether another process ended or does not answer.
    lost: AtomicBool,
    /// Time spent on messages.
    nanoseconds: AtomicU64,
}

/// By what gradients are summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// NCCL on CUDA, if it is there, and gloo elsewhere.
    #[default]
    Auto,
    /// gloo, through the processor's memory: the same bits for any number of processes.
    Gloo,
    /// NCCL, from GPU to GPU.
    Nccl,
}

/// How long a process that ends with an error waits for the others to hear of it.
const FAREWELL: Duration = Duration::from_secs(3);

/// Under which a process that ends with an error leaves why.
const FAILURE: &str = "failure";

/// What it leaves there.
fn farewell(rank: usize, sentence: &str) -> String {
    format!("process {rank} has ended: {sentence}")
}

/// Under which a process leaves that it knows of the failure.
fn heard(rank: usize) -> String {
    format!("heard/{rank}")
}

impl World {
    /// The world of a single process.
    pub fn alone() -> World {
        World { rank: 0, size: 1, others: None }
    }

    /// Joins the other processes that were started with this one. An operation waits for others `timeout`
    /// at most, and joining no longer than five minutes.
    ///
    /// # Errors
    /// When they cannot be reached or do not come.
    pub fn join(launch: &Launch, timeout: Duration) -> Result<World, WorldError> {
        let group = join::join(launch, timeout)?;
        let serves = launch.rank == 0 && !launch.served;
        let others = Others {
            group,
            timeout,
            serves,
            on_gpu: false,
            lost: AtomicBool::new(false),
            nanoseconds: AtomicU64::new(0),
        };
        Ok(World { rank: launch.rank, size: launch.size, others: Some(Arc::new(others)) })
    }

    /// Has gradients on `device` summed up by `backend`, which must be called before this world is cloned.
    ///
    /// # Errors
    /// When that is NCCL and is not there.
    pub fn sum_by(&mut self, backend: Backend, device: Device) -> Result<(), WorldError> {
        let Some(others) = self.others.as_mut().and_then(Arc::get_mut) else { return Ok(()) };
        let connected = match (backend, device) {
            (Backend::Gloo, _) | (Backend::Auto, Device::Cpu | Device::Mps | Device::Vulkan) => {
                return Ok(());
            }
            (_, Device::Cuda(number)) => others.group.connect_gpu(number, others.timeout),
            (Backend::Nccl, _) => Err("NCCL computes on NVIDIA GPUs only".to_owned()),
        };
        match connected {
            Ok(()) => others.on_gpu = true,
            // Every process was built in the same way, or the fingerprint says so.
            Err(_) if backend == Backend::Auto => {}
            Err(reason) => {
                return Err(WorldError::Connect { address: "its GPU".to_owned(), reason });
            }
        }
        Ok(())
    }

    /// This process's number, from 0 to `size() - 1`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes train together.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is the process that writes and shows what happens.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// By what gradients are summed up: `gloo` or `nccl`, and nothing where the process is alone.
    pub fn backend(&self) -> &'static str {
        match &self.others {
            None => "",
            Some(others) if others.on_gpu => "nccl",
            Some(_) => "gloo",
        }
    }

    /// Time that this process has spent on messages to and from others, waiting for them included; none
    /// where it is alone.
    pub fn communicated(&self) -> Option<Duration> {
        let others = self.others.as_ref()?;
        Some(Duration::from_nanos(others.nanoseconds.load(Ordering::Relaxed)))
    }

    /// Makes sure that so many `groups` of batch norm can be dealt evenly.
    ///
    /// # Errors
    /// [`WorldError::Groups`] when they cannot.
    pub fn check_groups(&self, groups: i64) -> Result<(), WorldError> {
        match groups % self.size as i64 {
            0 => Ok(()),
            _ => Err(WorldError::Groups { groups, processes: self.size }),
        }
    }

    /// Makes sure that every process has the same of each thing that `own` names. To be called before
    /// anything is exchanged: messages of unexpected lengths end a process without a word.
    ///
    /// # Errors
    /// [`WorldError::Differs`] where this process has something else than process 0.
    pub fn agree(&self, own: &[(&str, String)]) -> Result<(), WorldError> {
        let Some(others) = &self.others else { return Ok(()) };
        let set = |key: &str, value: &str| {
            let stored = others.group.set(key, value.as_bytes());
            stored.map_err(|reason| self.explain(reason))
        };
        for (what, own) in own {
            let key = format!("what process 0 has/{what}");
            if self.is_first() {
                set(&key, own)?;
            }
            let first = self.read(&key)?;
            if first != own.as_bytes() {
                return Err(WorldError::Differs {
                    what: (*what).to_owned(),
                    rank: self.rank,
                    own: own.clone(),
                    first: String::from_utf8_lossy(&first).into_owned(),
                });
            }
        }
        // Nobody goes on before all have agreed.
        let all: Vec<&str> = own.iter().map(|(what, _)| *what).collect();
        let agreed = |rank: usize| format!("{} of {rank}", all.join(", "));
        set(&agreed(self.rank), "")?;
        (0..self.size).try_for_each(|rank| self.read(&agreed(rank)).map(drop))
    }

    /// What process 0 says under `key`: `own` there, its words elsewhere. Takes as long as process 0 needs.
    ///
    /// # Errors
    /// Those of `own`; or when process 0 is gone.
    pub fn first_says<T: Serialize + DeserializeOwned, E: From<WorldError>>(
        &self,
        key: &str,
        own: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(others) = &self.others else { return own() };
        let garbled = |_| WorldError::Garbled(0);
        if self.is_first() {
            let value = own()?;
            let text = serde_json::to_vec(&value).map_err(garbled)?;
            others.group.set(key, &text).map_err(|reason| self.explain(reason))?;
            return Ok(value);
        }
        Ok(serde_json::from_slice(&self.read(key)?).map_err(garbled)?)
    }

    /// The value of `key` in the store, once it is there.
    fn read(&self, key: &str) -> Result<Vec<u8>, WorldError> {
        let Some(others) = &self.others else { return Ok(Vec::new()) };
        let deadline = Instant::now() + others.timeout;
        let check = |key: &str| others.group.check(key).map_err(|reason| self.explain(reason));
        while !check(key)? {
            if check(FAILURE)? {
                return Err(self.explain(String::new()));
            }
            if Instant::now() >= deadline {
                return Err(self.explain("timed out".to_owned()));
            }
            sleep(join::LOOK);
        }
        others.group.get(key, FAREWELL).map_err(|reason| self.explain(reason))
    }

    /// Tells the others that this process ends with an error, which is `sentence`, and gives them time to
    /// hear it, unless it is that it has lost them. Of no effect on a process that is alone.
    pub fn leave_with_error(&self, sentence: &str) {
        let Some(others) = &self.others else { return };
        let group = &others.group;
        if !others.lost.load(Ordering::Relaxed) {
            if matches!(group.check(FAILURE), Ok(false)) {
                // Without it they still notice, though not why.
                let _ = group.set(FAILURE, farewell(self.rank, sentence).as_bytes());
            }
            let _ = group.set(&heard(self.rank), b"");
        }
        group.leave();
        // The store ends with this process, and with it what others may still want to read there.
        if others.serves && matches!(group.check(FAILURE), Ok(true)) {
            let start = Instant::now();
            let has_heard = |rank| matches!(group.check(&heard(rank)), Ok(true));
            while start.elapsed() < FAREWELL && !(0..self.size).all(has_heard) {
                sleep(join::LOOK);
            }
        }
    }

    /// What a failure of libtorch means: where another process has left why it ended, that.
    fn explain(&self, reason: String) -> WorldError {
        let Some(others) = &self.others else { return WorldError::Lost(reason) };
        others.lost.store(true, Ordering::Relaxed);
        // A process that ends closes its connections. One that is silent may be that of the store too.
        if reason.contains("imed out") || reason.contains("imeout") {
            return WorldError::Silent { seconds: others.timeout.as_secs() };
        }
        if let Ok(true) = others.group.check(FAILURE)
            && let Ok(sentence) = others.group.get(FAILURE, FAREWELL)
        {
            let _ = others.group.set(&heard(self.rank), b"");
            return WorldError::Ended(String::from_utf8_lossy(&sentence).into_owned());
        }
        // Before what was the matter, gloo says where in its source it noticed.
        let first = reason.lines().next().unwrap_or_default();
        let matter = first.split_once(".cc:").and_then(|(_, after)| after.split_once("] "));
        WorldError::Lost(matter.map_or(first, |(_, matter)| matter).to_owned())
    }

    /// Sends and receives at once. Both sides must know how long each message is.
    fn exchange(&self, sent: &[Sent], received: &mut [Received]) -> Result<(), WorldError> {
        let Some(others) = &self.others else { return Ok(()) };
        let start = Instant::now();
        let done = others.group.exchange(sent, received);
        let taken = start.elapsed().as_nanos() as u64;
        others.nanoseconds.fetch_add(taken, Ordering::Relaxed);
        done.map_err(|reason| self.explain(reason))
    }

    /// The values of all processes, those of process 0 first. `lengths` is how many each has, which all
    /// know.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn gather_known<T: Pod>(&self, own: &[T], lengths: &[usize]) -> Result<Vec<T>, WorldError> {
        let mut all = vec![T::zeroed(); lengths.iter().sum()];
        let mut rest = &mut all[..];
        let mut received: Vec<Received> = Vec::new();
        for (process, &length) in lengths.iter().enumerate() {
            let (part, after) = rest.split_at_mut(length);
            rest = after;
            match process == self.rank {
                true => part.copy_from_slice(own),
                false => received.push((process, cast_slice_mut(part))),
            }
        }
        let others = (0..self.size).filter(|&process| process != self.rank);
        let sent: Vec<Sent> = others.map(|process| (process, cast_slice(own))).collect();
        self.exchange(&sent, &mut received)?;
        Ok(all)
    }

    /// The values of each process, of which each may have another number.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn gather_values<T: Pod>(&self, own: &[T]) -> Result<Vec<Vec<T>>, WorldError> {
        let lengths = self.gather_known(&[own.len() as u64], &vec![1; self.size])?;
        let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
        let all = self.gather_known(own, &lengths)?;
        let mut rest = &all[..];
        Ok(lengths
            .into_iter()
            .map(|length| {
                let (part, after) = rest.split_at(length);
                rest = after;
                part.to_vec()
            })
            .collect())
    }

    /// What each process has to say.
    ///
    /// # Errors
    /// When a process is gone or cannot be understood.
    pub fn gather_words<T: Serialize + DeserializeOwned>(
        &self,
        own: &T,
    ) -> Result<Vec<T>, WorldError> {
        let text = serde_json::to_vec(own).map_err(|_| WorldError::Garbled(self.rank))?;
        let texts = self.gather_values(&text)?.into_iter().enumerate();
        texts
            .map(|(process, text)| {
                serde_json::from_slice(&text).map_err(|_| WorldError::Garbled(process))
            })
            .collect()
    }

    /// The tensors of process 0 in every process: `own` there.
    ///
    /// # Errors
    /// When process 0 is gone or cannot be understood.
    pub fn tensors_of_first(
        &self,
        own: Option<tensors::NamedTensors>,
    ) -> Result<tensors::NamedTensors, WorldError> {
        let own = own.unwrap_or_default();
        if self.size == 1 {
            return Ok(own);
        }
        let described: Vec<(String, Option<Dtype>, Vec<i64>)> = own
            .iter()
            .map(|(name, tensor)| (name.clone(), tensors::dtype(tensor.kind()), tensor.size()))
            .collect();
        let described = self.gather_words(&described)?.swap_remove(0);
        let mut all = tensors::NamedTensors::new();
        for (number, (name, dtype, shape)) in described.into_iter().enumerate() {
            let garbled = |_| WorldError::Garbled(0);
            let kind = dtype.and_then(tensors::kind).ok_or(WorldError::Garbled(0))?;
            let length = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
            let mut bytes = vec![0; length];
            if self.is_first() {
                bytes = tensors::bytes(&own[number].1).map_err(|_| WorldError::Garbled(0))?;
                let sent: Vec<Sent> = (1..self.size).map(|process| (process, &bytes[..])).collect();
                self.exchange(&sent, &mut [])?;
            } else {
                self.exchange(&[], &mut [(0, &mut bytes)])?;
            }
            let tensor = Tensor::f_from_data_size(&bytes, &shape, kind).map_err(garbled)?;
            all.push((name, tensor));
        }
        Ok(all)
    }

    /// The rows of all processes in process 0, and nothing elsewhere: float32 [rows, width], which lie on the
    /// CPU where they come from several processes. `lengths` is how many rows each has, which all know.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn rows_in_first(
        &self,
        own: &Tensor,
        lengths: &[usize],
    ) -> Result<Option<Tensor>, WorldError> {
        // So many rows at a time that little is held twice.
        const CHUNK: usize = 1 << 16;
        if self.size == 1 {
            return Ok(Some(own.shallow_clone()));
        }
        let mut rows = floats(own)?;
        // Which may be known to some only: those that have rows.
        let widths = self.gather_known(&[own.size()[1] as u64], &vec![1; self.size])?;
        let width = widths.into_iter().max().unwrap_or(0) as usize;
        if !self.is_first() {
            for rows in rows.chunks(CHUNK * width.max(1)) {
                self.exchange(&[(0, cast_slice(rows))], &mut [])?;
            }
            return Ok(None);
        }
        for (process, &length) in lengths.iter().enumerate().skip(1) {
            let start = rows.len();
            rows.resize(start + length * width, 0.0);
            for rows in rows[start..].chunks_mut(CHUNK * width.max(1)) {
                self.exchange(&[], &mut [(process, cast_slice_mut(rows))])?;
            }
        }
        let count = lengths.iter().sum::<usize>();
        Ok(Some(Tensor::from_slice(&rows).view([count as i64, width as i64])))
    }

    /// Rows that each process wants, wherever they are. Of all rows, process p has those numbered `held[p]`
    /// and wants `wanted[p]`, in that order; `rows` are this process's, of `width` values each.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn deal(
        &self,
        rows: &[f32],
        width: usize,
        held: &[Range<usize>],
        wanted: &[Vec<usize>],
    ) -> Result<Vec<f32>, WorldError> {
        let own = &held[self.rank];
        let row = |number: usize| &rows[(number - own.start) * width..][..width];
        let others = || (0..self.size).filter(|&process| process != self.rank);
        let sent: Vec<(usize, Vec<f32>)> = others()
            .map(|process| {
                let here = wanted[process].iter().filter(|number| own.contains(number));
                (process, here.flat_map(|&number| row(number)).copied().collect())
            })
            .collect();
        let mut received: Vec<(usize, Vec<f32>)> = others()
            .map(|process| {
                let there =
                    wanted[self.rank].iter().filter(|number| held[process].contains(number));
                (process, vec![0.0; there.count() * width])
            })
            .collect();
        let sent: Vec<Sent> =
            sent.iter().map(|(process, rows)| (*process, cast_slice(rows))).collect();
        let mut room: Vec<Received> =
            received.iter_mut().map(|(process, rows)| (*process, cast_slice_mut(rows))).collect();
        self.exchange(&sent, &mut room)?;
        let mut taken = vec![0; self.size];
        let mut dealt = Vec::with_capacity(wanted[self.rank].len() * width);
        for &number in &wanted[self.rank] {
            if own.contains(&number) {
                dealt.extend_from_slice(row(number));
                continue;
            }
            for (process, rows) in &received {
                if held[*process].contains(&number) {
                    dealt.extend_from_slice(&rows[taken[*process] * width..][..width]);
                    taken[*process] += 1;
                }
            }
        }
        Ok(dealt)
    }

    /// The sum of the gradients of all groups, in every process: float32 \[parameters\]. `own` are those of
    /// this process's groups, laid out as `like`, and `groups` is how many each process has; they are
    /// numbered from process 0 on.
    ///
    /// The gradient of the last group comes first and the others are added one by one, as autograd adds
    /// those of a batch's groups: a process that has them all comes to the same bits. Every process does so
    /// for one slice of the parameters. By NCCL the order is its own.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn sum(
        &self,
        own: &[Tensor],
        groups: &[usize],
        like: &Tensor,
    ) -> Result<Tensor, WorldError> {
        let _guard = tch::no_grad_guard();
        if let Some(others) = self.others.as_ref().filter(|others| others.on_gpu) {
            let zeros = like.zeros_like();
            let mut sum = own.iter().rev().fold(zeros, |sum, gradient| sum + gradient);
            others.group.sum_on_gpu(&mut sum).map_err(|reason| self.explain(reason))?;
            return Ok(sum);
        }
        let own = own.iter().map(floats).collect::<Result<Vec<_>, _>>()?;
        let count = like.numel();
        let slice = |process: usize| count * process / self.size..count * (process + 1) / self.size;
        let mine = slice(self.rank);
        let others = || (0..self.size).filter(|&process| process != self.rank);

        // Every group's gradient of this process's slice.
        let mut slices = vec![vec![0f32; mine.len()]; groups.iter().sum()];
        let first: usize = groups[..self.rank].iter().sum();
        for (gradient, slice) in own.iter().zip(&mut slices[first..]) {
            slice.copy_from_slice(&gradient[mine.clone()]);
        }
        let sent: Vec<Sent> = others()
            .flat_map(|process| own.iter().map(move |gradient| (process, gradient)))
            .map(|(process, gradient)| (process, cast_slice(&gradient[slice(process)])))
            .collect();
        let owners = (0..self.size).flat_map(|process| vec![process; groups[process]]);
        let mut received: Vec<Received> = owners
            .zip(&mut slices)
            .filter(|(owner, _)| *owner != self.rank)
            .map(|(owner, slice)| (owner, cast_slice_mut(slice)))
            .collect();
        self.exchange(&sent, &mut received)?;

        let mut sum = slices.pop().unwrap_or_else(|| vec![0.0; mine.len()]);
        for group in slices.iter().rev() {
            for (sum, value) in sum.iter_mut().zip(group) {
                *sum += value;
            }
        }
        let lengths: Vec<usize> = (0..self.size).map(|process| slice(process).len()).collect();
        let sum = self.gather_known(&sum, &lengths)?;
        Ok(Tensor::from_slice(&sum).to_device(like.device()))
    }
}

/// The values of a float32 tensor on any device.
///
/// # Errors
/// When they cannot be brought into memory.
pub(crate) fn floats(tensor: &Tensor) -> Result<Vec<f32>, WorldError> {
    tensors::values(&tensor.detach().to_device(Device::Cpu))
        .map_err(|error| WorldError::Memory(error.to_string()))
}

impl Collective for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: &[u32]) -> Result<Vec<Vec<u32>>, CollectiveError> {
        Ok(self.gather_values(own)?)
    }

    fn send(&self, processes: &[usize], values: &[f64]) -> Result<(), CollectiveError> {
        let sent: Vec<Sent> =
            processes.iter().map(|&process| (process, cast_slice(values))).collect();
        Ok(self.exchange(&sent, &mut [])?)
    }

    fn receive(&self, process: usize, values: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(self.exchange(&[], &mut [(process, cast_slice_mut(values))])?)
    }
}
