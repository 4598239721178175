INSERT INTO minutes (minute, first_position, last_position, messages, attempts, answers, failures)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (minute) DO UPDATE SET
    first_position = min(first_position, excluded.first_position),
    last_position = max(last_position, excluded.last_position),
    messages = messages + excluded.messages,
    attempts = attempts + excluded.attempts,
    answers = answers + excluded.answers,
    failures = failures + excluded.failures
