use bytes::{Buf, BufMut, BytesMut};
use p2p_core::{Open, Opened, Seal, SecurityError};

/// The channel of a pipe that is used as it is.
pub(crate) struct Clear;

impl Seal for Clear {
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError> {
        out.put(plain);
        Ok(())
    }
}

impl Open for Clear {
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        if wire.is_empty() {
            return Ok(Opened::Incomplete(1));
        }
        Ok(Opened::Record(wire.split().freeze()))
    }
}
