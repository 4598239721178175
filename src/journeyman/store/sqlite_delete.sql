DELETE FROM key_values WHERE key = ?
