//! Arbitrary bytes as an event of the antimalware scanner: decoding succeeds or fails, and re-encoding gives the same bytes.

use super::work;
use etwsieve::amsi::{decode, is_from_other_program, result_and_app_name};
use etwsieve_matcher::{EventKind, Field, Fields, Matcher, Payload, Scratch, ViewBudget, Views, builtin};
use std::cell::RefCell;

thread_local! {
    static MATCHER: RefCell<(Matcher, Scratch)> =
        RefCell::new((Matcher::new(builtin::rules()), Scratch::default()));
}

/// Runs the target.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn amsi(data: &[u8]) {
    let foreign = is_from_other_program(data);
    let Ok(scan) = decode(data) else { return };
    let mut laid_out = Vec::new();
    scan.lay_out(&mut laid_out);
    assert!(laid_out.len() <= data.len(), "the form to search is no longer than the event");
    let fields = Fields::split(EventKind::Amsi, &laid_out);
    let whole = |text: &[u8]| text.len() / 2 * 2;
    assert_eq!(fields.text(Field::ScriptBlockText), Some(&scan.content[..whole(scan.content)]));
    assert_eq!(fields.text(Field::Path), Some(scan.content_name));
    assert_eq!(result_and_app_name(&laid_out), Some((scan.result, scan.app_name)));
    search(&laid_out);
    let mut encoded = Vec::new();
    scan.encode(&mut encoded);
    assert!(encoded.len() <= scan.encoded_len_max());
    // Events of other applications have the layout of a 64-bit process, which the encoder also writes.
    assert_eq!(decode(&encoded), Ok(scan), "what was decoded is encoded again");
    assert_eq!(is_from_other_program(&encoded), foreign);
}

/// Searches the content as a script, at a cost that is bounded by its length.
fn search(bytes: &[u8]) {
    MATCHER.with_borrow_mut(|(matcher, scratch)| {
        let payload = Payload { kind: EventKind::Amsi, process_id: None, bytes };
        let before = scratch.counts().steps;
        let raw = matcher.find(&payload, scratch).to_vec();
        work::assert_raw_bounded(scratch.counts().steps - before, bytes.len());
        let mut budget = ViewBudget::new(bytes.len());
        let _ = matcher.find_views(&payload, Views::ALL, &raw, scratch, &mut budget);
        work::assert_bounded(&budget, bytes.len());
    });
}
