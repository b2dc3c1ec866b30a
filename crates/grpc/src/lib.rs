//! The native API's tonic services.
