-- The value becomes what its new parts are, and its old parts go, at once.
WITH old AS (
    DELETE FROM journeyman.blob_parts USING journeyman.blobs
    WHERE blobs.name = $1 AND blob_parts.saved = blobs.saved
)
INSERT INTO journeyman.blobs VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE
SET saved = excluded.saved, parts = excluded.parts, size_bytes = excluded.size_bytes
