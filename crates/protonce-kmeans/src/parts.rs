//! Which points each process has: all points together are numbered, and every process has a stretch.

use std::ops::Range;

use crate::KMeansError;
use crate::collective::Collective;
use crate::points::Points;

/// How all points are dealt to the processes.
pub struct Parts<'a> {
    collective: &'a dyn Collective,
    /// The first point of each process, and the number of all.
    starts: Vec<usize>,
}

impl<'a> Parts<'a> {
    /// Each process has `own` points.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn of(own: usize, collective: &'a dyn Collective) -> Result<Parts<'a>, KMeansError> {
        let own = own as u64;
        // As two halves: there are more points than one word counts.
        let counts = collective.gather(&[own as u32, (own >> 32) as u32])?;
        let counts = counts.iter().map(|halves| {
            halves.iter().rev().fold(0, |count, &half| count << 32 | u64::from(half)) as usize
        });
        Ok(Parts::with_counts(counts, collective))
    }

    fn with_counts(
        counts: impl Iterator<Item = usize>,
        collective: &'a dyn Collective,
    ) -> Parts<'a> {
        let mut starts = vec![0];
        starts.extend(counts.scan(0, |end, count| {
            *end += count;
            Some(*end)
        }));
        Parts { collective, starts }
    }

    /// `total` points in even stretches.
    fn even(total: usize, collective: &'a dyn Collective) -> Parts<'a> {
        let size = collective.size();
        let bound = |process: usize| total * process / size;
        Parts::with_counts((0..size).map(|n| bound(n + 1) - bound(n)), collective)
    }

    /// The same processes with those of their points of which `chosen` has the numbers, ascending.
    pub fn among(&self, chosen: &[usize]) -> Parts<'a> {
        let before = |start: &usize| chosen.partition_point(|point| point < start);
        Parts { collective: self.collective, starts: self.starts.iter().map(before).collect() }
    }

    /// All points.
    pub fn total(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// The points of this process.
    pub fn own(&self) -> Range<usize> {
        self.of_process(self.collective.rank())
    }

    fn of_process(&self, process: usize) -> Range<usize> {
        self.starts[process]..self.starts[process + 1]
    }

    /// A value for each of all points from one for each of this process's.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn gather(&self, own: &[u32]) -> Result<Vec<u32>, KMeansError> {
        Ok(self.collective.gather(own)?.concat())
    }

    /// The same of numbers.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn gather_f32(&self, own: &[f32]) -> Result<Vec<f32>, KMeansError> {
        let bits: Vec<u32> = own.iter().map(|value| value.to_bits()).collect();
        Ok(self.gather(&bits)?.into_iter().map(f32::from_bits).collect())
    }

    /// The points with the numbers `chosen`, one after the other, wherever they are: [chosen, dim].
    /// `points` are this process's.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn values<P: Points>(&self, points: &P, chosen: &[usize]) -> Result<Vec<f32>, KMeansError> {
        let own = self.own();
        let here = |point: &&usize| own.contains(point);
        let here: Vec<usize> = chosen.iter().filter(here).map(|point| point - own.start).collect();
        let found = points.select(&here);
        let found: Vec<u32> = found.values().iter().map(|value| value.to_bits()).collect();
        let found = self.collective.gather(&found)?;
        let mut rows: Vec<_> =
            found.iter().map(|values| values.chunks_exact(points.dim())).collect();
        let mut values = Vec::with_capacity(chosen.len() * points.dim());
        for &point in chosen {
            let process = self.starts.partition_point(|&start| start <= point) - 1;
            let row = rows[process].next().unwrap_or(&[]);
            values.extend(row.iter().map(|&bits| f32::from_bits(bits)));
        }
        Ok(values)
    }

    /// The points with the numbers `chosen`, in this order and dealt evenly: those that this process gets.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn deal<P: Points>(
        &self,
        points: &P,
        chosen: &[usize],
    ) -> Result<(P, Parts<'a>), KMeansError> {
        if self.collective.size() == 1 {
            return Ok((points.select(chosen), Parts::even(chosen.len(), self.collective)));
        }
        let dealt = Parts::even(chosen.len(), self.collective);
        let mut own = Vec::new();
        // One process after the other, so that no process holds more than its part twice.
        for process in 0..self.collective.size() {
            let values = self.values(points, &chosen[dealt.of_process(process)])?;
            if process == self.collective.rank() {
                own = values;
            }
        }
        Ok((points.like(own), dealt))
    }

    /// The processes.
    pub fn collective(&self) -> &'a dyn Collective {
        self.collective
    }
}
