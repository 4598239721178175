UPDATE journeyman.key_values SET value = $2, revision = nextval('journeyman.revisions')
WHERE key = $1 AND revision = $3
RETURNING revision
