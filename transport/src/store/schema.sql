-- Version 2 of the store. Times are FILETIME: 100 ns ticks since 1601-01-01T00:00:00Z.

-- A row for each event (or reassembled block) that a rule matched, in one scope and view.
CREATE TABLE hits (
    -- Never reused, so that a reader can resume after the last id it saw.
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    -- SHA-256 that identifies the event (docs/wire.md): an event is stored once, no matter how often and from which
    -- path it is replayed.
    event_hash        BLOB    NOT NULL UNIQUE,
    -- The hit without its rules, in the wire format of this version. All columns below are derived from it, for people
    -- and queries. Their texts have U+FFFD for a lone surrogate, and U+2400 for U+0000, because SQL would stop at it.
    hit_version       INTEGER NOT NULL,
    event             BLOB    NOT NULL,
    -- These two and event_record_id are at most 2^63 - 1; damaged traces have larger values.
    time              INTEGER NOT NULL,
    source            TEXT    NOT NULL,
    source_sequence   INTEGER NOT NULL,
    provider          TEXT    NOT NULL,
    event_id          INTEGER NOT NULL,
    event_version     INTEGER NOT NULL,
    channel           INTEGER NOT NULL,
    event_level       INTEGER NOT NULL,
    opcode            INTEGER NOT NULL,
    task              INTEGER NOT NULL,
    -- A bit mask; negative if bit 63 is set.
    keywords          INTEGER NOT NULL,
    computer          TEXT,
    user_sid          TEXT,
    process_id        INTEGER,
    thread_id         INTEGER,
    activity_id       TEXT,
    event_record_id   INTEGER,
    scope             TEXT    NOT NULL,
    view              TEXT    NOT NULL,
    -- 1: parts of the block were missing when it was searched.
    partial           INTEGER NOT NULL,
    -- Event 4104; text and path also for event 1101.
    message_number    INTEGER,
    message_total     INTEGER,
    script_block_text TEXT,
    script_block_id   TEXT,
    path              TEXT,
    -- A script too long for a hit, of which only pieces are stored: its length in UTF-16 units, its SHA-256.
    cut_units         INTEGER,
    cut_sha256        TEXT,
    -- Event 4103.
    context_info      TEXT,
    user_data         TEXT,
    payload           TEXT,
    -- Notices of the sensor.
    notice            TEXT,
    -- Event 1101: the application that requested the scan, and the result.
    app_name          TEXT,
    scan_result       INTEGER,
    -- Number of U+0000 in the texts of this row, shown as U+2400; `event` has the original.
    nuls              INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX hits_by_time ON hits (time, source, source_sequence);

-- The rules that matched. A later replay with other rules adds its own. U+0000 is replaced by U+2400 here too.
CREATE TABLE hit_rules (
    -- Never reused, so that forwarding of detections can resume.
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    hit_id  INTEGER NOT NULL REFERENCES hits (id) ON DELETE CASCADE,
    rule_id TEXT    NOT NULL,
    title   TEXT    NOT NULL,
    level   TEXT    NOT NULL,
    -- JSON array of ATT&CK ids.
    attack  TEXT    NOT NULL,
    -- 1: it matched after a U+0000, where tools that decode by the manifest stop reading.
    beyond_nul      INTEGER NOT NULL,
    -- JSON array of [text, start, units]: the matches, in units of the original text; text 0 is the script.
    spans           TEXT    NOT NULL,
    -- JSON array of words: the transformations that were undone.
    transformations TEXT    NOT NULL,
    UNIQUE (hit_id, rule_id, title)
) STRICT;
