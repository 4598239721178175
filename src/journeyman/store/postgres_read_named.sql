-- The columns in the order of the fields of Record.
SELECT
    position, id, name, version, subject, body, recorded_at_us,
    correlation_id, causation_id, actor, idempotency_key, fence, meta
FROM journeyman.messages
WHERE position > $1 AND name = $3
ORDER BY position
LIMIT $2
