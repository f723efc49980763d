//! A simulated network: hosts, links and their faults, all from one seed.
