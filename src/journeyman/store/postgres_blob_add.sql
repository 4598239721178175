INSERT INTO journeyman.blob_parts (saved, number, bytes) VALUES ($1, $2, $3)
