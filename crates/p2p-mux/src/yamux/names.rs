//! The protocols of the streams of one connection: many streams, and few protocols.

use p2p_core::ProtocolId;

/// Each with the number of streams that are of it; a place whose number is 0 is free.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(ProtocolId, usize)>);

/// The place of a stream's protocol in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name(u16);

impl Names {
    /// Counts one more stream of `protocol`. `None` where streams are of more protocols than have
    /// places.
    pub(super) fn add(&mut self, protocol: &ProtocolId) -> Option<Name> {
        let same = self.0.iter().position(|(known, _)| known == protocol);
        let place = same.or_else(|| self.0.iter().position(|(_, count)| *count == 0));
        let name = u16::try_from(place.unwrap_or(self.0.len())).ok()?;
        match place.and_then(|place| self.0.get_mut(place)) {
            Some((known, count)) => {
                if *count == 0 {
                    known.clone_from(protocol);
                }
                *count += 1;
            }
            None => self.0.push((protocol.clone(), 1)),
        }
        Some(Name(name))
    }

    /// Counts one less.
    pub(super) fn remove(&mut self, name: Option<Name>) {
        if let Some((_, count)) = name.and_then(|Name(place)| self.0.get_mut(usize::from(place))) {
            *count -= 1;
        }
    }

    pub(super) fn get(&self, name: Option<Name>) -> Option<&ProtocolId> {
        name.and_then(|Name(place)| self.0.get(usize::from(place))).map(|(known, _)| known)
    }

    /// Gives back what no stream refers to.
    pub(super) fn shrink_to_fit(&mut self) {
        while self.0.pop_if(|(_, count)| *count == 0).is_some() {}
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(number: usize) -> ProtocolId {
        ProtocolId::new(&format!("/test/{number}")).unwrap()
    }

    #[test]
    fn a_protocol_has_a_place_while_streams_are_of_it() {
        let mut names = Names::default();
        let [first, again, other] = [1, 1, 2].map(|number| names.add(&protocol(number)));
        assert_eq!((first, names.get(first)), (again, Some(&protocol(1))));
        assert_eq!(names.get(other), Some(&protocol(2)));
        names.remove(first);
        assert_eq!(names.get(again), Some(&protocol(1)), "one is left");
        names.remove(again);
        let third = names.add(&protocol(3));
        assert_eq!((third, names.get(third)), (first, Some(&protocol(3))), "it was free");
        names.remove(third);
        names.remove(other);
        names.shrink_to_fit();
        assert_eq!(names.0.capacity(), 0);
    }

    #[test]
    fn more_protocols_than_places_are_none() {
        let mut names = Names(vec![(protocol(0), 1); usize::from(u16::MAX) + 1]);
        assert_eq!(names.add(&protocol(1)), None);
        assert_eq!(names.get(None), None);
        names.remove(None);
    }
}
