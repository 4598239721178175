SELECT key FROM journeyman.key_values WHERE starts_with(key, $1) ORDER BY key COLLATE "C"
