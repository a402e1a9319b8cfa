//! `etwsieve-collector service` where there is no service manager of Windows.

use std::process::Command;

#[test]
fn off_windows_one_sentence_says_what_to_use() {
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
            "error: `etwsieve-collector service` needs Windows, whose service manager it talks to; on Linux the systemd \
             unit transport/collector/packaging/etwsieve-collector.service runs the collector\n",
            "{command}"
        );
    }
}
