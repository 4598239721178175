-- sqlite_read_named.sql for one name, written out: only then is the partial index considered.
SELECT
    position, id, name, version, subject, body, recorded_at_us,
    correlation_id, causation_id, actor, idempotency_key, fence, meta
FROM messages
WHERE position > ?1 AND name = 'journeyman/message-set-aside'
ORDER BY position
LIMIT ?2
