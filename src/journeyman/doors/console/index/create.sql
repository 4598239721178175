-- The layout of the index, version 1. It can be made again from the log at any time, so it is never migrated.
CREATE TABLE progress (
    only          INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    built_for     TEXT    NOT NULL, -- the code and the decisions it was built under, in JSON
    position      INTEGER NOT NULL, -- up to where it is indexed
    first_id      TEXT,             -- of the log's first message
    last_id       TEXT              -- of the message at `position`
) STRICT;

-- Names of messages, features and workers: there are few, and each is told a million times.
CREATE TABLE names (
    number INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE
) STRICT;

-- Ids are the 16 bytes of a UUID where they are one, else text. `correlation` is NULL where it is the message's own id.
CREATE TABLE messages (
    position       INTEGER PRIMARY KEY,
    id             ANY     NOT NULL,
    name           INTEGER NOT NULL,
    feature        INTEGER NOT NULL,
    subject        TEXT,
    recorded_at_us INTEGER NOT NULL,
    correlation    ANY,
    causation      ANY,
    actor          TEXT,
    fence          INTEGER
) STRICT;
CREATE INDEX messages_id ON messages (id);
CREATE INDEX messages_name ON messages (name);
CREATE INDEX messages_feature ON messages (feature);
CREATE INDEX messages_subject ON messages (subject) WHERE subject IS NOT NULL;
CREATE INDEX messages_correlation ON messages (correlation) WHERE correlation IS NOT NULL;
CREATE INDEX messages_causation ON messages (causation) WHERE causation IS NOT NULL;

-- What happened to each job, in the order of the log. `fence` is the position at which the attempt began.
CREATE TABLE job_events (
    worker   INTEGER NOT NULL,
    job      TEXT    NOT NULL,
    position INTEGER NOT NULL,
    event    TEXT    NOT NULL,
    fence    INTEGER,
    PRIMARY KEY (worker, job, position, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_events_position ON job_events (position);
CREATE INDEX job_events_over ON job_events (worker, position) WHERE event IN ('answered', 'ended', 'discarded');

-- The jobs that are open at `position`, and their attempts: what is needed to go on from there.
CREATE TABLE open_jobs (
    worker   INTEGER NOT NULL,
    job      TEXT    NOT NULL,
    fence    INTEGER,
    instance TEXT,
    PRIMARY KEY (worker, job)
) STRICT, WITHOUT ROWID;

-- By the clocks that recorded the messages. Clocks differ, so the positions of two minutes may overlap.
CREATE TABLE minutes (
    minute         INTEGER PRIMARY KEY, -- minutes since 1970 UTC
    first_position INTEGER NOT NULL,
    last_position  INTEGER NOT NULL,
    messages       INTEGER NOT NULL,
    attempts       INTEGER NOT NULL,
    answers        INTEGER NOT NULL,
    failures       INTEGER NOT NULL
) STRICT;
