//! A real collector with a thousand sensors, with clients that violate the protocol, and on a full file system.

use etwsieve_tests::faults::client::{Client, Reply, deliver};
use etwsieve_tests::faults::{Account, Batch, Collector, Disk, Ledger, Rng, tail, wait_for};
use etwsieve_transport::wire::frame::{FrameType, PAYLOAD_LEN_MAX, encode_frame};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

fn collector(place: &Path) -> Collector {
    let mut collector = Collector::new(place, &["--insecure-loopback"]).expect("a collector");
    collector.start_and_wait().expect("it listens");
    collector
}

fn epoch(number: u64) -> [u8; 16] {
    u128::from(number + 1).to_le_bytes()
}

#[test]
fn a_thousand_sensors_reconnect_at_once() {
    const SENSORS: u64 = 1000;
    let place = tempfile::tempdir().expect("a folder");
    let mut collector = collector(place.path());
    let mut rng = Rng::new(21);
    let batches: Vec<Batch> =
        (0..SENSORS).map(|number| Batch::new(&format!("s{number}"), 6, 60..600, &mut rng)).collect();
    let mut account = Account::default();
    let address = collector.address;
    thread::scope(|scope| {
        for (number, batch) in (0..).zip(&batches) {
            account.offer(batch);
            account.due(batch);
            let mut rng = rng.fork();
            let run = move || {
                let hits = batch.hits();
                let effort = deliver(&[address], epoch(number), &hits, Duration::from_secs(100), &mut rng);
                effort.unwrap_or_else(|error| panic!("sensor {number} cannot deliver: {error}"));
            };
            thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, run).expect("a thread");
        }
        // While they send, all lose their connection at the same moment.
        thread::sleep(Duration::from_millis(700));
        collector.kill();
        collector.start_and_wait().expect("it listens again");
    });
    collector.stop().expect("it stops");
    let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
    assert!(balance.is_even() && balance.sent == SENSORS * 6, "{balance:?}");
}

/// Returns whether the collector closes the connection in time.
fn is_closed(mut stream: TcpStream) -> bool {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(45)));
    let mut heard = Vec::new();
    // A reset counts as closed.
    !matches!(stream.read_to_end(&mut heard), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn garbage_closes_only_its_own_connection() {
    let place = tempfile::tempdir().expect("a folder");
    let mut collector = collector(place.path());
    let mut rng = Rng::new(22);
    let batch = Batch::new("good", 50, 60..2000, &mut rng);
    let hits = batch.hits();
    let mut good = Client::connect(collector.address, epoch(0)).expect("it connects");
    assert!(matches!(good.hello(1), Ok(Reply::Welcome(_))));
    let before = collector.resident_bytes().expect("it runs");

    let mut frame = Vec::new();
    encode_frame(FrameType::Data, &[0; 64], &mut frame).expect("it fits");
    let mut bad_crc = frame.clone();
    bad_crc[20] ^= 1;
    let mut unknown_version = frame.clone();
    unknown_version[4] = 9;
    let mut oversize = frame.clone();
    oversize[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut long_hello = Vec::new();
    encode_frame(FrameType::Hello, &vec![0; PAYLOAD_LEN_MAX], &mut long_hello).expect("it fits");
    let garbage: Vec<u8> = (0..4096).map(|_| rng.word() as u8).collect();
    let mut data_unasked = Vec::new();
    etwsieve_transport::wire::encode_data(1, &hits[0], &mut data_unasked).expect("it encodes");
    let rows: [(&str, &[u8]); 7] = [
        ("garbage", &garbage),
        ("bad CRC", &bad_crc),
        ("unknown version", &unknown_version),
        ("oversize", &oversize),
        ("a HELLO of a megabyte", &long_hello),
        ("data before HELLO", &data_unasked),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n"),
    ];
    for (name, bytes) in rows {
        let mut stream = TcpStream::connect(collector.address).expect("it connects");
        // The collector may close while this is still being sent.
        let _ = stream.write_all(bytes);
        assert!(is_closed(stream), "{name}: closed");
    }
    // The same after a valid HELLO, on many connections.
    for (number, (name, bytes)) in (1..).zip(rows.iter().cycle().take(70)) {
        let mut client = Client::connect(collector.address, epoch(number)).expect("it connects");
        if matches!(client.hello(1), Ok(Reply::Welcome(_))) && *name != "data before HELLO" {
            client.queue_bytes(bytes);
            let _ = client.flush();
            assert!(client.receive().is_err(), "{name}: closed after HELLO");
        }
    }
    let after = collector.resident_bytes().expect("it runs");
    assert!(after < before + (64 << 20), "memory stays bounded: {before} then {after}");

    for (sequence, hit) in (1..).zip(&hits) {
        good.queue(sequence, hit).expect("it encodes");
    }
    good.flush().expect("it is still open");
    loop {
        match good.receive() {
            Ok(Reply::Ack(ack)) if ack.sequence == 50 => break,
            Ok(Reply::Ack(_)) => {}
            other => panic!("the valid connection received {other:?}: {}", tail(&collector.log)),
        }
    }
    collector.stop().expect("it stops");
    let mut account = Account::default();
    account.offer(&batch);
    account.due(&batch);
    // DATA before HELLO was not stored either.
    let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
    assert!(balance.is_even(), "{balance:?}");
}

#[test]
fn a_reused_sequence_number_with_other_contents_is_stored_and_counted() {
    let place = tempfile::tempdir().expect("a folder");
    let mut collector = collector(place.path());
    let mut rng = Rng::new(23);
    let batches = [Batch::new("one", 5, 60..200, &mut rng), Batch::new("two", 5, 60..200, &mut rng)];
    let mut account = Account::default();
    for batch in &batches {
        account.offer(batch);
        account.due(batch);
        deliver(&[collector.address], epoch(0), &batch.hits(), Duration::from_mins(1), &mut rng)
            .expect("it is taken");
    }
    collector.stop().expect("it stops");
    let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
    assert!(balance.is_even() && balance.sent == 10, "both are stored: {balance:?}");
    assert_eq!(Ledger::read(&collector.store()).expect("the ledger").conflicts, 5);
}

#[test]
fn the_collector_survives_a_full_file_system() {
    let place = tempfile::tempdir().expect("a folder");
    let disk = Disk::new(place.path(), "collector").expect("a disk");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none"]).arg(&disk.folder).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let _unmount = Unmount(disk.folder.clone());
    let mut collector = collector(place.path());
    let mut rng = Rng::new(24);
    let batch = Batch::new("full", 400, 12_000..12_001, &mut rng);
    let (hits, address) = (batch.hits(), collector.address);
    let ballast = disk.folder.join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).expect("it fits");
    // 5 MB of hits do not fit; the collector reports it and continues.
    let mut client = Client::connect(address, epoch(0)).expect("it connects");
    let Ok(Reply::Welcome(welcome)) = client.hello(1) else { panic!("no WELCOME") };
    let mut acknowledged = 0;
    for (sequence, hit) in (1..).zip(&hits).take(welcome.window as usize) {
        client.queue(sequence, hit).expect("it encodes");
    }
    let _ = client.flush();
    let reason = loop {
        match client.receive() {
            Ok(Reply::Ack(ack)) => acknowledged = ack.sequence,
            Ok(Reply::Busy(busy)) => break Some(busy.reason),
            Ok(Reply::Welcome(_)) => {}
            Err(_) => break None,
        }
    };
    assert!(acknowledged < 400, "more is acknowledged than there is room for");
    if let Some(reason) = reason {
        println!("BUSY: {}", reason.as_str());
    }
    assert!(collector.runs(), "a full disk does not end the collector: {}", tail(&collector.log));
    // With free space again, hits are accepted.
    std::fs::remove_file(&ballast).expect("it is there");
    let more = Batch::new("more", 10, 60..200, &mut rng);
    let taken = wait_for(Duration::from_mins(1), || {
        deliver(&[address], epoch(9), &more.hits(), Duration::from_secs(5), &mut Rng::new(1)).ok()
    });
    assert!(taken.is_some(), "it accepts hits again: {}", tail(&collector.log));
    collector.stop().expect("it stops");
    let mut account = Account::default();
    account.offer(&batch);
    account.offer(&more);
    account.due(&more);
    account.due(&Batch { name: String::new(), scripts: batch.scripts[..acknowledged as usize].to_vec() });
    let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
    assert!(balance.is_even(), "{balance:?}");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.0.as_os_str()]).status();
    }
}
