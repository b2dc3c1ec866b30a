//! Consumer groups, in the internal topic `__consumer_offsets`.

mod codec;
