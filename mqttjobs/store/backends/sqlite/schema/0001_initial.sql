-- Times are milliseconds since 1970, UTC. Nested things are JSON; timeline and results are one JSON array a line,
-- so that appending is one concatenation and a job is one row.
CREATE TABLE jobs (
    uid          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    status       TEXT    NOT NULL,
    phase        INTEGER NOT NULL,             -- 0 waiting, 1 claimed, 2 ended
    takes_slot   INTEGER NOT NULL,
    run_limit    INTEGER,                      -- of the same operation and owner at once
    target       TEXT    NOT NULL,
    priority     INTEGER NOT NULL,
    operation_id TEXT,
    fingerprint  TEXT    NOT NULL,
    owner_kind   TEXT,
    owner_id     TEXT,
    user_id      TEXT    NOT NULL,
    created_ms   INTEGER NOT NULL,
    due_ms       INTEGER,
    executed_ms  INTEGER,
    last_ms      INTEGER NOT NULL,             -- latest event of any kind
    attempts     INTEGER NOT NULL,
    detail       TEXT    NOT NULL,
    timeline     TEXT    NOT NULL,
    results      TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX jobs_waiting   ON jobs (takes_slot, due_ms) WHERE phase = 0;
CREATE INDEX jobs_claimed   ON jobs (operation_id) WHERE phase = 1;
CREATE INDEX jobs_alike     ON jobs (operation_id, owner_id, phase) WHERE phase < 2 AND run_limit IS NOT NULL;
CREATE INDEX jobs_operation ON jobs (operation_id, uid);
CREATE INDEX jobs_owner     ON jobs (owner_kind, owner_id, uid);
CREATE INDEX jobs_status    ON jobs (status, last_ms);
CREATE INDEX jobs_created   ON jobs (created_ms);

CREATE TABLE definitions (fingerprint TEXT PRIMARY KEY, definition TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (uid INTEGER PRIMARY KEY);

CREATE TABLE "values" (
    kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
    text TEXT NOT NULL, previous TEXT, since_ms INTEGER NOT NULL, heard_ms INTEGER, payload TEXT NOT NULL,
    PRIMARY KEY (kind, id, name)
) WITHOUT ROWID;
CREATE TABLE history (
    n INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL,
    state TEXT NOT NULL, previous TEXT, reported_by TEXT, reason TEXT
);
CREATE INDEX history_value ON history (kind, id, name, n);
CREATE INDEX history_at    ON history (at_ms);

CREATE TABLE holds (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL,
    since_ms INTEGER NOT NULL, fired_ms INTEGER, meta TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE packets (packet_id INTEGER PRIMARY KEY, digest BLOB NOT NULL);
CREATE TABLE event_ids (
    kind TEXT NOT NULL, id TEXT NOT NULL, event_id TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, id, event_id)
) WITHOUT ROWID;
CREATE TABLE answers (key BLOB PRIMARY KEY, at_ms INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (id TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE notes (name TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
