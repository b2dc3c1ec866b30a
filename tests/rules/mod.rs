//! Rules about the repository itself, held against its files.
