SELECT value, revision FROM journeyman.key_values WHERE key = $1
