//! The registry values that the logging policies consist of.

use crate::live::policy::{Hive, Policy, Value, Values, read_with};
use etwsieve_host::registry;
use std::io;

/// Reads the policies of this machine. Keys that cannot be read are listed in the result.
pub(super) fn read() -> Policy {
    read_with(lookup)
}

fn lookup(hive: Hive, path: &str) -> io::Result<Option<Values>> {
    let hive = match hive {
        Hive::LocalMachine => registry::Hive::LocalMachine,
        Hive::CurrentUser => registry::Hive::CurrentUser,
    };
    let values = registry::values(hive, path)?;
    Ok(values.map(|values| values.into_iter().map(|(name, value)| (name, convert(value))).collect()))
}

fn convert(value: registry::Value) -> Value {
    match value {
        registry::Value::Dword(number) => Value::Number(number),
        registry::Value::Text(text) => Value::Text(text),
        registry::Value::Texts(texts) => Value::Texts(texts),
        registry::Value::Other { .. } => Value::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_policies_of_this_machine_are_readable() {
        assert_eq!(read().unreadable, [""; 0]);
    }
}
