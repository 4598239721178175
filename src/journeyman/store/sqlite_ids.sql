SELECT id FROM messages WHERE position > ? ORDER BY position LIMIT ?
