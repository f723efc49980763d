//! Protobuf read where it stands: no copy, no allocation, so that what a peer sends costs no more
//! memory than its bytes.

use p2p_core::SecurityError;

/// The greatest field number that protobuf allows.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// The fields of a message whose values are bytes, strings or messages, in order; all others are
/// skipped. Nothing follows an error.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<Option<(u64, &'a [u8])>, &'static str> {
        while !self.rest.is_empty() {
            let key = self.varint()?;
            let number = key >> 3;
            if number == 0 || number > NUMBER_MAX {
                return Err("a field has a number that cannot be");
            }
            match key & 7 {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => {
                    let len = self.varint()?;
                    return Ok(Some((number, self.take(len)?)));
                }
                5 => drop(self.take(4)?),
                _ => return Err("a field is a group or of a type that cannot be"),
            }
        }
        Ok(None)
    }

    /// Unlike those of multiformats, these may be longer than they need to be.
    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or("it ends inside a varint")?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a varint is longer than 10 bytes")
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        let len = usize::try_from(len).ok();
        let (value, rest) = len
            .and_then(|len| self.rest.split_at_checked(len))
            .ok_or("a field is longer than its message")?;
        self.rest = rest;
        Ok(value)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), SecurityError>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.field().inspect_err(|_| self.rest = &[]);
        field.map_err(|what| SecurityError::Malformed(what.into())).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &[u8]) -> Result<Vec<(u64, &[u8])>, SecurityError> {
        Fields::of(message).collect()
    }

    #[test]
    fn noise_27_fields_of_other_types_are_skipped() {
        let message = [
            &[0x08, 0x96, 1][..],                                    // 1: a varint
            &[0x11, 1, 2, 3, 4, 5, 6, 7, 8],                         // 2: 8 bytes
            &[0x12, 2, b'h', b'i'],                                  // 2: bytes
            &[0x1d, 1, 2, 3, 4],                                     // 3: 4 bytes
            &[0xfa, 0xff, 0xff, 0xff, 0x0f, 1, b'x'],                // the greatest number
            &[0x0a, 0x80, 0], // 1: no bytes, a length in excess
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], // 1: -1
        ]
        .concat();
        let fields: [(u64, &[u8]); 3] = [(2, b"hi"), (NUMBER_MAX, b"x"), (1, b"")];
        assert_eq!(read(&message), Ok(fields.to_vec()));
    }

    #[test]
    fn noise_07_what_is_no_message_is_an_error_and_the_end() {
        let malformed: [&[u8]; 12] = [
            &[0x80],                                                      // ends in a key
            &[0x0a],                                                      // before a length
            &[0x0a, 1],                                                   // before a value
            &[0x0a, 0x80],                                                // inside a length
            &[0x08],                                                      // before a varint
            &[0x11, 1, 2, 3, 4, 5, 6, 7],                                 // inside 8 bytes
            &[0x15, 1, 2, 3],                                             // inside 4 bytes
            &[0x0b],                                                      // a group begins
            &[0x0e],                                                      // no such type
            &[0x02, 0],                                                   // number 0
            &[0x82, 0x80, 0x80, 0x80, 0x10, 0],                           // number 2^29
            &[0x08, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1], // 11 bytes
        ];
        for message in malformed {
            let mut fields = Fields::of(message);
            assert!(
                matches!(fields.next(), Some(Err(SecurityError::Malformed(_)))),
                "{message:x?}"
            );
            assert_eq!(fields.next(), None, "{message:x?}");
        }
        let endless = [&[0x0a][..], &[255; 9], &[1]].concat();
        assert!(read(&endless).is_err());
    }
}
