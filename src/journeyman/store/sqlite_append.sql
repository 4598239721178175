-- The columns in the order of the fields of Record.
INSERT INTO messages (
    position, id, name, version, subject, body, recorded_at_us,
    correlation_id, causation_id, actor, idempotency_key, fence, meta
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
