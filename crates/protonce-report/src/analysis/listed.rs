//! Which prototypes are described one by one: of more than a page holds, the largest and their
//! children.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::expectation_step::{ExpectationStep, largest_first};

/// Prototypes of each granularity that are described before their children are.
pub(super) const GALLERY: usize = 120;
/// Children of a prototype, the largest first.
pub(super) const CHILDREN: usize = 8;

/// The prototypes that are described one by one.
pub(super) struct Listed {
    /// For each granularity, the largest first.
    pub(super) ids: Vec<Vec<usize>>,
    /// For each granularity: of every listed prototype, which prototypes of the next granularity
    /// share how many images with it, the most first.
    pub(super) relatives: Vec<HashMap<usize, Vec<(usize, u32)>>>,
}

impl Listed {
    /// The largest of every granularity, then the children of those and theirs, so that a walk
    /// from coarse to fine finds its way.
    pub(super) fn choose(step: &ExpectationStep, members: &[Vec<Vec<u32>>], most: usize) -> Listed {
        let count = members.len();
        let order: Vec<Vec<usize>> = members.iter().map(|members| largest_first(members)).collect();
        let mut listing = Listing {
            step,
            members,
            chosen: vec![HashSet::new(); count],
            relatives: vec![HashMap::new(); count],
            room: most,
        };
        for (m, order) in order.iter().enumerate() {
            order.iter().take(GALLERY).for_each(|&id| listing.add(m, id));
        }
        order[0].iter().for_each(|&id| listing.walk(0, id));
        for (m, order) in order.iter().enumerate().skip(1) {
            order.iter().for_each(|&id| listing.add(m, id));
        }
        let Listing { chosen, relatives, .. } = listing;
        let ids = order
            .into_iter()
            .zip(&chosen)
            .map(|(order, chosen)| order.into_iter().filter(|id| chosen.contains(id)).collect())
            .collect();
        Listed { ids, relatives }
    }
}

/// A choice of prototypes being made.
struct Listing<'a> {
    step: &'a ExpectationStep,
    members: &'a [Vec<Vec<u32>>],
    chosen: Vec<HashSet<usize>>,
    relatives: Vec<HashMap<usize, Vec<(usize, u32)>>>,
    room: usize,
}

impl Listing<'_> {
    fn add(&mut self, m: usize, id: usize) {
        if self.room == 0 || !self.chosen[m].insert(id) {
            return;
        }
        self.room -= 1;
        let Some(next) = self.step.granularities.get(m + 1) else { return };
        let mut shared = BTreeMap::<usize, u32>::new();
        for &image in &self.members[m][id] {
            if let Ok(child) = usize::try_from(next.assignment[image as usize]) {
                *shared.entry(child).or_default() += 1;
            }
        }
        let mut shared: Vec<(usize, u32)> = shared.into_iter().collect();
        shared.sort_by_key(|&(child, images)| (Reverse(images), child));
        self.relatives[m].insert(id, shared);
    }

    /// Adds a prototype, its children and theirs.
    fn walk(&mut self, m: usize, id: usize) {
        self.add(m, id);
        let children: Vec<usize> = match self.relatives[m].get(&id) {
            Some(shared) => shared.iter().take(CHILDREN).map(|&(child, _)| child).collect(),
            None => return,
        };
        children.into_iter().for_each(|child| self.walk(m + 1, child));
    }
}
