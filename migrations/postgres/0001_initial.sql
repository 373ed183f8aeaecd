-- Times are Unix microseconds (`_us`), GPUs are thousandths (`_milli`), JSON is text that only the program reads.
-- Text that is compared or ordered is by bytes ("C"), as on SQLite, whatever the database's locale.

CREATE TABLE settings (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- One row: who leads. Every write transaction compares its epoch.
CREATE TABLE leadership (
    single BIGINT NOT NULL PRIMARY KEY CHECK (single = 1),
    epoch BIGINT NOT NULL CHECK (epoch > 0),
    holder TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    expires_us BIGINT NOT NULL
);

CREATE TABLE jobs (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id > 0),
    owner TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    project TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('held', 'pending', 'starting', 'running', 'completed', 'failed', 'cancelled', 'timed_out')),
    priority BIGINT NOT NULL,
    submitted_us BIGINT NOT NULL,
    queued_us BIGINT NOT NULL,
    ended_us BIGINT,
    status TEXT NOT NULL,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_project ON jobs (project, id);
CREATE INDEX jobs_by_owner ON jobs (owner, id);

-- Apart from what changes, so that a move of a job does not write its script again and a scan does not read it.
CREATE TABLE job_specs (
    job_id BIGINT NOT NULL PRIMARY KEY REFERENCES jobs (id),
    spec TEXT NOT NULL
);

CREATE TABLE attempts (
    job_id BIGINT NOT NULL REFERENCES jobs (id),
    number BIGINT NOT NULL CHECK (number > 0),
    project TEXT COLLATE "C" NOT NULL,
    class TEXT COLLATE "C",
    gpu_milli BIGINT NOT NULL CHECK (gpu_milli >= 0),
    epoch BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('leased', 'accepted', 'prolog', 'running', 'stopping', 'ended')),
    leased_us BIGINT NOT NULL,
    started_us BIGINT,
    ended_us BIGINT,
    hold BIGINT NOT NULL CHECK (hold >= 0),
    progress TEXT NOT NULL,
    placement TEXT NOT NULL,
    PRIMARY KEY (job_id, number),
    CHECK ((state = 'ended') = (ended_us IS NOT NULL))
);
CREATE INDEX attempts_alive ON attempts (job_id, number) WHERE state <> 'ended';

-- What every GPU is given to, as a sum: the database's own guard that none is given twice.
CREATE TABLE gpu_occupancy (
    node TEXT COLLATE "C" NOT NULL,
    uuid TEXT COLLATE "C" NOT NULL,
    used_milli BIGINT NOT NULL CHECK (used_milli BETWEEN 0 AND 1000),
    PRIMARY KEY (node, uuid)
);

CREATE TABLE steps (
    job_id BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    number BIGINT NOT NULL CHECK (number >= 0),
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('batch', 'command', 'run')),
    name TEXT COLLATE "C" NOT NULL,
    created_us BIGINT NOT NULL,
    spec TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt, number),
    FOREIGN KEY (job_id, attempt) REFERENCES attempts (job_id, number)
);

CREATE TABLE tasks (
    job_id BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    step BIGINT NOT NULL,
    rank BIGINT NOT NULL CHECK (rank >= 0),
    node TEXT COLLATE "C" NOT NULL,
    local_rank BIGINT NOT NULL CHECK (local_rank >= 0),
    state TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (job_id, attempt, step, rank),
    FOREIGN KEY (job_id, attempt, step) REFERENCES steps (job_id, attempt, number)
);

CREATE TABLE ledger (
    seq BIGINT NOT NULL PRIMARY KEY CHECK (seq > 0),
    at_us BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('hold', 'release', 'charge', 'refund')),
    project TEXT COLLATE "C" NOT NULL,
    class TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    job_id BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    counter TEXT COLLATE "C" NOT NULL
);
CREATE INDEX ledger_by_job ON ledger (job_id, seq);
CREATE INDEX ledger_by_project ON ledger (project, seq);

CREATE TABLE nodes (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    registered_us BIGINT NOT NULL,
    admin TEXT NOT NULL,
    inventory TEXT NOT NULL
);

-- Every revision of the quota tree; the highest is in force.
CREATE TABLE quota (
    revision BIGINT NOT NULL PRIMARY KEY CHECK (revision >= 0),
    applied_us BIGINT NOT NULL,
    tree TEXT NOT NULL
);

CREATE TABLE events (
    seq BIGINT NOT NULL PRIMARY KEY CHECK (seq > 0),
    at_us BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    job_id BIGINT,
    attempt BIGINT,
    state TEXT COLLATE "C",
    node TEXT COLLATE "C",
    text TEXT NOT NULL
);
CREATE INDEX events_by_job ON events (job_id, seq) WHERE job_id IS NOT NULL;

CREATE TABLE tokens (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret_sha256 TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    projects TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT,
    revoked_us BIGINT
);

CREATE TABLE join_tokens (
    secret_sha256 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    node TEXT COLLATE "C",
    expires_us BIGINT NOT NULL,
    used_us BIGINT,
    used_by TEXT COLLATE "C",
    CHECK ((used_us IS NULL) = (used_by IS NULL))
);

CREATE TABLE answered_requests (
    owner TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    answer TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (owner, idempotency_key)
);
