//! What is logged, and how: a filter, or a table with one.

use super::Flags;
use super::mistake::{Mistakes, Place};
use super::setting::{FILE, LOG, LogTable};
use super::table::TextOr;
use crate::logger::{self, Settings};

/// The flag wins over the variable, the variable over the file; both are about the filter alone. A mistake in any of them is
/// one.
pub(super) fn settings(flags: &Flags, file: Option<TextOr<LogTable>>, mistakes: &mut Mistakes) -> Option<Settings> {
    let LogTable { place: _, is_flawed: _, filter, format, sample } = match file {
        Some(TextOr::Table(table)) => table,
        Some(TextOr::Text(filter)) => LogTable { filter: Some(filter), ..LogTable::default() },
        None => LogTable::default(),
    };
    let flag = flags.get(&FILE.log.row);
    let variable = flags.rust_log.clone().map(|text| (Place::new("RUST_LOG"), text));
    let is_given = flag.is_some() || variable.is_some();
    let flag = LOG.filter.parse([flag], mistakes);
    // Beside a flag it filters nothing, so its targets do not matter.
    let parse = if flag.is_some() { logger::parse_levels } else { logger::parse_shared_filter };
    let variable = variable.and_then(|text| mistakes.parse(text, parse));
    let file =
        if is_given { LOG.filter.parse([filter], mistakes) } else { LOG.filter.parse_or_default([filter], mistakes) };
    let filter = flag.or(variable).or(file);
    let format = LOG.format.parse_or_default([format], mistakes);
    let sample = LOG.sample.parse_or_default([sample], mistakes);
    Some(Settings { filter: filter?, format: format?, sample: sample? })
}
