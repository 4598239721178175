SELECT key FROM key_values WHERE key >= ? ORDER BY key
