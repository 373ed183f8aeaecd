-- By what order passes started jobs: what a pass knew that started something, and of every start the rank of its job.
CREATE TABLE passes (
    number BIGINT NOT NULL PRIMARY KEY CHECK (number > 0),
    at_us BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE start_turns (
    job_id BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    pass BIGINT NOT NULL REFERENCES passes (number),
    body TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt),
    FOREIGN KEY (job_id, attempt) REFERENCES attempts (job_id, number)
);
