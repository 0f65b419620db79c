//! The product's pure modules, built here by themselves: the fuzzer needs nothing of what Pingora brings.

#[path = "../../../src/oci/challenge.rs"]
pub mod challenge;
#[path = "../../../src/oci/error.rs"]
pub mod error;
#[path = "../../../src/oci/name.rs"]
pub mod name;
#[path = "../../../src/oci/rename.rs"]
pub mod rename;
#[path = "../../../src/oci/request.rs"]
pub mod request;
#[path = "../../../src/oci/rewrite.rs"]
pub mod rewrite;
