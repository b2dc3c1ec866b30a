//! Partition logs: segments, journal, checkpoints, recovery.
