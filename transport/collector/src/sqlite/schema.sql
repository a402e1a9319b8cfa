-- What the collector keeps beside the hits, in the same file. Times are FILETIME by the collector's clock.

-- A sensor, by the name in its certificate.
CREATE TABLE IF NOT EXISTS sensors (
    id                  INTEGER PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,
    first_seen          INTEGER NOT NULL,
    last_seen           INTEGER NOT NULL,
    -- Connections now, as far as the collector that writes here knows; 0 after its start.
    connections         INTEGER NOT NULL DEFAULT 0,
    -- Of the last connection.
    address             TEXT,
    instance            BLOB,
    software            TEXT,
    computer            TEXT,
    -- Seconds since 1970.
    certificate_expires INTEGER,
    -- Hits under a new number; repetitions; numbers that came again with other contents; hits lost by gaps.
    hits                INTEGER NOT NULL DEFAULT 0,
    repeated            INTEGER NOT NULL DEFAULT 0,
    conflicts           INTEGER NOT NULL DEFAULT 0,
    lost                INTEGER NOT NULL DEFAULT 0,
    -- Of its last STATUS: when it came, the sensor's clock, and a JSON object of its counts.
    status_received     INTEGER,
    status_time         INTEGER,
    uptime_seconds      INTEGER,
    counts              TEXT
) STRICT;

-- The numbers of one epoch of one sensor.
CREATE TABLE IF NOT EXISTS streams (
    id         INTEGER PRIMARY KEY,
    sensor_id  INTEGER NOT NULL REFERENCES sensors (id),
    epoch      BLOB    NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    -- Highest number that was stored, as a hit or in a gap.
    highest    INTEGER NOT NULL,
    UNIQUE (sensor_id, epoch)
) STRICT;

-- Which hit came under which number. One number has several rows if it came with different contents.
CREATE TABLE IF NOT EXISTS received (
    stream_id INTEGER NOT NULL REFERENCES streams (id),
    sequence  INTEGER NOT NULL,
    -- SHA-256 of the bytes as they were sent.
    hash      BLOB    NOT NULL,
    hit_id    INTEGER NOT NULL,
    time      INTEGER NOT NULL,
    PRIMARY KEY (stream_id, sequence, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS received_by_hit ON received (hit_id, time);

-- Numbers that will never come.
CREATE TABLE IF NOT EXISTS gaps (
    id         INTEGER PRIMARY KEY,
    stream_id  INTEGER NOT NULL REFERENCES streams (id),
    first      INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    -- Hits given up, as the sensor counts.
    count      INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    -- Of these, what was not stored when the gap came.
    lost       INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    UNIQUE (stream_id, first, last, count, reason)
) STRICT;

-- How far each sink has been given hits: the last id of hit_rules, and how many it missed because they were too old.
CREATE TABLE IF NOT EXISTS sink_cursors (
    sink     TEXT    PRIMARY KEY,
    position INTEGER NOT NULL,
    skipped  INTEGER NOT NULL DEFAULT 0,
    updated  INTEGER NOT NULL
) STRICT;

-- The last report of each sink: counts of hits since its start, times in seconds since 1970.
CREATE TABLE IF NOT EXISTS sink_states (
    sink          TEXT    PRIMARY KEY,
    delivered     INTEGER NOT NULL,
    refused       INTEGER NOT NULL,
    dropped       INTEGER NOT NULL,
    retries       INTEGER NOT NULL,
    -- By any process; 0: never.
    last_delivery INTEGER NOT NULL,
    -- Why it does not deliver; NULL: it does, or has nothing to deliver.
    error         TEXT,
    updated       INTEGER NOT NULL
) STRICT;

-- The collector itself, by name: `started`, `alive`, `expired`, `set_aside`, `failures`.
CREATE TABLE IF NOT EXISTS collector (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
