//! Generated gRPC code for the native API.
