use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_documented_defaults_match_the_code() {
    assert_eq!(parse(DEFAULT_TOML).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    // With the commented-out examples enabled, every key is present.
    let keys = [
        "pki",
        "listen",
        "user",
        "password",
        "password_file",
        "token",
        "token_file",
        "nkey_file",
        "credentials",
        "ca_file",
        "bundle",
        "register",
        "type",
        "path",
    ];
    let all = keys.iter().fold(DEFAULT_TOML.replace("# [[sink]]", "[[sink]]"), |text, key| {
        text.replace(&format!("# {key} ="), &format!("{key} ="))
    });
    let config = parse(&all).unwrap();
    assert!(config.pki.is_some() && config.metrics.listen.is_some() && config.nats.token.is_some());
    assert_eq!(config.sink.len(), 1);
    let defaults = Config::default();
    assert_eq!(config.limits, defaults.limits);
    let (config, server) = (defaults.settings(), ServerSettings::default());
    assert_eq!(format!("{config:?}"), format!("{server:?}"));
}

#[test]
fn errors_name_the_line() {
    let rows = [
        ("listen = 5", "c.toml:1: "),
        ("\n\nnope = 1", "c.toml:3: unknown field `nope`"),
        ("[limits]\nwindow = 0", "c.toml:2: limits.window is 0, expected 1 to 65536"),
        ("[limits]\n\nqueue_mb = 1\n", "c.toml:3: limits.queue_mb is 1, expected 2 to 65536"),
        (
            "[metrics]\nlisten = \"0.0.0.0:9\"",
            "c.toml:2: metrics.listen is 0.0.0.0:9, expected a loopback address",
        ),
        ("[log]\nlevel = \"\"", "c.toml:2: log.level is \"\", expected"),
        ("store = ''", "c.toml:1: store is \"\", expected a path"),
        ("listen = \"127.0.0.1:1\"\nlisten", "c.toml:2: "),
        ("store = 'http://h'", "c.toml:1: store is not supported, expected a path or nats://HOST:PORT"),
        ("[nats]\nreplicas = 6", "c.toml:2: nats.replicas is 6, expected 1 to 5"),
        ("[nats]\npartitions = 65", "c.toml:2: nats.partitions is 65, expected 1 to 64"),
        ("[nats]\nregister = 'a.b'", "c.toml:2: nats.register is \"a.b\", expected a bucket name"),
        ("[[sink]]\ntype = 'jsonl'\n", "c.toml:"),
    ];
    for (text, expected) in rows {
        let found = parse(text).unwrap_err();
        assert!(found.starts_with(expected), "{text:?}: {found}");
    }
}

#[test]
fn exactly_one_kind_of_authentication_is_configured() {
    let mut config = Config::default();
    assert!(config.security().is_err());
    config.insecure_loopback = true;
    assert_eq!(config.security().unwrap(), Security::InsecureLoopback);
    config.pki = Some("pki".into());
    assert!(config.security().is_err());
    config.insecure_loopback = false;
    assert_eq!(config.security().unwrap(), Security::Pki("pki".into()));
}
