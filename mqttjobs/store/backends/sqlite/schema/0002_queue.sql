-- The queue in the order in which it is claimed, the next due time, and what waits of one operation and owner.
DROP INDEX jobs_waiting;
DROP INDEX jobs_alike;
CREATE INDEX jobs_to_run     ON jobs (priority DESC, uid) WHERE phase = 0 AND takes_slot = 1 AND target = '_local';
CREATE INDEX jobs_to_publish ON jobs (uid) WHERE phase = 0 AND takes_slot = 0 AND target = '_local';
CREATE INDEX jobs_due        ON jobs (due_ms) WHERE phase = 0 AND target = '_local' AND due_ms IS NOT NULL;
CREATE INDEX jobs_queued     ON jobs (operation_id, owner_id) WHERE phase = 0;
