-- Objects that appeared by reporting (classes with ids: any), in the order in which they did.
CREATE TABLE members (
    n INTEGER PRIMARY KEY, class_id TEXT NOT NULL, id TEXT NOT NULL,
    UNIQUE (class_id, id)
);
