//! Shared data and shared queues: what all VMs of one Envoy process see.

use super::abi::{HostResult, Status};
use std::collections::{BTreeMap, VecDeque};

/// Key-value pairs in name spaces, one for each `vm_id`, with one
/// compare-and-swap counter for the whole process.
#[derive(Debug, Default)]
pub(crate) struct SharedData {
    spaces: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Entry>>,
    last_cas: u32,
    /// Conditional writes that came too late, by the end of the key.
    conflicts: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    cas: u32,
}

impl SharedData {
    /// The value under `key` and the number that a conditional `set` must give.
    pub(crate) fn get(&self, vm_id: &[u8], key: &[u8]) -> HostResult<(Vec<u8>, u32)> {
        let entry = self.spaces.get(vm_id).and_then(|space| space.get(key));
        let entry = entry.ok_or(Status::NotFound)?;
        Ok((entry.value.clone(), entry.cas))
    }

    /// Writes `value`. A `cas` of 0 always writes; so does any `cas` where the
    /// key is missing; otherwise it must be that of the present value.
    pub(crate) fn set(&mut self, vm_id: &[u8], key: &[u8], value: &[u8], cas: u32) -> HostResult {
        let space = self.spaces.entry(vm_id.to_vec()).or_default();
        if let Some(entry) = space.get(key)
            && cas != 0
            && cas != entry.cas
        {
            let key = String::from_utf8_lossy(key);
            let end = key.rsplit('/').next().unwrap_or_default();
            *self.conflicts.entry(end.to_owned()).or_default() += 1;
            return Err(Status::CasMismatch);
        }
        self.last_cas = match self.last_cas.wrapping_add(1) {
            0 => 1,
            next => next,
        };
        let entry = Entry {
            value: value.to_vec(),
            cas: self.last_cas,
        };
        space.insert(key.to_vec(), entry);
        Ok(())
    }

    /// How often a write was refused because another VM had written first, by
    /// the last part of the key.
    pub(crate) fn conflicts(&self) -> &BTreeMap<String, u64> {
        &self.conflicts
    }

    /// The keys of one name space. No VM can ask for them; a test can.
    pub(crate) fn keys(&self, vm_id: &[u8]) -> Vec<Vec<u8>> {
        let space = self.spaces.get(vm_id);
        space
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }
}

/// Named queues. The last root context to register a name is the one to hear
/// of what is put in.
#[derive(Debug, Default)]
pub(crate) struct SharedQueues {
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    vm_id: Vec<u8>,
    name: Vec<u8>,
    consumer: Consumer,
    items: VecDeque<Vec<u8>>,
    /// Items put in since the consumer was last told.
    untold: usize,
}

/// A root context in one VM of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) vm: usize,
    pub(crate) root: u32,
}

impl SharedQueues {
    pub(crate) fn register(&mut self, vm_id: &[u8], name: &[u8], consumer: Consumer) -> u32 {
        if let Some(token) = self.resolve(vm_id, name) {
            if let Ok(queue) = self.queue(token) {
                queue.consumer = consumer;
            }
            return token;
        }
        self.queues.push(Queue {
            vm_id: vm_id.to_vec(),
            name: name.to_vec(),
            consumer,
            items: VecDeque::new(),
            untold: 0,
        });
        self.queues.len() as u32
    }

    pub(crate) fn resolve(&self, vm_id: &[u8], name: &[u8]) -> Option<u32> {
        let is_it = |queue: &Queue| queue.vm_id == vm_id && queue.name == name;
        Some(self.queues.iter().position(is_it)? as u32 + 1)
    }

    pub(crate) fn enqueue(&mut self, token: u32, item: &[u8]) -> HostResult {
        let queue = self.queue(token)?;
        queue.items.push_back(item.to_vec());
        queue.untold += 1;
        Ok(())
    }

    pub(crate) fn dequeue(&mut self, token: u32) -> HostResult<Vec<u8>> {
        self.queue(token)?.items.pop_front().ok_or(Status::Empty)
    }

    /// The roots of VM `vm` that are due an `on_queue_ready`, with the token,
    /// one for each item put in. They count as told from here on.
    pub(crate) fn take_ready(&mut self, vm: usize) -> Vec<(u32, u32)> {
        let mut ready = Vec::new();
        for (token, queue) in (1..).zip(&mut self.queues) {
            if queue.consumer.vm == vm {
                let calls = std::mem::take(&mut queue.untold);
                ready.extend(std::iter::repeat_n((queue.consumer.root, token), calls));
            }
        }
        ready
    }

    fn queue(&mut self, token: u32) -> HostResult<&mut Queue> {
        let index = (token as usize).checked_sub(1).ok_or(Status::NotFound)?;
        self.queues.get_mut(index).ok_or(Status::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &[u8] = b"vm";

    #[test]
    fn a_missing_key_is_not_found_and_its_first_write_ignores_the_cas() {
        let mut data = SharedData::default();
        assert_eq!(data.get(VM, b"key"), Err(Status::NotFound));
        assert_eq!(data.set(VM, b"key", b"value", 999), Ok(()));
        assert_eq!(data.get(VM, b"key"), Ok((b"value".to_vec(), 1)));
    }

    #[test]
    fn a_present_key_takes_its_own_cas_or_zero_and_no_other() {
        let mut data = SharedData::default();
        data.set(VM, b"key", b"first", 0).unwrap();
        assert_eq!(data.set(VM, b"key", b"lost", 7), Err(Status::CasMismatch));
        assert_eq!(data.set(VM, b"key", b"second", 1), Ok(()));
        assert_eq!(data.set(VM, b"key", b"lost", 1), Err(Status::CasMismatch));
        assert_eq!(data.set(VM, b"key", b"third", 0), Ok(()));
        assert_eq!(data.get(VM, b"key"), Ok((b"third".to_vec(), 3)));
    }

    #[test]
    fn the_counter_is_one_for_all_keys_and_name_spaces_but_the_values_are_not() {
        let mut data = SharedData::default();
        data.set(VM, b"a", b"1", 0).unwrap();
        data.set(b"other", b"a", b"2", 0).unwrap();
        data.set(VM, b"b", b"3", 0).unwrap();
        assert_eq!(data.get(VM, b"a"), Ok((b"1".to_vec(), 1)));
        assert_eq!(data.get(b"other", b"a"), Ok((b"2".to_vec(), 2)));
        assert_eq!(data.keys(VM), [b"a".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn the_last_to_register_a_queue_hears_of_its_items() {
        let mut queues = SharedQueues::default();
        let [first, second] = [1, 2].map(|vm| Consumer { vm, root: 5 });
        let token = queues.register(VM, b"wake", first);
        assert_eq!(queues.register(VM, b"wake", second), token);
        assert_eq!(queues.resolve(b"other", b"wake"), None);
        assert_eq!(queues.enqueue(9, b"x"), Err(Status::NotFound));
        queues.enqueue(token, b"x").unwrap();
        assert_eq!(queues.take_ready(1), []);
        assert_eq!(queues.take_ready(2), [(5, token)]);
        assert_eq!(queues.take_ready(2), []);
        assert_eq!(queues.dequeue(token), Ok(b"x".to_vec()));
        assert_eq!(queues.dequeue(token), Err(Status::Empty));
    }
}
