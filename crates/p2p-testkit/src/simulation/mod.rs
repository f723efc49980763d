//! The scenario that this project runs on its simulated network.
