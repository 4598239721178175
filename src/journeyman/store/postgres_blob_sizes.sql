SELECT name, size_bytes FROM journeyman.blobs ORDER BY name COLLATE "C"
