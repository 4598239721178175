WITH gone AS (DELETE FROM journeyman.blobs WHERE name = $1 RETURNING saved)
DELETE FROM journeyman.blob_parts USING gone WHERE blob_parts.saved = gone.saved
