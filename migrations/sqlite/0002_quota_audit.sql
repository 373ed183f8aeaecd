-- The audit chain of the quota book: every change of one thing, with who made it, why, and on whose approval. The digest is
-- SHA-256 over the digest before it, a line feed and the body; an entry is never changed and never deleted.
CREATE TABLE quota_audit (
    seq INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
    revision INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    subject TEXT NOT NULL,
    source TEXT NOT NULL,
    body TEXT NOT NULL,
    digest TEXT NOT NULL CHECK (length(digest) = 64)
) STRICT;
CREATE INDEX quota_audit_by_subject ON quota_audit (subject, seq);
CREATE INDEX quota_audit_by_source ON quota_audit (source, seq);

-- Who approved which plan, by the digest of the plan; it counts as long as the book is at that revision.
CREATE TABLE quota_approvals (
    plan TEXT NOT NULL,
    approver TEXT NOT NULL,
    base_revision INTEGER NOT NULL,
    document TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (plan, approver)
) STRICT;
CREATE INDEX quota_approvals_by_revision ON quota_approvals (base_revision);
