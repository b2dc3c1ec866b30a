//! The latest offset of each key, in a bounded piece of memory.

use sapwood_model::Offset;
use twox_hash::XxHash3_128;

/// A slot: 128 bits of hash and an offset.
const SLOT_BYTES: usize = 24;
/// At most this part of the slots is taken: with more, looking for a key that is not there takes long.
const LOAD_NUMERATOR: usize = 3;
const LOAD_DENOMINATOR: usize = 4;
/// So many keys are taken whatever the bound is.
const KEYS_MIN: usize = 64;
/// No offset.
const FREE: u64 = u64::MAX;

/// From hashes of keys to offsets: open addressing with linear probing.
///
/// Two keys with the same hash would be taken for one, and the earlier one's record would be lost. The hash
/// is XXH3 (Yann Collet) with 128 bits and a random seed: with 2^32 keys the probability is below 2^-64. Kafka
/// takes the same chance with MD5.
#[derive(Debug)]
pub(crate) struct KeyMap {
    slots: Vec<Slot>,
    taken: usize,
    seed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    offset: u64,
}

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES);

/// There is no room for another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl KeyMap {
    /// For at most `keys` keys, and fewer when they do not fit `bytes_max` bytes of memory.
    pub(crate) fn new(keys: u64, bytes_max: usize, seed: u64) -> Self {
        let slots_max = bytes_max / SLOT_BYTES;
        let keys = usize::try_from(keys).unwrap_or(usize::MAX).max(KEYS_MIN);
        let wanted = keys.saturating_mul(LOAD_DENOMINATOR) / LOAD_NUMERATOR + 1;
        let least = KEYS_MIN * LOAD_DENOMINATOR / LOAD_NUMERATOR + 1;
        let free = Slot {
            hash: [0; 2],
            offset: FREE,
        };
        Self {
            slots: vec![free; wanted.min(slots_max).max(least)],
            taken: 0,
            seed,
        }
    }

    /// Notes that `key` has a record at `offset`, which is above all that were noted before.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let hash = self.hash(key);
        let at = self.find(hash);
        let is_full = self.taken >= self.slots.len() / LOAD_DENOMINATOR * LOAD_NUMERATOR;
        if self.slots[at].offset == FREE {
            if is_full {
                return Err(Full);
            }
            self.taken += 1;
        }
        self.slots[at] = Slot {
            hash,
            offset: offset.0,
        };
        Ok(())
    }

    /// The latest offset that was noted for `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(self.hash(key))];
        (slot.offset != FREE).then_some(Offset(slot.offset))
    }

    /// The memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * SLOT_BYTES
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = XxHash3_128::oneshot_with_seed(self.seed, key);
        [(hash >> 64) as u64, hash as u64]
    }

    /// The slot of this hash, or the free one where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        let length = self.slots.len();
        // The upper half of a product spreads a hash evenly over any number of slots.
        let mut at = ((u128::from(hash[0]) * length as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.offset == FREE || slot.hash == hash {
                return at;
            }
            at += 1;
            if at == length {
                at = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_latest_offset_of_each_key_is_found_again() {
        let mut map = KeyMap::new(5_000, 1 << 20, 9);
        let mut expected = HashMap::new();
        for offset in 0..20_000_u64 {
            let key = (offset * offset % 4_999).to_string();
            map.put(key.as_bytes(), Offset(offset)).unwrap();
            expected.insert(key, offset);
        }
        assert_eq!(map.taken, expected.len());
        for (key, offset) in &expected {
            assert_eq!(map.get(key.as_bytes()), Some(Offset(*offset)));
        }
        assert_eq!(map.get(b"none"), None);
        assert_eq!(map.get(b""), None);
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_keys() {
        let mut map = KeyMap::new(u64::MAX, 64 << 10, 1);
        assert!(map.memory_bytes() <= 64 << 10);
        let room = (0_u64..).find(|key| map.put(&key.to_be_bytes(), Offset(*key)) == Err(Full));
        let room = room.unwrap() as usize;
        assert_eq!(map.taken, room);
        assert!(room > (64 << 10) / SLOT_BYTES / 2, "{room}");
        // A key that is there can still be noted.
        map.put(&1_u64.to_be_bytes(), Offset(1 << 40)).unwrap();
        assert_eq!(map.get(&1_u64.to_be_bytes()), Some(Offset(1 << 40)));
        let few = KeyMap::new(10, 0, 1);
        assert!(few.slots.len() >= KEYS_MIN && few.memory_bytes() < 4096);
    }
}
