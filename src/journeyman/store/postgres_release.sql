WITH given AS (DELETE FROM journeyman.roles WHERE role = $1 AND holder = $3 RETURNING role)
SELECT pg_advisory_unlock($2) FROM given WHERE $4::boolean
