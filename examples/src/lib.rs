//! The guide in `docs/guide`: its code is compiled and run as the documentation tests of this
//! crate. The examples lie beside it, one file each.
