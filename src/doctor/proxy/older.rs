//! A process that was started with other variables than its file has by now.

use std::path::Path;

use serde_json::Value;

use super::super::expected::by_hand;
use super::super::finding::{Code, Examined, Finding};
use super::Facts;
use crate::installed::RESTART;
use crate::{control, service_variables};

/// Which variables of this file the process of this `/status` was started with another value of, if it is one of this host.
pub(super) async fn read(file: Option<&Path>, status: Option<&Value>) -> Option<(String, Vec<&'static str>)> {
    let (file, id) = (file?, u32::try_from(status?["process"]["id"].as_u64()?).ok()?);
    let values = service_variables::of_file(file);
    let names = tokio::task::spawn_blocking(move || control::older_variables(id, &values)).await.ok()?;
    (!names.is_empty()).then(|| (file.display().to_string(), names))
}

/// Variables count at a start only: a corrected secret changed nothing, and `check`, which has it, found nothing wrong.
pub(super) fn find(facts: &Facts, found: &mut Examined) {
    let Some((file, names)) = &facts.older else { return };
    found.find(Finding {
        registries: Vec::new(),
        code: Code::NotLoaded,
        file: Some(file.clone()),
        text: service_variables::older(names),
        why: "it keeps that until it is started again: neither a reload nor an upgrade changes a variable".to_owned(),
        fix: by_hand(RESTART),
    });
}
