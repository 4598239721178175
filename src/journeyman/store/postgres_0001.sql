-- The layout of a store, version 1. The schema's name is put in for `journeyman` where a dot follows it.

CREATE TABLE journeyman.messages (
    position        bigint  PRIMARY KEY, -- chosen by the writer, never by a sequence: so there are no gaps
    id              text    NOT NULL,
    name            text    NOT NULL,
    version         integer NOT NULL,
    subject         text,
    body            bytea   NOT NULL,
    recorded_at_us  bigint  NOT NULL,
    correlation_id  text    NOT NULL,
    causation_id    text,
    actor           text,
    idempotency_key text,
    fence           bigint,
    meta            bytea
);

-- Every start asks for these few first, whatever the log's length.
CREATE INDEX messages_set_aside ON journeyman.messages (position) WHERE name = 'journeyman/message-set-aside';

-- One call, one transaction, one round trip: queue behind the other writers, look at the head, and write the batch if
-- it is where the batch is to follow. Returns the head that was found; the batch was written if that is `follows`.
-- Each statement of a volatile function has a snapshot of its own under READ COMMITTED, so the head is read as it is
-- once the lock is there. `queue` is the lock's key, or NULL for who holds the writers' turn. Whoever slips past the lock
-- meets the primary key: of two batches that follow the same head, one fails whole.
CREATE FUNCTION journeyman.append(
    follows bigint, queue bigint, ids text[], names text[], versions integer[], subjects text[], bodies bytea[],
    times_us bigint[], correlation_ids text[], causation_ids text[], actors text[], idempotency_keys text[],
    fences bigint[], metas bytea[]
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head bigint;
BEGIN
    IF queue IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(queue);
    END IF;
    SELECT coalesce(max(messages.position), 0) INTO head FROM journeyman.messages;
    IF head = follows THEN
        INSERT INTO journeyman.messages
        SELECT
            follows + batch.number, batch.id, batch.name, batch.version, batch.subject, batch.body, batch.time_us,
            batch.correlation_id, batch.causation_id, batch.actor, batch.idempotency_key, batch.fence, batch.meta
        FROM unnest(
            ids, names, versions, subjects, bodies, times_us, correlation_ids, causation_ids, actors, idempotency_keys,
            fences, metas
        ) WITH ORDINALITY AS batch (
            id, name, version, subject, body, time_us, correlation_id, causation_id, actor, idempotency_key, fence,
            meta, number
        );
    END IF;
    RETURN head;
END
$$;

CREATE TABLE journeyman.key_values (
    key      text   COLLATE "C" PRIMARY KEY,
    value    bytea  NOT NULL,
    revision bigint NOT NULL
);

-- One for all keys, so a key that is deleted and put again never gets an old revision.
CREATE SEQUENCE journeyman.revisions;

-- Large values in parts. A value is there once its row in `blobs` names its parts.
CREATE TABLE journeyman.blobs (
    name       text   COLLATE "C" PRIMARY KEY,
    saved      text   NOT NULL,
    parts      bigint NOT NULL,
    size_bytes bigint NOT NULL
);

CREATE TABLE journeyman.blob_parts (
    saved      text        NOT NULL,
    number     bigint      NOT NULL,
    bytes      bytea       NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (saved, number)
);

-- Whose a role is says its row; that he lives says a lock of his session, or, behind a pooler, a lease.
CREATE TABLE journeyman.roles (
    role      text PRIMARY KEY,
    holder    text NOT NULL,
    leased_to timestamptz
);

-- Claim a role. Returns:
--   held     it is the claimer's, and so is the lock or the lease
--   waiting  it is the claimer's, but its lock is not free yet: the server has not ended his former session
--   left     another's who has not released it, though nobody has its lock: he is dead, or connects again this moment.
--            Who finds that again after a while calls with `left_before`, and takes it
--   taken    another has it, or may have it
-- After the server's start nobody's role is taken for a while: all sessions were cut, and all who live come back.
-- `lease` is NULL for who has a session of his own.
CREATE FUNCTION journeyman.claim(
    wanted text, key bigint, claimer text, left_before boolean, lease interval, start_grace interval
) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    owner   journeyman.roles;
    locked  boolean;
    is_free boolean;
BEGIN
    IF lease IS NULL THEN
        locked := pg_try_advisory_lock(key);
    ELSE
        locked := pg_try_advisory_xact_lock(key);
    END IF;
    SELECT * INTO owner FROM journeyman.roles WHERE role = wanted;
    IF NOT locked THEN
        RETURN CASE WHEN owner.holder = claimer THEN 'waiting' ELSE 'taken' END;
    END IF;
    is_free := owner.holder IS NULL OR owner.holder = claimer OR owner.leased_to < clock_timestamp()
        OR (
            owner.leased_to IS NULL AND left_before
            AND clock_timestamp() - pg_postmaster_start_time() > start_grace
        );
    IF is_free THEN
        INSERT INTO journeyman.roles VALUES (wanted, claimer, clock_timestamp() + lease)
        ON CONFLICT (role) DO UPDATE SET holder = excluded.holder, leased_to = excluded.leased_to;
        RETURN 'held';
    END IF;
    IF lease IS NULL THEN
        PERFORM pg_advisory_unlock(key);
    END IF;
    RETURN CASE WHEN owner.leased_to IS NULL AND NOT left_before THEN 'left' ELSE 'taken' END;
END
$$;
