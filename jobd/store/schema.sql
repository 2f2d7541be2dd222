-- jobd's store, version 5.  Instants are microseconds since 1970 in UTC; 0 means "not yet".
-- States from 10 on are ends (jobd/model/states.py).

-- Submitted jobs as they came: ids that follow on each other, packed into one row.
CREATE TABLE parcels (
    first   INTEGER PRIMARY KEY,
    last    INTEGER NOT NULL,
    keys    BLOB    NOT NULL,                -- the keys of its submits, 16 bytes each
    records BLOB    NOT NULL,                -- msgpack
    lane    TEXT,                            -- of all its jobs (jobd/model/lane.py); NULL: they are plain
    CHECK (last >= first)
) STRICT;

-- Parcels of one lane, or of none, do not overlap with others.
CREATE INDEX plain_parcels ON parcels (first) WHERE lane IS NULL;
CREATE INDEX lane_parcels ON parcels (lane, first) WHERE lane IS NOT NULL;

-- A job that has something of its own to tell: its end, or an attempt that came to nothing.
-- This row counts, and not what a parcel may still say of the same job.
CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY,
    uid        BLOB    NOT NULL,             -- the key of its submit, made by the client
    batch      INTEGER NOT NULL,             -- jobs in that submit, on the first of them; else 0
    state      INTEGER NOT NULL,
    function   TEXT    NOT NULL,
    args       BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    crashes    INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    pid        INTEGER NOT NULL,
    detail     BLOB,                         -- msgpack: cause, stop, error, log, root, usage; NULL: nothing of it
    value      BLOB,
    policy     BLOB,                         -- msgpack: the options in force; NULL: all as built in
    inputs     BLOB,                         -- msgpack: the jobs whose results are arguments; NULL: none
    after      BLOB,                         -- msgpack: others that it comes after, and when; NULL: none
    key        TEXT,                         -- what it is unique by; NULL: nothing
    due_at     INTEGER,                      -- when the clock does something to it; NULL: never
    lane       TEXT,                         -- in which it waits for its turn; NULL: it is plain
    array      BLOB,                         -- msgpack: what makes it an array; NULL: nothing
    CHECK (due_at IS NULL OR state < 10),    -- nothing happens to what is over
    CHECK (state != 1 OR due_at > 0),        -- what is scheduled is so for some time
    CHECK ((state >= 10) = (ended_at > 0)),  -- an end has its time, and only an end
    CHECK (value IS NULL OR state = 10)      -- only what succeeded has a value
) STRICT;

-- A repeated submit finds its jobs by its key; one entry for each submit, not for each job.
CREATE UNIQUE INDEX submits ON jobs (uid) WHERE batch > 0;

-- What did not succeed is rare, and looked for; what succeeded pays nothing for these.
CREATE INDEX failures ON jobs (state, id) WHERE state > 10;
CREATE INDEX queued ON jobs (id) WHERE state = 3 AND lane IS NULL;
CREATE INDEX lanes ON jobs (lane, id) WHERE state = 3 AND lane IS NOT NULL;
CREATE INDEX due ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX blocked ON jobs (id) WHERE state = 2;

-- Who has a key.
CREATE INDEX keys ON jobs (key) WHERE key IS NOT NULL AND state < 10;

-- Whose inputs' values must not be deleted yet.
CREATE INDEX needy ON jobs (id) WHERE inputs IS NOT NULL AND state < 10;

-- The variables of jobs (msgpack), each set of them once; policies have the digest.
CREATE TABLE environments (
    digest BLOB PRIMARY KEY,
    data   BLOB NOT NULL
) STRICT;

-- Who comes after whom: a source, and a job that may start once that has succeeded (kind 1), ended (2),
-- or failed (3).  One that is met for good, as its source has succeeded, is closed some time.
CREATE TABLE edges (
    source INTEGER NOT NULL,
    job    INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    open   INTEGER NOT NULL,
    PRIMARY KEY (source, job)
) STRICT, WITHOUT ROWID;

CREATE INDEX waits ON edges (job) WHERE open = 1;

-- The highest key that each client's session has used in parcels (its last 8 bytes), so that a key that
-- is higher than this, and than those of its session in the index of submits, needs no search.
CREATE TABLE sessions (
    session BLOB PRIMARY KEY,
    high    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Ends of attempts that were not the job's last.
CREATE TABLE attempts (
    job    INTEGER NOT NULL,
    number INTEGER NOT NULL,
    record BLOB    NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

-- What streams have produced and nobody was sure to have consumed, and a little more.  Item 0 has no value:
-- it says that the job is a stream.
CREATE TABLE items (
    job   INTEGER NOT NULL,
    seq   INTEGER NOT NULL CHECK (seq >= 0),
    value BLOB    NOT NULL,
    PRIMARY KEY (job, seq)
) STRICT;

-- The arrays that have not ended.
CREATE INDEX arrays ON jobs (id) WHERE array IS NOT NULL AND state < 10;

-- The calls of an array's items as they came, many in one row.  An item's number has its array's in the upper
-- half of its 64 bits (jobd/model/item.py).
CREATE TABLE chunks (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL CHECK (count > 0),
    calls BLOB    NOT NULL                   -- msgpack
) STRICT;

-- Items that have ended alike, and follow on each other; none has a row in jobs.
CREATE TABLE ranges (
    first      INTEGER PRIMARY KEY,
    count      INTEGER NOT NULL CHECK (count > 0),
    state      INTEGER NOT NULL CHECK (state >= 10),
    started_at INTEGER NOT NULL,             -- of the first; 0: they never did
    ended_at   INTEGER NOT NULL,             -- of the last
    pid        INTEGER NOT NULL,
    cause      TEXT    NOT NULL,
    vals       BLOB    NOT NULL              -- msgpack: what each has returned
) STRICT;

-- Attempts that a worker may have started: what was running when everything went down.
CREATE TABLE leases (
    id       INTEGER PRIMARY KEY,
    worker   TEXT NOT NULL,
    attempts BLOB NOT NULL
) STRICT;

-- What was said of queues while the daemon ran; NULL: nothing, as the settings have it.
CREATE TABLE queues (
    name   TEXT PRIMARY KEY,
    slots  INTEGER CHECK (slots >= 0),       -- 0: no limit
    rate   TEXT,                             -- '': no limit
    paused INTEGER CHECK (paused IN (0, 1))
) STRICT, WITHOUT ROWID;

-- How many jobs are in each state, and the next id: one row.
CREATE TABLE meta (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    counts  BLOB    NOT NULL,
    next_id INTEGER NOT NULL,
    queued  BLOB    NOT NULL DEFAULT x'80'   -- msgpack: jobs that have not ended, by queue but 'default'
) STRICT;
