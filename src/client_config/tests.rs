use super::*;
use crate::config::Flags;
