DELETE FROM journeyman.key_values WHERE key = $1 AND ($2::bigint IS NULL OR revision = $2) RETURNING true
