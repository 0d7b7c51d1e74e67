//! What a verify found, as the daemon says it and `mirrord verify --json` prints it.

use crate::base::{Class, limits};

/// The `schema` of the document.
pub const SCHEMA: &str = "mirrord-verify/1";

/// What a verify found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VerifyResult {
    /// [`SCHEMA`].
    pub schema: String,
    /// The volume.
    pub name: String,
    /// Its size when the verify began.
    pub size: u64,
    /// Bytes of it that were gone through.
    pub done: u64,
    /// Bytes in blocks that differ between legs.
    pub differing: u64,
    /// Bytes of them that `ranges` names: it holds at most [`limits::VERIFY_RANGES`].
    pub listed: u64,
    /// Some leg left before the end, or could not be read everywhere.
    pub partial: bool,
    /// The leg from which the blocks that differ are copied.
    pub repair_from: Option<String>,
    /// The legs that were compared.
    pub legs: Vec<VerifiedLeg>,
    /// Where they differ, by offset.
    pub ranges: Vec<VerifiedRange>,
}

impl Default for VerifyResult {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            name: String::new(),
            size: 0,
            done: 0,
            differing: 0,
            listed: 0,
            partial: false,
            repair_from: None,
            legs: Vec::new(),
            ranges: Vec::new(),
        }
    }
}

/// What was found of one leg.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VerifiedLeg {
    /// Its name.
    pub name: String,
    /// Bytes that were compared.
    pub compared: u64,
    /// Bytes that could not be read.
    pub unread: u64,
    /// Bytes in which more than half of the legs agree, without this one.
    pub outvoted: u64,
    /// It left the set of legs in sync before the end.
    pub left: bool,
    /// Bytes that are copied to it again.
    pub repaired: u64,
}

/// A range in which legs differ; whole blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VerifiedRange {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Legs that hold the same there stand together.
    pub groups: Vec<Vec<String>>,
}

/// How far the running verify has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VerifyStatus {
    /// Bytes that were gone through.
    pub done: u64,
    /// Bytes of the volume.
    pub total: u64,
    /// Bytes in blocks that differ, so far.
    pub differing: u64,
    /// Bytes a second.
    pub rate: u64,
    /// At that rate.
    pub estimated_seconds_to_finish: Option<u64>,
}

impl VerifyResult {
    /// How `mirrord verify` ends. Without a repair, differences come first: they are certain. With one, what
    /// counts is whether everything was compared.
    pub fn class(&self) -> Option<Class> {
        match (self.differing > 0, self.partial) {
            (true, _) if self.repair_from.is_none() => Some(Class::Differs),
            (_, true) => Some(Class::Partial),
            (true, false) => Some(Class::Differs),
            (false, false) => None,
        }
    }

    /// Whether `ranges` does not name all that differ.
    pub const fn is_cut(&self) -> bool {
        debug_assert!(self.ranges.len() <= limits::VERIFY_RANGES, "bounded by the core");
        self.listed < self.differing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_verify_ends() {
        let found = |differing, partial, repair: bool| VerifyResult {
            differing,
            partial,
            repair_from: repair.then(|| "near".to_owned()),
            ..VerifyResult::default()
        };
        for (found, class) in [
            (found(0, false, false), None),
            (found(0, false, true), None),
            (found(5, false, false), Some(Class::Differs)),
            (found(5, true, false), Some(Class::Differs)),
            (found(0, true, false), Some(Class::Partial)),
            (found(0, true, true), Some(Class::Partial)),
            (found(5, false, true), Some(Class::Differs)),
            (found(5, true, true), Some(Class::Partial)),
        ] {
            assert_eq!(found.class(), class, "{found:?}");
        }
    }
}
