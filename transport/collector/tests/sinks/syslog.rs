//! Syslog over mutual TLS to a real rsyslogd, with certificates of the private authority.

use crate::feed::{MemoryFeed, config, drain, start};
use etwsieve_collector::pki::Authority;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running rsyslogd, which is killed when dropped.
struct Rsyslog {
    child: Child,
    port: u16,
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Rsyslog {
    /// Stops it gracefully, so that everything it has read is written.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

/// Finds rsyslogd; prints a message and returns `None` if it is not installed.
fn rsyslogd() -> Option<PathBuf> {
    let found = ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].iter().map(PathBuf::from).find(|path| path.exists());
    let tls = Path::new("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so").exists()
        || Path::new("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so").exists();
    if found.is_none() || !tls {
        let required = std::env::var("ETWSIEVE_PEERS").is_ok_and(|value| value == "required");
        assert!(
            !required,
            "rsyslogd with its TLS driver is required: apt-get install rsyslog rsyslog-gnutls"
        );
        println!("skipped: rsyslogd with TLS is not installed");
        return None;
    }
    found
}

/// Splits a bundle into three files.
fn split(bundle: &Path, folder: &Path, name: &str) -> [PathBuf; 2] {
    let text = std::fs::read_to_string(bundle).unwrap();
    let key_at = text.find("-----BEGIN PRIVATE KEY").unwrap();
    let key_end = text.find("-----END PRIVATE KEY-----").unwrap() + "-----END PRIVATE KEY-----\n".len();
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    std::fs::write(&certificate, &text[..key_at]).unwrap();
    std::fs::write(&key, &text[key_at..key_end]).unwrap();
    [certificate, key]
}

fn run(program: &Path, folder: &Path, authority: &Authority, port: u16) -> Rsyslog {
    let [certificate, key] = split(&authority.collector_path(), folder, "receiver");
    let path = |path: &Path| path.display().to_string();
    let driver =
        if Path::new("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so").exists() { "gtls" } else { "ossl" };
    let text = format!(
        r#"
global(workDirectory="{folder}" maxMessageSize="64k"
    defaultNetstreamDriver="{driver}" defaultNetstreamDriverCAFile="{ca}"
    defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="{driver}" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["sender.test"])
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="whole" type="string" string="%pri%|%timestamp:::date-rfc3339%|%hostname%|%app-name%|%msgid%|%structured-data%|%msg%\n")
action(type="omfile" file="{out}" template="whole")
"#,
        folder = path(folder),
        ca = path(&authority.certificate_path()),
        certificate = path(&certificate),
        key = path(&key),
        out = path(&folder.join("received")),
    );
    let configuration = folder.join("rsyslog.conf");
    std::fs::write(&configuration, text).unwrap();
    let log = std::fs::File::create(folder.join("rsyslogd.log")).unwrap();
    let child = Command::new(program)
        .args(["-n", "-f", &path(&configuration), "-i", &path(&folder.join("pid"))])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "rsyslogd does not listen: see {}",
            path(&folder.join("rsyslogd.log"))
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Rsyslog { child, port }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Reads sequence numbers and scripts from the output of rsyslogd.
fn received(folder: &Path) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(folder.join("received")).unwrap_or_default();
    let line = |line: &str| {
        let parts: Vec<&str> = line.splitn(7, '|').collect();
        // local0 and warning, the time and host of the hit, the application.
        assert_eq!(
            (parts[0], parts[2], parts[3], parts[4]),
            ("132", "srv1.example.test", "etwsieve", "detection"),
            "{line}"
        );
        assert!(parts[1].starts_with("2024-05-"), "{line}");
        assert!(parts[5].starts_with("[etwsieve@32473 sensor=\"srv1.example.test\" epoch=\"0707"), "{line}");
        let json: serde_json::Value = serde_json::from_str(parts[6].trim_start()).unwrap();
        let number = json["sequence"].as_u64().unwrap();
        assert!(parts[5].contains(&format!("sequence=\"{number}\"")));
        (number, json["script_block_text"].as_str().unwrap().to_owned())
    };
    text.lines().map(line).collect()
}

#[test]
fn a_real_receiver_writes_all_hits_even_across_its_restart() {
    let Some(program) = rsyslogd() else { return };
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(&folder.path().join("pki"), &["localhost".to_owned()], 30).unwrap();
    let bundle = authority.issue(&"sender.test".parse().unwrap(), 30, false, None).unwrap().bundle;
    let port = free_port();
    let script = |n: u64| {
        format!("Write-Host {n} \"quoted\" \u{e4}\u{20ac} {}", "y".repeat(usize::try_from(n).unwrap() * 7))
    };
    let feed = MemoryFeed::new(300, script);
    let sink = config(&format!(
        "type = \"syslog\"\naddress = \"127.0.0.1:{port}\"\nserver_name = \"localhost\"\nca_file = \"{}\"\nbundle = \"{}\"\nbatch_hits = 40",
        authority.certificate_path().display(),
        bundle.display()
    ));
    // The receiver does not run yet, so the sink waits.
    let (stop, thread, stats) = start(&sink, folder.path(), &feed);
    while stats.counts().error.is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let receiver = run(&program, folder.path(), &authority, port);
    while feed.acknowledged() < 80 {
        assert!(!thread.is_finished());
        std::thread::sleep(Duration::from_millis(2));
    }
    // The receiver is replaced during the delivery.
    receiver.stop();
    let receiver = run(&program, folder.path(), &authority, port);
    assert_eq!(receiver.port, port);
    thread.join().unwrap();
    drop(stop);
    assert_eq!((feed.acknowledged(), stats.counts().refused), (300, 0));
    receiver.stop();

    let mut lines = received(folder.path());
    lines.sort();
    // Only the batch being delivered at that moment may be written twice.
    lines.dedup();
    let expected: Vec<(u64, String)> = (1..=300).map(|n| (n, script(n))).collect();
    assert_eq!(lines, expected);
}

#[test]
fn an_untrusted_peer_receives_nothing() {
    let Some(program) = rsyslogd() else { return };
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(&folder.path().join("pki"), &["localhost".to_owned()], 30).unwrap();
    let stranger = authority.issue(&"stranger.test".parse().unwrap(), 30, false, None).unwrap().bundle;
    let sender = authority.issue(&"sender.test".parse().unwrap(), 30, false, None).unwrap().bundle;
    let receiver = run(&program, folder.path(), &authority, free_port());
    let sink = |host: &str, bundle: &Path| {
        config(&format!(
            "type = \"syslog\"\naddress = \"127.0.0.1:{}\"\nserver_name = \"{host}\"\nca_file = \"{}\"\nbundle = \"{}\"",
            receiver.port,
            authority.certificate_path().display(),
            bundle.display()
        ))
    };
    let feed = MemoryFeed::new(5, |n| n.to_string());
    // The receiver refuses the first sink; the second one does not trust the receiver under that name.
    for sink in [sink("localhost", &stranger), sink("other.test", &sender)] {
        let (stop, thread, stats) = start(&sink, folder.path(), &feed);
        while stats.counts().retries < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.request();
        thread.join().unwrap();
        assert_eq!((feed.acknowledged(), stats.counts().delivered), (0, 0), "{:?}", stats.counts().error);
    }
    drain(&sink("localhost", &sender), folder.path(), &feed);
    receiver.stop();
    assert_eq!(received(folder.path()).len(), 5);
}
