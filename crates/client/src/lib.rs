//! Producer, consumer and admin over the native API.
