//! A typical hit for tests.

use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, Utf16Text};

/// Returns a typical hit: event 4104 number `sequence` of a recorded trace, matched by one rule.
pub(crate) fn hit(sequence: u64) -> HitV1 {
    HitV1 {
        time: 133_601_515_200_000_000 + sequence * 10_000_000,
        source: "demo.etl".into(),
        source_sequence: sequence,
        provider: uuid::uuid!("a0c1853b-5c40-4b15-8766-3cf1c58f985a").to_bytes_le(),
        event_id: 4104,
        version: 1,
        channel: 16,
        level: 5,
        opcode: 15,
        task: 2,
        computer: Some("srv1.example.test".into()),
        user_sid: Some("S-1-5-21-1-2-3-1104".into()),
        process_id: Some(4242),
        thread_id: Some(77),
        content: EventContent::ScriptBlock {
            message_number: Some(1),
            message_total: Some(1),
            text: "Enter-PSSession -ComputerName srv2".into(),
            script_block_id: Some("5f0c1d2e-0000-4000-8000-000000000001".into()),
            path: Some(Utf16Text::default()),
        },
        rules: vec![rule("a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af", "Remote session")],
        ..HitV1::default()
    }
}

pub(crate) fn rule(id: &str, title: &str) -> RuleRefV1 {
    RuleRefV1 {
        id: id.into(),
        title: title.into(),
        level: "medium".into(),
        attack: vec!["T1021.006".into()],
        ..RuleRefV1::default()
    }
}
