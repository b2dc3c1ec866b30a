//! The protocol-free core: catalog, partitions, produce, fetch.
