INSERT INTO key_values (key, value, revision) VALUES (?1, ?2, ?3)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision
