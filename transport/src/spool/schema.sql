-- Version 1 of the spool.

-- `instance`: the random number that a HELLO contains.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- Epochs that are not completely acknowledged, in the order of their processes.
CREATE TABLE epochs (
    id    INTEGER PRIMARY KEY,
    epoch BLOB    NOT NULL UNIQUE,
    -- Everything up to and including this number is acknowledged.
    acked INTEGER NOT NULL
) STRICT;

-- One row for each hit and for each gap, a range of dropped hits.
CREATE TABLE frames (
    -- epochs.id * 2^40 + the first number, so that rows are in the order of sending.
    key    INTEGER PRIMARY KEY,
    -- The last number; for a hit the same as the first.
    last   INTEGER NOT NULL,
    -- Why the hits of a gap were dropped, as on the wire; NULL for a hit.
    reason INTEGER,
    -- When the row was added, in milliseconds since 1970.
    time   INTEGER NOT NULL,
    -- The complete DATA frame with its CRC; NULL for a gap.
    frame  BLOB
) STRICT;
