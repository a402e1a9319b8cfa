-- Version 2 of the store. Times are FILETIME: 100 ns ticks since 1601-01-01T00:00:00Z.

-- One row per event (or joined block) that some rule matched, in one scope and view.
CREATE TABLE hits (
    -- Never used twice, so that a reader can remember where it was.
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    -- SHA-256 that identifies the event (docs/wire.md): an event is stored once, however often and from wherever
    -- it is replayed.
    event_hash        BLOB    NOT NULL UNIQUE,
    -- The truth: the hit without its rules in the wire format of this version. All columns below are taken
    -- from it, for people and queries; texts among them show a lone surrogate as U+FFFD and U+0000 as U+2400,
    -- because SQL would stop at it.
    hit_version       INTEGER NOT NULL,
    event             BLOB    NOT NULL,
    -- Above 2^63 - 1 (damaged traces) these two and event_record_id stay at 2^63 - 1.
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
    -- A bit mask: negative where bit 63 is set.
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
    -- Of a 4104; text and path of a 1101 too.
    message_number    INTEGER,
    message_total     INTEGER,
    script_block_text TEXT,
    script_block_id   TEXT,
    path              TEXT,
    -- Of a script too long for a hit, of which pieces are kept: its length in UTF-16 units, its SHA-256.
    cut_units         INTEGER,
    cut_sha256        TEXT,
    -- Of a 4103.
    context_info      TEXT,
    user_data         TEXT,
    payload           TEXT,
    -- Of the sensor itself.
    notice            TEXT,
    -- Of a 1101: who handed the text to the antimalware scanner, and its answer.
    app_name          TEXT,
    scan_result       INTEGER,
    -- How many U+0000 the texts of this row have, all shown as U+2400; `event` has the originals.
    nuls              INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX hits_by_time ON hits (time, source, source_sequence);

-- The rules that matched; a later replay with other rules adds its own. U+0000 in texts is U+2400 here too.
CREATE TABLE hit_rules (
    -- Never used twice, so that what forwards detections can remember where it was.
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    hit_id  INTEGER NOT NULL REFERENCES hits (id) ON DELETE CASCADE,
    rule_id TEXT    NOT NULL,
    title   TEXT    NOT NULL,
    level   TEXT    NOT NULL,
    -- JSON array of ATT&CK ids.
    attack  TEXT    NOT NULL,
    -- 1: it matched behind a U+0000, where tools that decode by the manifest stop.
    beyond_nul      INTEGER NOT NULL,
    -- JSON array of [text, start, units]: what matched, in units of the uncut original; text 0 is the script.
    spans           TEXT    NOT NULL,
    -- JSON array of words: what was undone before it matched.
    transformations TEXT    NOT NULL,
    UNIQUE (hit_id, rule_id, title)
) STRICT;
