SELECT value, revision FROM key_values WHERE key = ?
