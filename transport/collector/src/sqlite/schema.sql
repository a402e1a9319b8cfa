-- Tables of the collector in the same file as the hits. Times are FILETIME by the collector's clock.

-- Sensors, by the name in their certificates.
CREATE TABLE IF NOT EXISTS sensors (
    id                  INTEGER PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,
    first_seen          INTEGER NOT NULL,
    last_seen           INTEGER NOT NULL,
    -- Open connections to the collector that writes here; 0 after its start.
    connections         INTEGER NOT NULL DEFAULT 0,
    -- Of the last connection.
    address             TEXT,
    instance            BLOB,
    software            TEXT,
    computer            TEXT,
    -- Seconds since 1970.
    certificate_expires INTEGER,
    -- New hits; repetitions; sequence numbers reused with different contents; hits lost in gaps.
    hits                INTEGER NOT NULL DEFAULT 0,
    repeated            INTEGER NOT NULL DEFAULT 0,
    conflicts           INTEGER NOT NULL DEFAULT 0,
    lost                INTEGER NOT NULL DEFAULT 0,
    -- Of its last STATUS: its arrival time, the sensor's time, the uptime, and a JSON object of its counts.
    status_received     INTEGER,
    status_time         INTEGER,
    uptime_seconds      INTEGER,
    counts              TEXT
) STRICT;

-- The sequence numbers of one epoch of one sensor.
CREATE TABLE IF NOT EXISTS streams (
    id         INTEGER PRIMARY KEY,
    sensor_id  INTEGER NOT NULL REFERENCES sensors (id),
    epoch      BLOB    NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    -- Highest stored sequence number, of a hit or a gap.
    highest    INTEGER NOT NULL,
    UNIQUE (sensor_id, epoch)
) STRICT;

-- The hit received under each sequence number. A number that was reused with different contents has several rows.
CREATE TABLE IF NOT EXISTS received (
    stream_id INTEGER NOT NULL REFERENCES streams (id),
    sequence  INTEGER NOT NULL,
    -- SHA-256 of the hit as it was sent.
    hash      BLOB    NOT NULL,
    hit_id    INTEGER NOT NULL,
    time      INTEGER NOT NULL,
    PRIMARY KEY (stream_id, sequence, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS received_by_hit ON received (hit_id, time);

-- Sequence numbers that will never arrive.
CREATE TABLE IF NOT EXISTS gaps (
    id         INTEGER PRIMARY KEY,
    stream_id  INTEGER NOT NULL REFERENCES streams (id),
    first      INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    -- Hits dropped, as counted by the sensor.
    count      INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    -- Of these, hits that were not stored when the gap arrived.
    lost       INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    UNIQUE (stream_id, first, last, count, reason)
) STRICT;

-- The last id of hit_rules that each sink has received, and how many it missed because retention removed them.
CREATE TABLE IF NOT EXISTS sink_cursors (
    sink     TEXT    PRIMARY KEY,
    position INTEGER NOT NULL,
    skipped  INTEGER NOT NULL DEFAULT 0,
    updated  INTEGER NOT NULL
) STRICT;

-- The last report of each sink: counts since its start, times in seconds since 1970.
CREATE TABLE IF NOT EXISTS sink_states (
    sink          TEXT    PRIMARY KEY,
    delivered     INTEGER NOT NULL,
    refused       INTEGER NOT NULL,
    dropped       INTEGER NOT NULL,
    retries       INTEGER NOT NULL,
    -- Last delivery by any process; 0: never.
    last_delivery INTEGER NOT NULL,
    -- Why delivery fails; NULL: it does not.
    error         TEXT,
    updated       INTEGER NOT NULL
) STRICT;

-- Values of the collector: `started`, `alive`, `expired`, `set_aside`, `retention_clock`.
CREATE TABLE IF NOT EXISTS collector (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
