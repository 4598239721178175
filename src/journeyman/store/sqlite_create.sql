-- The layout of a store, version 1. Run inside a transaction: application_id and user_version are part of it.
PRAGMA application_id = 0x4A6E796D; -- "Jnym"
PRAGMA user_version = 1;

CREATE TABLE messages (
    position        INTEGER PRIMARY KEY, -- chosen by the writer, never by a sequence: so there are no gaps
    id              TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    subject         TEXT,
    body            BLOB    NOT NULL,
    recorded_at_us  INTEGER NOT NULL,
    correlation_id  TEXT    NOT NULL,
    causation_id    TEXT,
    actor           TEXT,
    idempotency_key TEXT,
    fence           INTEGER,
    meta            BLOB
) STRICT;

-- Every start asks for these few first, whatever the log's length.
CREATE INDEX messages_set_aside ON messages (position) WHERE name = 'journeyman/message-set-aside';

CREATE TABLE key_values (
    key      TEXT    NOT NULL PRIMARY KEY,
    value    BLOB    NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last revision given to any key. It outlives deleted keys: a key that is put again never gets an old revision.
CREATE TABLE revisions (
    only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    last INTEGER NOT NULL
) STRICT;
INSERT INTO revisions (only, last) VALUES (1, 0);
