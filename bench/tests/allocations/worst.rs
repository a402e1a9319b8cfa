//! No script of any size costs more than 50 times an ordinary one, counted in steps.

use etwsieve_bench::worst::{KINDS, ORDINARY_UNITS, RATIO_MAX, SIZES, cost, ordinary};
use etwsieve_matcher::{Matcher, Scratch, ViewBudget, builtin};

#[test]
fn the_worst_scripts_cost_at_most_fifty_ordinary_ones() {
    let matcher = Matcher::new(builtin::rules());
    let mut scratch = Scratch::default();
    let plain = cost(&matcher, &ordinary(ORDINARY_UNITS), &mut scratch);
    assert!(!plain.is_cut && plain.steps > 0, "the views of an ordinary script are not cut short: {plain:?}");
    for kind in KINDS {
        for units in SIZES {
            let cost = cost(&matcher, &kind.script(units), &mut scratch);
            let name = kind.name;
            let ratio = cost.steps as f64 / plain.steps as f64;
            assert!(ratio <= RATIO_MAX, "{name}: {ratio:.1} times an ordinary script: {cost:?}");
            assert!(cost.steps <= ViewBudget::steps_max(), "{name}: {cost:?}");
        }
    }
}

/// The views of ordinary scripts are never cut short, even if the scripts fill several events.
#[test]
fn ordinary_scripts_are_not_cut() {
    let matcher = Matcher::new(builtin::rules());
    let mut scratch = Scratch::default();
    for units in [1_000, ORDINARY_UNITS, 65_000] {
        let cost = cost(&matcher, &ordinary(units), &mut scratch);
        assert!(!cost.is_cut, "{cost:?}");
    }
}
