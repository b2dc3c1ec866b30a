//! What every front door has to keep, tried on a running broker. Each door has a file that says how
//! it is reached; what is checked is the same.

mod native;
