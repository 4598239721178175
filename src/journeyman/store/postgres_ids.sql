SELECT id FROM journeyman.messages WHERE position > $1 ORDER BY position LIMIT $2
