-- Times are Unix microseconds (`_us`), GPUs are thousandths (`_milli`), JSON is text that only the program reads.

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: who leads. Every write transaction compares its epoch.
CREATE TABLE leadership (
    single INTEGER NOT NULL PRIMARY KEY CHECK (single = 1),
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    holder TEXT NOT NULL,
    address TEXT NOT NULL,
    expires_us INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id > 0),
    owner TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    digest TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'pending', 'starting', 'running', 'completed', 'failed', 'cancelled', 'timed_out')),
    priority INTEGER NOT NULL,
    submitted_us INTEGER NOT NULL,
    queued_us INTEGER NOT NULL,
    ended_us INTEGER,
    status TEXT NOT NULL,
    UNIQUE (owner, idempotency_key)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_project ON jobs (project, id);
CREATE INDEX jobs_by_owner ON jobs (owner, id);

-- Apart from what changes, so that a move of a job does not write its script again and a scan does not read it.
CREATE TABLE job_specs (
    job_id INTEGER NOT NULL PRIMARY KEY REFERENCES jobs (id),
    spec TEXT NOT NULL
) STRICT;

CREATE TABLE attempts (
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    number INTEGER NOT NULL CHECK (number > 0),
    project TEXT NOT NULL,
    class TEXT,
    gpu_milli INTEGER NOT NULL CHECK (gpu_milli >= 0),
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('leased', 'accepted', 'prolog', 'running', 'stopping', 'ended')),
    leased_us INTEGER NOT NULL,
    started_us INTEGER,
    ended_us INTEGER,
    hold INTEGER NOT NULL CHECK (hold >= 0),
    progress TEXT NOT NULL,
    placement TEXT NOT NULL,
    PRIMARY KEY (job_id, number),
    CHECK ((state = 'ended') = (ended_us IS NOT NULL))
) STRICT;
CREATE INDEX attempts_alive ON attempts (job_id, number) WHERE state <> 'ended';

-- What every GPU is given to, as a sum: the database's own guard that none is given twice.
CREATE TABLE gpu_occupancy (
    node TEXT NOT NULL,
    uuid TEXT NOT NULL,
    used_milli INTEGER NOT NULL CHECK (used_milli BETWEEN 0 AND 1000),
    PRIMARY KEY (node, uuid)
) STRICT, WITHOUT ROWID;

CREATE TABLE steps (
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 0),
    kind TEXT NOT NULL CHECK (kind IN ('batch', 'command', 'run')),
    name TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    spec TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt, number),
    FOREIGN KEY (job_id, attempt) REFERENCES attempts (job_id, number)
) STRICT;

CREATE TABLE tasks (
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    rank INTEGER NOT NULL CHECK (rank >= 0),
    node TEXT NOT NULL,
    local_rank INTEGER NOT NULL CHECK (local_rank >= 0),
    state TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt, step, rank),
    FOREIGN KEY (job_id, attempt, step) REFERENCES steps (job_id, attempt, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
    seq INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
    at_us INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('hold', 'release', 'charge', 'refund')),
    project TEXT NOT NULL,
    class TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    counter TEXT NOT NULL
) STRICT;
CREATE INDEX ledger_by_job ON ledger (job_id, seq);
CREATE INDEX ledger_by_project ON ledger (project, seq);

CREATE TABLE nodes (
    name TEXT NOT NULL PRIMARY KEY,
    registered_us INTEGER NOT NULL,
    admin TEXT NOT NULL,
    inventory TEXT NOT NULL
) STRICT;

-- Every revision of the quota tree; the highest is in force.
CREATE TABLE quota (
    revision INTEGER NOT NULL PRIMARY KEY CHECK (revision >= 0),
    applied_us INTEGER NOT NULL,
    tree TEXT NOT NULL
) STRICT;

CREATE TABLE events (
    seq INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
    at_us INTEGER NOT NULL,
    kind TEXT NOT NULL,
    job_id INTEGER,
    attempt INTEGER,
    state TEXT,
    node TEXT,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job_id, seq) WHERE job_id IS NOT NULL;

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    secret_sha256 TEXT NOT NULL,
    subject TEXT NOT NULL,
    role TEXT NOT NULL,
    projects TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER,
    revoked_us INTEGER
) STRICT;

CREATE TABLE join_tokens (
    secret_sha256 TEXT NOT NULL PRIMARY KEY,
    node TEXT,
    expires_us INTEGER NOT NULL,
    used_us INTEGER,
    used_by TEXT,
    CHECK ((used_us IS NULL) = (used_by IS NULL))
) STRICT;

CREATE TABLE answered_requests (
    owner TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (owner, idempotency_key)
) STRICT;
