//! The scopes and views whose hits are reported.
//!
//! The raw text of single events is always searched, because everything else depends on it. If it is deselected, its
//! hits are not reported. Blocks and other views that are deselected are not searched.

use etwsieve_matcher::Views;
use serde::{Deserialize, Serialize};

/// The unit that rules are matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScopeChoice {
    /// Single events.
    Event,
    /// Script blocks joined from their fragments.
    Block,
}

/// Form of the text that is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ViewChoice {
    /// The text as recorded.
    Raw,
    /// The text with obfuscation removed, as PowerShell interprets it.
    Normalized,
    /// The calls of cmdlets with their parameters.
    Call,
}

impl ScopeChoice {
    /// All scopes.
    pub const ALL: [Self; 2] = [Self::Event, Self::Block];
}

impl ViewChoice {
    /// All views.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Normalized, Self::Call];
}

/// The selected scopes and views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// Report hits of single events.
    pub event: bool,
    /// Report hits of joined blocks.
    pub block: bool,
    /// Report hits in the raw text.
    pub raw: bool,
    /// Report hits in these other views.
    pub views: Views,
}

impl Default for Search {
    fn default() -> Self {
        Self::of(&ScopeChoice::ALL, &ViewChoice::ALL)
    }
}

impl Search {
    /// The raw text of single events only.
    pub const PLAIN: Self = Self { event: true, block: false, raw: true, views: Views::NONE };

    /// Creates the selection of these scopes and views.
    pub fn of(scopes: &[ScopeChoice], views: &[ViewChoice]) -> Self {
        Self {
            event: scopes.contains(&ScopeChoice::Event),
            block: scopes.contains(&ScopeChoice::Block),
            raw: views.contains(&ViewChoice::Raw),
            views: Views {
                normalized: views.contains(&ViewChoice::Normalized),
                call: views.contains(&ViewChoice::Call),
            },
        }
    }
}
