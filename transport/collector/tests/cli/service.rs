//! `etwsieve-collector service` on other systems than Windows.

use std::process::Command;

#[test]
fn on_other_systems_the_error_names_the_systemd_unit() {
    for command in ["install", "uninstall", "start", "stop", "status", "run --config c.toml"] {
        let output = Command::new(env!("CARGO_BIN_EXE_etwsieve-collector"))
            .arg("service")
            .args(command.split(' '))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(output.stdout.is_empty(), "{command}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "error: `etwsieve-collector service` is only available on Windows; on Linux, use the systemd unit \
             transport/collector/packaging/etwsieve-collector.service\n",
            "{command}"
        );
    }
}
