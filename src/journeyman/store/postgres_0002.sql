-- The layout of a store, version 2: an append takes its records as one array. The server unpacks one array of rows faster
-- than twelve of columns, and the driver looks at each value of an array of values to find out how deep it is nested.

-- The fields of Record, in their order, but for the position.
CREATE TYPE journeyman.record AS (
    id              text,
    name            text,
    version         integer,
    subject         text,
    body            bytea,
    recorded_at_us  bigint,
    correlation_id  text,
    causation_id    text,
    actor           text,
    idempotency_key text,
    fence           bigint,
    meta            bytea
);

-- As the function of version 1, which stays for processes that still run and know no other.
CREATE FUNCTION journeyman.append(follows bigint, queue bigint, records journeyman.record[])
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
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
            follows + batch.number, batch.id, batch.name, batch.version, batch.subject, batch.body,
            batch.recorded_at_us, batch.correlation_id, batch.causation_id, batch.actor, batch.idempotency_key,
            batch.fence, batch.meta
        FROM unnest(records) WITH ORDINALITY AS batch (
            id, name, version, subject, body, recorded_at_us, correlation_id, causation_id, actor, idempotency_key,
            fence, meta, number
        );
    END IF;
    RETURN head;
END
$$;
