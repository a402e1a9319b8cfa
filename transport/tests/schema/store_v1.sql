-- Version 1 of the store. Times are FILETIME: 100 ns ticks since 1601-01-01T00:00:00Z.

-- One row per event (or joined block) that some rule matched, in one scope and view.
CREATE TABLE hits (
    -- Never used twice, so that a reader can remember where it was.
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    -- SHA-256 of `event` (of a cut script without the pieces): an event is stored once, however often replayed.
    event_hash        BLOB    NOT NULL UNIQUE,
    -- The truth: the hit without its rules in the wire format of this version. All columns below are taken
    -- from it, for people and queries; texts among them show lone surrogates as U+FFFD.
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
    scan_result       INTEGER
) STRICT;

CREATE INDEX hits_by_time ON hits (time, source, source_sequence);

-- The rules that matched; a later replay with other rules adds its own.
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
-- What a Splunk search over script blocks ends in: missing values filled with 0, then
-- `stats count min(_time) max(_time) by …`, here for each rule apart.
--
-- A value is missing when it is NULL or empty; Splunk does not extract an empty field either. The casts give
-- the columns a type, so that Path = 0 and Path = '0' both find what was filled.
CREATE VIEW detections AS
WITH filled AS (
    SELECT
        h.time,
        CAST(coalesce(nullif(h.computer, ''), '0') AS TEXT) AS dest,
        CAST(CASE h.event_id
            WHEN 4104 THEN 'Creating Scriptblock text (' || coalesce(h.message_number, 0)
                || ' of ' || coalesce(h.message_total, 0) || ')'
            -- The name of task 106, all that a 4103 says of itself.
            WHEN 4103 THEN 'Executing Pipeline'
            WHEN 1101 THEN 'AmsiScanBuffer'
            ELSE '0'
        END AS TEXT) AS signature,
        CAST(h.event_id AS INTEGER) AS signature_id,
        CAST(coalesce(nullif(h.user_sid, ''), '0') AS TEXT) AS user_id,
        CAST('Microsoft Windows' AS TEXT) AS vendor_product,
        CAST(h.event_id AS INTEGER) AS EventID,
        -- In braces and lower case, as event XML has it.
        CAST('{' || h.provider || '}' AS TEXT) AS Guid,
        CAST(h.opcode AS INTEGER) AS Opcode,
        CAST(CASE h.provider
            WHEN 'a0c1853b-5c40-4b15-8766-3cf1c58f985a' THEN 'Microsoft-Windows-PowerShell'
            WHEN 'f90714a8-5509-434a-bf6d-b1624c8a19a2' THEN 'PowerShellCore'
            WHEN '2a576b87-09a7-520e-c21a-4942f0271d67' THEN 'Microsoft-Antimalware-Scan-Interface'
            ELSE '0'
        END AS TEXT) AS Name,
        CAST(coalesce(nullif(h.path, ''), '0') AS TEXT) AS Path,
        CAST(coalesce(h.process_id, 0) AS INTEGER) AS ProcessID,
        CAST(coalesce(nullif(h.script_block_id, ''), '0') AS TEXT) AS ScriptBlockId,
        CAST(coalesce(nullif(h.script_block_text, ''), '0') AS TEXT) AS ScriptBlockText,
        CAST(coalesce(nullif(r.rule_id, ''), '0') AS TEXT) AS rule_id,
        CAST(coalesce(nullif(r.title, ''), '0') AS TEXT) AS rule_title
    FROM hits AS h
    JOIN hit_rules AS r ON r.hit_id = h.id
)
SELECT
    count(*) AS count,
    -- ISO 8601 in UTC, to the second. Years above 9999 stay a FILETIME.
    CAST(coalesce(
        strftime('%Y-%m-%dT%H:%M:%S', min(time) / 10000000 - 11644473600, 'unixepoch'), min(time)
    ) AS TEXT) AS firstTime,
    CAST(coalesce(
        strftime('%Y-%m-%dT%H:%M:%S', max(time) / 10000000 - 11644473600, 'unixepoch'), max(time)
    ) AS TEXT) AS lastTime,
    dest, signature, signature_id, user_id, vendor_product, EventID, Guid, Opcode, Name, Path, ProcessID,
    ScriptBlockId, ScriptBlockText, rule_id, rule_title
FROM filled
GROUP BY
    dest, signature, signature_id, user_id, vendor_product, EventID, Guid, Opcode, Name, Path, ProcessID,
    ScriptBlockId, ScriptBlockText, rule_id, rule_title;
