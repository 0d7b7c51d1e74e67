//! Tables whose entries are named by place and generation, so that a late name never means a newer entry.

/// See the module. Names are never used again (before 2^32 uses of one place).
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

const fn name(place: u32, generation: u32) -> u64 {
    (generation as u64) << 32 | place as u64
}

impl<T> Slab<T> {
    /// Adds an entry; its name.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        if let Some(at) = self.free.pop()
            && let Some(place) = self.places.get_mut(at as usize)
        {
            place.value = Some(value);
            return name(at, place.generation);
        }
        self.places.push(Place { generation: 1, value: Some(value) });
        name(self.places.len() as u32 - 1, 1)
    }

    fn place(&self, key: u64) -> Option<&Place<T>> {
        self.places.get(key as u32 as usize).filter(|p| u64::from(p.generation) == key >> 32)
    }

    /// The entry of this name.
    pub(super) fn get(&self, key: u64) -> Option<&T> {
        self.place(key)?.value.as_ref()
    }

    /// The entry of this name.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let place = self.places.get_mut(key as u32 as usize)?;
        if u64::from(place.generation) == key >> 32 { place.value.as_mut() } else { None }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let place = self.places.get_mut(key as u32 as usize)?;
        if u64::from(place.generation) != key >> 32 {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1).max(1);
        self.free.push(key as u32);
        Some(value)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Names and entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(at, p)| p.value.as_ref().map(|v| (name(at as u32, p.generation), v)))
    }

    /// The names of all entries.
    pub(super) fn keys(&self) -> Vec<u64> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_does_not_find_a_newer_entry() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c');
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!((slab.remove(a), slab.len()), (None, 2));
        assert_eq!(slab.keys().len(), 2);
    }
}
