-- By what order passes started jobs: what a pass knew that started something, and of every start the rank of its job.
CREATE TABLE passes (
    number INTEGER NOT NULL PRIMARY KEY CHECK (number > 0),
    at_us INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE start_turns (
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    pass INTEGER NOT NULL REFERENCES passes (number),
    body TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt),
    FOREIGN KEY (job_id, attempt) REFERENCES attempts (job_id, number)
) STRICT, WITHOUT ROWID;
