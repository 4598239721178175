SELECT bytes FROM journeyman.blob_parts WHERE saved = $1 AND number > $2 ORDER BY number LIMIT $3
