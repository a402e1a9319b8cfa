//! Any bytes as an event of the antimalware scanner: decoded or refused, and what is decoded fits where it came from.

use etwsieve::amsi::{decode, is_foreign, kept};
use etwsieve_matcher::{EventKind, Field, Fields};

/// The body of the target.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn amsi(data: &[u8]) {
    let foreign = is_foreign(data);
    let Ok(scan) = decode(data) else { return };
    let mut laid_out = Vec::new();
    scan.lay_out(&mut laid_out);
    assert!(laid_out.len() <= data.len(), "the form to search is no longer than the event");
    let fields = Fields::split(EventKind::Amsi, &laid_out);
    let whole = |text: &[u8]| text.len() / 2 * 2;
    assert_eq!(fields.text(Field::ScriptBlockText), Some(&scan.content[..whole(scan.content)]));
    assert_eq!(fields.text(Field::Path), Some(scan.content_name));
    assert_eq!(kept(&laid_out), Some((scan.result, scan.app_name)));
    let mut encoded = Vec::new();
    scan.encode(&mut encoded);
    assert!(encoded.len() <= scan.encoded_len_max());
    // Others' events have their names at the place of a 64-bit process, where the encoder writes them too.
    assert_eq!(decode(&encoded), Ok(scan), "what was decoded is encoded again");
    assert_eq!(is_foreign(&encoded), foreign);
}
