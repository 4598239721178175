-- The sequence is asked again where the key is there, once its row is locked: so revisions grow in the order of puts.
INSERT INTO journeyman.key_values VALUES ($1, $2, nextval('journeyman.revisions'))
ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = nextval('journeyman.revisions')
RETURNING revision
