use std::collections::VecDeque;

/// A queue that is one word until something is put in it: most streams never need theirs.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "it is its size where it is empty that counts")]
pub(crate) struct Queue<T>(Option<Box<VecDeque<T>>>);

impl<T> Queue<T> {
    pub(crate) fn push_back(&mut self, entry: T) {
        self.0.get_or_insert_default().push_back(entry);
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.front_mut()
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        self.0.as_mut()?.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|entries| entries.is_empty())
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |entries| entries.capacity())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|entries| entries.iter())
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = T> {
        self.0.into_iter().flat_map(|entries| entries.into_iter())
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(None)
    }
}

#[cfg(test)]
impl<T> Queue<T> {
    /// The memory that it holds, in bytes.
    pub(crate) fn held(&self) -> usize {
        let of = |entries: &VecDeque<T>| size_of_val(entries) + entries.capacity() * size_of::<T>();
        self.0.as_deref().map_or(0, of)
    }
}
