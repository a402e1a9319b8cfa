-- Version 1 of the spool.

-- `instance`: the random number that HELLO shows.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- Epochs of which something is left, in the order of their processes.
CREATE TABLE epochs (
    id    INTEGER PRIMARY KEY,
    epoch BLOB    NOT NULL UNIQUE,
    -- Up to this number, and with it, a collector has acknowledged everything.
    acked INTEGER NOT NULL
) STRICT;

-- One row for each hit, and for each run of hits that were given up.
CREATE TABLE frames (
    -- epochs.id * 2^40 + the first number: the order of rows is the order of sending.
    key    INTEGER PRIMARY KEY,
    -- The last number; of a hit, the first.
    last   INTEGER NOT NULL,
    -- Why a run was given up, as on the wire; NULL for a hit.
    reason INTEGER,
    -- When it was spooled: milliseconds since 1970.
    time   INTEGER NOT NULL,
    -- The whole DATA frame, CRC and all; NULL for a run that was given up.
    frame  BLOB
) STRICT;
