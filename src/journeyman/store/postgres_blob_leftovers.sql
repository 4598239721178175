-- What a process has left that died while it saved, or that saved together with another.
DELETE FROM journeyman.blob_parts
WHERE written_at < clock_timestamp() - $1::interval
  AND NOT EXISTS (SELECT FROM journeyman.blobs WHERE blobs.saved = blob_parts.saved)
