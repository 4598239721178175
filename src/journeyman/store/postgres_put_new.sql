INSERT INTO journeyman.key_values VALUES ($1, $2, nextval('journeyman.revisions'))
ON CONFLICT (key) DO NOTHING
RETURNING revision
