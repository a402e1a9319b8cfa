use super::*;

#[derive(Debug, Deserialize)]
struct Document {
    sink: Vec<SinkConfig>,
}

fn read(text: &str) -> Result<Vec<SinkConfig>, String> {
    let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
    check_all(&document.sink, Path::new(".")).map_err(|error| error.to_string())?;
    Ok(document.sink)
}

#[test]
fn every_type_is_parsed() {
    let text = r#"
        [[sink]]
        type = "jsonl"
        path = "hits.jsonl"
        [[sink]]
        type = "splunk"
        name = "hec"
        url = "https://splunk.example.test:8088"
        token = "00000000-0000-4000-8000-000000000000"
        [[sink]]
        type = "elastic"
        url = "https://elastic.example.test:9200"
        user = "u"
        password = "p"
    "#;
    let sinks = read(text).unwrap();
    assert_eq!(sinks.iter().map(SinkConfig::name).collect::<Vec<_>>(), ["jsonl", "hec", "elastic"]);
    let jsonl = SinkConfig::jsonl("hits.jsonl".into());
    assert_eq!(sinks[0], jsonl, "the shorthand has the same defaults");
}

#[test]
fn mistakes_are_named() {
    let splunk = "[[sink]]\ntype = \"splunk\"\nurl = \"https://s.test\"\n";
    let elastic = "[[sink]]\ntype = \"elastic\"\nurl = \"https://e.test\"\n";
    let jsonl = "[[sink]]\ntype = \"jsonl\"\npath = \"x\"\n";
    let rows = [
        ("unknown key", format!("{jsonl}rotate = 3\n"), "unknown field `rotate`"),
        ("unknown type", "[[sink]]\ntype = \"kafka\"\n".to_owned(), "unknown variant `kafka`"),
        ("no path", "[[sink]]\ntype = \"jsonl\"\n".to_owned(), "missing field `path`"),
        ("no token", splunk.to_owned(), "set either token or token_file"),
        ("two tokens", format!("{splunk}token = \"a\"\ntoken_file = \"b\"\n"), "set either token"),
        ("missing file", format!("{splunk}token_file = \"/no/such\"\n"), "cannot read /no/such"),
        ("plain http", format!("{}token = \"a\"\n", splunk.replace("https", "http")), "not encrypted"),
        ("two ways", format!("{elastic}api_key = \"a\"\nuser = \"u\"\n"), "either api_key"),
        ("password alone", format!("{elastic}password = \"a\"\n"), "either api_key"),
        ("batch", format!("{jsonl}batch_hits = 0\n"), "batch_hits is 0, expected 1 to 10000"),
        ("same name", format!("{jsonl}{jsonl}"), "two sinks have this name"),
        ("bad name", format!("{jsonl}name = \"a b\"\n"), "expected 1 to 64"),
        (
            "syslog without its authority",
            "[[sink]]\ntype = \"syslog\"\naddress = \"h:6514\"\nca_file = \"/no/such\"\n".to_owned(),
            "cannot read /no/such",
        ),
    ];
    for (row, text, expected) in rows {
        let error = read(&text).unwrap_err();
        assert!(error.contains(expected), "{row}: {error}");
    }
}

#[test]
fn secrets_stay_out_of_logs() {
    let text = "[[sink]]\ntype = \"splunk\"\nurl = \"https://s.test\"\ntoken = \"geheim\"\n";
    assert!(!format!("{:?}", read(text).unwrap()).contains("geheim"));
}
