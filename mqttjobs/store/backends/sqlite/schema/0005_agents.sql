-- Agents as they were last known, and what each was given. A closed assignment stays as long as its job, so that a
-- late report is recognised; a job that waits for an agent is found in the order in which it is given out.
CREATE TABLE agents (hostname TEXT PRIMARY KEY, agent TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE assignments (
    uid         INTEGER NOT NULL,
    hostname    TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    stage       INTEGER NOT NULL,          -- 0 held, 1 planned, 2 assigned, 3 closed
    token       TEXT    NOT NULL,
    planned_ms  INTEGER NOT NULL,
    assigned_ms INTEGER,
    answer_ms   INTEGER,                   -- its acknowledgement is due
    deadline_ms INTEGER,
    told_ms     INTEGER,                   -- the newest progress report
    detail      TEXT    NOT NULL,
    PRIMARY KEY (uid, hostname, attempt)
) WITHOUT ROWID;
CREATE INDEX assignments_open ON assignments (uid) WHERE stage < 3;
CREATE INDEX jobs_for_agents     ON jobs (priority DESC, uid) WHERE phase = 0 AND target <> '_local';
CREATE INDEX jobs_for_agents_due ON jobs (due_ms) WHERE phase = 0 AND target <> '_local' AND due_ms IS NOT NULL;
