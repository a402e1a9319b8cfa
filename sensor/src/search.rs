//! What is searched, and in which forms: the scopes and views of which hits are reported.
//!
//! The raw search of single events always runs, since everything else builds on it. What is left out here is not
//! looked for (blocks, views) or not reported (single events, the raw view).

use etwsieve_matcher::Views;
use serde::{Deserialize, Serialize};

/// A scope to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScopeChoice {
    /// Single events.
    Event,
    /// Script blocks joined from their fragments.
    Block,
}

/// A view to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ViewChoice {
    /// The text as recorded.
    Raw,
    /// With PowerShell's own equivalences folded.
    Normalized,
    /// By cmdlet and parameter.
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

/// The chosen scopes and views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// Hits of single events.
    pub event: bool,
    /// Hits of joined blocks.
    pub block: bool,
    /// Hits in the text as recorded.
    pub raw: bool,
    /// Hits in other views.
    pub views: Views,
}

impl Default for Search {
    fn default() -> Self {
        Self::of(&ScopeChoice::ALL, &ViewChoice::ALL)
    }
}

impl Search {
    /// Single events in the text as recorded, and nothing else.
    pub const PLAIN: Self = Self { event: true, block: false, raw: true, views: Views::NONE };

    /// The scopes and views of two lists.
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
